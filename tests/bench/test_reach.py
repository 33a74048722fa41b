"""The table of savings at other batch sizes."""

from bench import reach


def test_a_row(fresh):
    row = reach.measured("two linear layers", 2, "float32", frozen=True)
    assert row.saving > 0.5 and row.ours < 1e-5
    assert str(row).startswith("| two linear layers | 2 | float32 | frozen | ")
