"""The table of searches."""

from bench.search.work import HEAD, MODELS, line

ROW = {
    "model": "a model",
    "commit": "this",
    "cpu_seconds": 2.0,
    "search_seconds": 3.5,
    "base_ms": 4.0,
    "best_ms": 1.0,
    "nodes": 5000,
    "playouts": 7,
    "stops": ["saturated"],
}


def test_a_line_has_the_saving_and_the_rate():
    assert line(ROW).split() == ["a", "model", "this", "2.00", "3.50", "75.0%", "5,000", "2500", "7"]
    assert len(line(ROW)) == len(HEAD)


def test_nothing_planned_is_no_division_by_zero():
    assert "0.0%" in line({**ROW, "base_ms": 0.0, "best_ms": 0.0, "cpu_seconds": 0.0})


def test_models_are_in_the_suite():
    from bench.models.suite_models import SETS

    assert set(MODELS) <= {case.name for cases in SETS.values() for case in cases}
