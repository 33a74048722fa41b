"""What reports say."""

import pytest

from torch_eqsat import report as reports
from torch_eqsat.report import TIME, GraphReport, RegionReport
from torch_eqsat.search.limits import StopReason


@pytest.fixture(autouse=True)
def fresh():
    reports.reset()
    yield
    reports.reset()


def region(count=1, base=1.0, best=0.5, **laws):
    return RegionReport(count, 40, base, best, 0.0, laws, "saturated", 1, 120, 0.25)


def test_unchanged_graph():
    assert str(GraphReport(7, frozen=False)) == (
        "graph of 7 calls: left as it is\n"
        "  predicted 0.000 ms before, 0.000 ms after\n"
        "  search 0.0 s, measuring 0.0 s (0 kernels), checking 0.0 s"
    )


def test_rewritten_graph():
    report = GraphReport(
        12,
        frozen=True,
        decision="rewritten, 3 calls are new",
        changed=True,
        base_ms=4.0,
        best_ms=1.25,
        regions=[region(2, matmul_associates_right=1), region(1, 2.0, 0.25, factor_of_one=1, view_of_view=5)],
        search_seconds=1.26,
        measure_seconds=2.0,
        judge_seconds=0.04,
        kernels_measured=9,
        kernels_left=3,
    )
    assert str(report) == (
        "graph of 12 calls, weights frozen: rewritten, 3 calls are new\n"
        "  predicted 4.000 ms before, 1.250 ms after\n"
        "  search 1.3 s, measuring 2.0 s (9 of 12 kernels), checking 0.0 s\n"
        "  laws: view_of_view x5, matmul_associates_right x2, factor_of_one x1\n"
        "  region x1 of 40 terms: 2.000 -> 0.250 ms; saturated after 1 playouts, 120 e-nodes, 0.25 s\n"
        "  region x2 of 40 terms: 1.000 -> 0.500 ms; saturated after 1 playouts, 120 e-nodes, 0.25 s"
    )


def test_stored_plan_and_many_regions():
    report = GraphReport(1, False, from_plan=True, regions=[region(best=i / 10) for i in range(10)])
    text = str(report).splitlines()
    assert text[2].endswith("checking 0.0 s, from a stored plan")
    assert len(text) == 3 + 8 + 1
    assert text[3].startswith("  region x1 of 40 terms: 1.000 -> 0.000 ms")
    assert text[-1] == "  … and 2 regions that save less"
    assert not any(line.startswith("  laws") for line in text)


def test_laws_are_counted_by_occurrence():
    report = GraphReport(1, False, regions=[region(3, a=2), region(1, a=1, b=1)])
    assert report.laws == {"a": 7, "b": 1}


def test_last_reports():
    assert reports.last_reports() == []
    made = [GraphReport(i, False) for i in range(70)]
    for report in made:
        reports.record(report)
    assert reports.last_reports() == made[-64:]
    reports.last_reports().clear()
    assert len(reports.last_reports()) == 64
    reports.reset()
    assert reports.last_reports() == []


def test_all_kernels_measured():
    assert "(5 kernels)" in str(GraphReport(1, False, kernels_measured=5))


def test_the_limit_of_time_is_announced():
    late = RegionReport(1, 40, 1.0, 0.5, 0.0, {}, StopReason.TIME, 1, 120, 0.25)
    text = str(GraphReport(1, False, regions=[region(), late, late]))
    assert "  the limit of time ended the search of 2 of 3 distinct regions" in text.splitlines()
    assert "limit of time" not in str(GraphReport(1, False, regions=[region()]))
    assert TIME == StopReason.TIME
