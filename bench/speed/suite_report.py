"""Rows of ``bench.speed.suite``: kept in a JSON file, summed up by geometric means, printed as a table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.models.cases import CASES, Case
from bench.models.suite_models import SETS
from bench.speed import report
from bench.speed.report import is_wrong, machine, markdown
from bench.speed.variants import VARIANTS

Row = dict[str, Any]
Rows = dict[tuple[str, str], Row]
"""Rows by model and variant. ``failure`` says why one has no time."""

RESULTS = Path(__file__).parents[1] / "results" / "suite.json"

_INDUCTOR = tuple(name for name, variant in VARIANTS.items() if variant.family == "inductor")
_PEERS = tuple(name for name, variant in VARIANTS.items() if variant.family == "peer")
_OURS = tuple(name for name, variant in VARIANTS.items() if variant.family == "eqsat")
_TRAINS = tuple(name for name in _OURS if VARIANTS[name].trains)

COMPARISONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "best Inductor / eqsat": (_INDUCTOR, ("eqsat",)),
    "best Inductor / best eqsat": (_INDUCTOR, _OURS),
    "better peer / eqsat": (_PEERS, ("eqsat",)),
    "better peer / best eqsat": (_PEERS, _OURS),
    "best Inductor / eqsat_nofreeze": (_INDUCTOR, _TRAINS),
}
"""What is divided by what: the fastest of the first variants by the fastest of the second. The first is the one to
quote: one fixed setting against the best that Inductor can be set to."""

MODELS_OF = {"a": ("a",), "a+b": ("a", "b"), "c": ("c",)}
"""The sets that a mean is taken over; (c), which only trains, never mixes with the others."""


def load(path: Path) -> Rows:
    """The rows of a file; none when there is no file."""
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    return {(row["model"], row["variant"]): row for row in rows}


def save(path: Path, rows: Rows) -> None:
    """Write the rows and what they come to. A run that is stopped leaves the file whole."""
    models, variants = [case.name for cases in SETS.values() for case in cases], list(VARIANTS)
    ordered = sorted(rows.values(), key=lambda row: (models.index(row["model"]), variants.index(row["variant"])))
    lines = ",\n".join(f"    {json.dumps(row)}" for row in ordered)
    head = f'{{\n  "machine": {json.dumps(machine())},\n  "means": {json.dumps(means(rows), indent=2)},\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(f'{head}  "rows": [\n{lines}\n  ]\n}}\n')
    scratch.replace(path)


def means(rows: Rows) -> dict[str, dict[str, Any]]:
    """The geometric means of each comparison over (a), over (a) and (b), and over (c)."""
    found = {}
    for label, sets in MODELS_OF.items():
        names = [case.name for name in sets for case in SETS[name]]
        for comparison, (theirs, ours) in COMPARISONS.items():
            if (mean := geometric_mean(rows, names, theirs, ours)) is not None:
                found[f"{label}: {comparison}"] = mean
    return found


def geometric_mean(
    rows: Rows, models: Iterable[str], theirs: Sequence[str], ours: Sequence[str]
) -> dict[str, Any] | None:
    """The geometric mean of their least time by our least time, the worst ratio and its model, and what was left out:
    models of which a side has no time. None when no model has both.

    A variant whose output is wrong has no time, on either side.
    """
    ratios, excluded = {}, []
    for model in models:
        sides = [_fastest(rows, model, side) for side in (theirs, ours)]
        if sides[0] is None or sides[1] is None:
            excluded.append(model)
        else:
            ratios[model] = sides[0] / sides[1]
    if not ratios:
        return None
    worst = min(ratios, key=ratios.__getitem__)
    return {
        "mean": round(statistics.geometric_mean(ratios.values()), 4),
        "models": len(ratios),
        "worst": round(ratios[worst], 4),
        "worst_model": worst,
        "excluded": excluded,
    }


def ratio_to_quote(rows: Rows, case: Case) -> float | None:
    """The best of Inductor by ``eqsat``, or by ``eqsat_nofreeze`` for a model that trains; None when one is missing."""
    sides = [_fastest(rows, case.name, side) for side in (_INDUCTOR, _TRAINS if case.training else ("eqsat",))]
    return None if sides[0] is None or sides[1] is None else sides[0] / sides[1]


def _fastest(rows: Rows, model: str, variants: Sequence[str]) -> float | None:
    found = (rows.get((model, variant), {}) for variant in variants)
    times = [row["min_ms"] for row in found if "min_ms" in row and not is_wrong(row["error"])]
    return min(times, default=None)


def table(rows: Rows) -> str:
    """A line a model with the least ms of every variant and the ratio to quote; then the means."""
    shown = [name for name in VARIANTS if any(variant == name for _, variant in rows)]
    lines = []
    for case in (case for cases in SETS.values() for case in cases):
        own = {variant: row for (model, variant), row in rows.items() if model == case.name}
        if own:
            ratio = ratio_to_quote(rows, case)
            quoted = "" if ratio is None else f"{ratio:.2f}x"
            lines.append([case.name, *(_cell(own.get(variant)) for variant in shown), quoted])
    parts = [markdown(("model, ms", *shown, "ratio"), lines)]
    if found := means(rows):
        cells = [
            [name, f"{m['mean']:.3f}x", str(m["models"]), f"{m['worst']:.2f}x", m["worst_model"]]
            for name, m in found.items()
        ]
        parts.append(markdown(("geometric mean", "", "models", "worst", "of"), cells))
    parts += [f"{model}, {variant}: {row['failure']}" for (model, variant), row in rows.items() if row.get("failure")]
    return "\n\n".join(parts)


def readme_text(path: Path) -> str:
    """What the README says of the cases of `make bench` that a file of rows has timed; "" if there are none."""
    rows = load(path)
    compared = [found for case in CASES if (found := _comparison(rows, case)) is not None]
    if not compared:
        return ""
    timed = {
        setting: sum("min_ms" in rows.get((entry.model, setting), {}) for entry in compared) for setting in _INDUCTOR
    }
    settings = ", ".join(
        f"`{setting}`" + (f" (on {count} of {len(compared)} models)" if count < len(compared) else "")
        for setting, count in timed.items()
        if count
    )
    return report.readme_text(json.loads(path.read_text())["machine"], settings, compared)


def _comparison(rows: Rows, model: str) -> report.Comparison | None:
    """Inductor's best setting and ``eqsat``; None when one of the variants of `make bench` has no time."""
    if not all("min_ms" in rows.get((model, variant), {}) for variant in report.COMPARED):
        return None
    best, ours = _fastest(rows, model, _INDUCTOR), rows[model, "eqsat"]
    if best is None:  # all of Inductor's outputs are wrong
        return None
    return report.Comparison(model, best, ours["min_ms"], ours["error"], ours["compile_cold_s"])


def broken(rows: Rows) -> list[Row]:
    """The rows of eqsat variants that failed or computed something else."""
    ours = (row for (_, variant), row in rows.items() if variant in _OURS)
    return [row for row in ours if row.get("failure") or is_wrong(row["error"])]


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    if row.get("failure"):
        return "failed"
    if is_wrong(row["error"]):
        return "WRONG"
    return f"{row['min_ms']:.3f}" if "min_ms" in row else "compiled"


def rounded(values: Mapping[str, float], keep: Callable[[str], bool]) -> dict[str, float]:
    """The wanted values with four significant digits."""
    return {name: float(f"{value:.4g}") for name, value in values.items() if keep(name)}
