"""Rows, tables and the JSON file of the benchmark, from fixed samples."""

import json
import typing

import pytest

from bench.speed import report

SAMPLES = {"default": [4.0, 2.0, 8.0], "freezing": [3.0, 5.0, 6.0], "eqsat": [1.0, 2.0, 2.0]}
READY = {
    "error": 2e-6, "search_s": 1.234, "compile_s": 5.678, "predicted_base_ms": 2.5, "predicted_best_ms": 1.5,
}  # fmt: skip
ORDER = ["first", "second", "third"]


def make_row(case="first", **changes):
    row = report.row(case, SAMPLES, READY)
    return report.Row(**{**row, **changes})


def test_ratios_are_against_the_better_baseline():
    row = make_row()
    assert (row["default_ms"], row["freezing_ms"], row["eqsat_ms"]) == (2.0, 3.0, 1.0)
    assert row["ratio"] == 2.0  # of minima 2, 3 and 1
    assert row["ratio_median"] == 2.0  # of medians 4, 5 and 2


def test_more_variants_than_compared_change_nothing():
    row = report.row("first", {**SAMPLES, "eager": [0.1]}, READY)
    assert row == make_row()


def test_json_has_the_keys_of_a_row_and_no_other(tmp_path):
    path = tmp_path / "results" / "cases.json"
    report.save(path, [make_row()], ORDER)
    [entry] = json.loads(path.read_text())
    assert list(entry) == list(typing.get_type_hints(report.Row))
    assert list(entry) == [
        "case", "default_ms", "freezing_ms", "eqsat_ms", "ratio", "ratio_median", "error", "search_s", "compile_s",
        "predicted_base_ms", "predicted_best_ms",
    ]  # fmt: skip
    assert isinstance(entry["case"], str)
    assert all(isinstance(value, float) for key, value in entry.items() if key != "case")


def test_rows_are_merged_by_case_in_the_order_of_the_table(tmp_path):
    path = tmp_path / "cases.json"
    report.save(path, [make_row("third")], ORDER)
    report.save(path, [make_row("first"), make_row("unknown")], ORDER)
    rows = report.save(path, [make_row("third", ratio=9.0)], ORDER)
    assert [row["case"] for row in rows] == ["first", "third", "unknown"]
    assert rows[1]["ratio"] == 9.0
    assert report.load(path) == rows
    assert [entry.name for entry in tmp_path.iterdir()] == ["cases.json"]


def test_no_file_is_no_rows(tmp_path):
    assert report.load(tmp_path / "none.json") == []


def test_table():
    rows = [
        make_row("first"),
        make_row("second"),
        make_row("third", error=float("inf")),
        make_row("fourth", error=0.01),
    ]
    assert report.table(rows, {"first": 2.0, "second": 2.5, "third": 1.0}).splitlines() == [
        "| case   | default ms | freezing ms | eqsat ms | ratio | ratio of medians |   error |"
        " search s | compile s | at least |        |",
        "|--------|-----------:|------------:|---------:|------:|-----------------:|--------:|"
        "---------:|----------:|---------:|-------:|",
        "| first  |       2.00 |        3.00 |     1.00 | 2.00x |            2.00x | 2.0e-06 |"
        "      1.2 |       5.7 |    2.00x |    met |",
        "| second |       2.00 |        3.00 |     1.00 | 2.00x |            2.00x | 2.0e-06 |"
        "      1.2 |       5.7 |    2.50x | MISSED |",
        "| third  |       2.00 |        3.00 |     1.00 | 2.00x |            2.00x |     inf |"
        "      1.2 |       5.7 |    1.00x |  WRONG |",
        "| fourth |       2.00 |        3.00 |     1.00 | 2.00x |            2.00x | 1.0e-02 |"
        "      1.2 |       5.7 |          |  WRONG |",
    ]


def test_text_of_the_readme():
    compared = [report.Comparison("first", 3.0, 1.5, 2e-6, 4.25), report.Comparison("second", 3.0, 2.0, 0.01, 5.0)]
    assert report.readme_text("A machine", "`default`", compared).splitlines() == [
        "A machine",
        "",
        "Settings of Inductor: `default`.",
        "",
        "| model  | Inductor's best (ms) | torch_eqsat (ms) | ratio |   error |",
        "|--------|---------------------:|-----------------:|------:|--------:|",
        "| first  |                 3.00 |             1.50 | 2.00x | 2.0e-06 |",
        "| second |                 3.00 |             2.00 | WRONG | 1.0e-02 |",
        "",
        "First calls of torch_eqsat with empty caches, search included, took 4.2 to 5.0 s.",
    ]


@pytest.mark.parametrize(
    ("error", "wrong"),
    [(0.0, False), (report.TOLERANCE, False), (0.1, True), (float("inf"), True), (float("nan"), True)],
)
def test_what_is_wrong(error, wrong):
    assert report.is_wrong(error) is wrong


def test_readme_is_filled_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    report.fill_readme(readme, "new")
    report.fill_readme(readme, "newer")
    assert readme.read_text() == "before\n<!-- results -->\nnewer\n<!-- /results -->\nafter\n"
    readme.write_text("no markers\n")
    with pytest.raises(ValueError, match="has no"):
        report.fill_readme(readme, "new")


def test_machine_names_the_versions():
    assert "torch 2." in report.machine()
