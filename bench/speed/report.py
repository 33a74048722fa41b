"""Rows of results: computed from samples, merged into a JSON file, printed as a table, filled into a README."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypedDict

COMPARED = ("default", "freezing", "eqsat")
"""The variants that a row is made of."""

TOLERANCE = 1e-3
"""The largest error, relative to the largest element of eager's output, that rounding in float32 can explain."""

RESULTS = Path(__file__).parents[1] / "results" / "cases.json"

_BEGIN, _END = "<!-- results -->", "<!-- /results -->"
_HEADER = (
    "case", "default ms", "freezing ms", "eqsat ms", "ratio", "ratio of medians", "error", "search s", "compile s",
    "at least", "",
)  # fmt: skip
_README_HEADER = ("model", "Inductor's best (ms)", "torch_eqsat (ms)", "ratio", "error")


class Row(TypedDict):
    """The result of a case. Times are minima; ratios are those of the better of default and freezing to eqsat, the
    predicted ones those of the graph as captured and as eqsat runs it, both with frozen weights."""

    case: str
    default_ms: float
    freezing_ms: float
    eqsat_ms: float
    ratio: float
    ratio_median: float
    error: float
    search_s: float
    compile_s: float
    predicted_base_ms: float
    predicted_best_ms: float


class Comparison(NamedTuple):
    """A line of the README's table: the fastest call of Inductor's best setting and of eqsat, the error of eqsat's
    output, and the seconds of its first call with empty caches."""

    model: str
    inductor_ms: float
    eqsat_ms: float
    error: float
    compile_s: float


def row(case: str, samples_ms: Mapping[str, Sequence[float]], ready: Mapping[str, float]) -> Row:
    """The row of a case from the samples of its variants; the rest is what eqsat was ``ready`` with."""
    least = {variant: min(samples_ms[variant]) for variant in COMPARED}
    middle = {variant: statistics.median(samples_ms[variant]) for variant in COMPARED}
    return Row(
        case=case,
        default_ms=round(least["default"], 4),
        freezing_ms=round(least["freezing"], 4),
        eqsat_ms=round(least["eqsat"], 4),
        ratio=round(_speedup(least), 4),
        ratio_median=round(_speedup(middle), 4),
        error=ready["error"],
        search_s=round(ready["search_s"], 2),
        compile_s=round(ready["compile_s"], 2),
        predicted_base_ms=round(ready["predicted_base_ms"], 4),
        predicted_best_ms=round(ready["predicted_best_ms"], 4),
    )


def _speedup(ms: Mapping[str, float]) -> float:
    return min(ms["default"], ms["freezing"]) / ms["eqsat"]


def is_wrong(error: float) -> bool:
    """Whether an error is more than rounding. NaN and infinity are."""
    return not error <= TOLERANCE


def load(path: Path) -> list[Row]:
    """The rows of a file; none when there is no file."""
    rows: list[Row] = json.loads(path.read_text()) if path.exists() else []
    return rows


def merge(rows: Iterable[Row], new: Iterable[Row], order: Sequence[str]) -> list[Row]:
    """``rows`` with those of ``new`` in place of older ones of the same case, in the given order of cases."""
    known = {entry["case"]: entry for entry in (*rows, *new)}
    place = {case: index for index, case in enumerate(order)}
    return sorted(known.values(), key=lambda entry: (place.get(entry["case"], len(place)), entry["case"]))


def save(path: Path, new: Iterable[Row], order: Sequence[str]) -> list[Row]:
    """Merge ``new`` into the file, a row a line; all its rows. A run that is stopped leaves the file whole."""
    rows = merge(load(path), new, order)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text("[\n" + ",\n".join(f"  {json.dumps(entry)}" for entry in rows) + "\n]\n")
    scratch.replace(path)
    return rows


def table(rows: Iterable[Row], thresholds: Mapping[str, float]) -> str:
    """The rows as a Markdown table, each with the ratio it has to reach; it is the ratio of minima that counts."""
    return markdown(_HEADER, [_cells(entry, thresholds.get(entry["case"])) for entry in rows])


def _cells(entry: Row, threshold: float | None) -> list[str]:
    times = [f"{ms:.2f}" for ms in (entry["default_ms"], entry["freezing_ms"], entry["eqsat_ms"])]
    ratios = [f"{entry['ratio']:.2f}x", f"{entry['ratio_median']:.2f}x"]
    rest = [_error(entry["error"]), f"{entry['search_s']:.1f}", f"{entry['compile_s']:.1f}"]
    return [entry["case"], *times, *ratios, *rest, *_verdict(entry, threshold)]


def _verdict(entry: Row, threshold: float | None) -> tuple[str, str]:
    at_least = "" if threshold is None else f"{threshold:.2f}x"
    if is_wrong(entry["error"]):
        return at_least, "WRONG"
    if threshold is None:
        return "", ""
    return at_least, "met" if entry["ratio"] >= threshold else "MISSED"


def _error(error: float) -> str:
    return f"{error:.1e}" if math.isfinite(error) else str(error)


def readme_text(machine: str, settings: str, compared: Sequence[Comparison]) -> str:
    """What the README says of ``compared`` models: the machine, Inductor's ``settings``, the table, first calls."""
    lines = [_comparison_cells(entry) for entry in compared]
    seconds = [entry.compile_s for entry in compared]
    return (
        f"{machine}\n\nSettings of Inductor: {settings}.\n\n{markdown(_README_HEADER, lines)}\n\n"
        f"First calls of torch_eqsat with empty caches, search included, took {min(seconds):.1f} to "
        f"{max(seconds):.1f} s."
    )


def _comparison_cells(entry: Comparison) -> list[str]:
    ratio = "WRONG" if is_wrong(entry.error) else f"{entry.inductor_ms / entry.eqsat_ms:.2f}x"
    return [entry.model, f"{entry.inductor_ms:.2f}", f"{entry.eqsat_ms:.2f}", ratio, _error(entry.error)]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with its columns aligned: the first to the left, the others to the right.

    >>> print(markdown(("a", "b"), [("x", "1.5")]))
    | a |   b |
    |---|----:|
    | x | 1.5 |
    """
    lines = [header, *rows]
    widths = [max(3 if i else 1, *(len(line[i]) for line in lines)) for i in range(len(header))]
    rule = "|".join("-" * (width + 2) if i == 0 else "-" * (width + 1) + ":" for i, width in enumerate(widths))
    return "\n".join([_line(header, widths), f"|{rule}|", *(_line(line, widths) for line in rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join([first.strip().ljust(widths[0]), *rest])} |"


def machine() -> str:
    """The processor, how it is used, and the versions that the times depend on."""
    return (
        f"{_processor()}, {os.cpu_count()} CPUs of which one thread is used, Python {platform.python_version()}, "
        f"torch {version('torch')}, float32, batch 1"
    )


def _processor() -> str:
    """The processor's name; a cloud machine that hides it is told by its family, model and vector unit."""
    try:
        facts = dict(re.findall(r"^([^\t:]+)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    except OSError:
        return platform.processor() or platform.machine()
    vectors = [unit for unit in ("avx2", "avx512f", "amx_tile") if unit in facts.get("flags", "").split()]
    details = [f"family {facts.get('cpu family', '?')} model {facts.get('model', '?')}", *vectors]
    return f"{facts.get('model name', platform.machine())} ({', '.join(details)})"


def fill_readme(path: Path, text: str) -> None:
    """Put ``text`` between the results markers of the README.

    Raises ValueError when they are missing.
    """
    head, begin, rest = path.read_text().partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{path} has no {_BEGIN} … {_END}")
    path.write_text(f"{head}{_BEGIN}\n{text}\n{_END}{tail}")
