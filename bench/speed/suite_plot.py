"""Draws the suite: a bar a model, the best of Inductor's settings by eqsat, above 1 where eqsat is faster.

Run as ``python -m bench.speed.suite_plot [--out FILE]`` after ``python -m bench.speed.suite``; needs matplotlib (in the
extra ``bench``).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.models.suite_models import SETS
from bench.speed import suite_report

OUT = suite_report.RESULTS.parent / "plots" / "suite.svg"
_COLOURS = {"a": "tab:blue", "b": "tab:orange", "c": "tab:green"}
_LABELS = {"a": "the paper's models", "b": "to rewrite or to leave alone", "c": "training (not frozen)"}


def bars(rows: suite_report.Rows) -> list[tuple[str, str, float]]:
    """Set, model and ratio of each model that has one."""
    found = []
    for key, cases in SETS.items():
        for case in cases:
            ratio = suite_report.ratio_to_quote(rows, case)
            if ratio is not None:
                found.append((key, case.name, ratio))
    return found


def draw(plt: Any, rows: suite_report.Rows, path: Path) -> None:
    """Write the picture; the axis is logarithmic, so that half and twice the speed are equally far from 1."""
    found = bars(rows)
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.24 * len(found)))
    for key in SETS:
        own = [(index, ratio) for index, (group, _, ratio) in enumerate(found) if group == key]
        if own:
            places, ratios = zip(*own, strict=True)
            axis.barh(places, [ratio - 1 for ratio in ratios], left=1, color=_COLOURS[key], label=_LABELS[key])
    axis.set_xscale("log")
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_yticks(range(len(found)), [name for _, name, _ in found])
    axis.invert_yaxis()
    axis.set_xlabel("least ms of Inductor's best setting / least ms of eqsat")
    axis.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the rows of a file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parser = argparse.ArgumentParser(prog="python -m bench.speed.suite_plot", description=__doc__)
    parser.add_argument("--results", type=Path, default=suite_report.RESULTS, help="the JSON file of the suite")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    draw(pyplot, suite_report.load(options.results), options.out)


if __name__ == "__main__":
    main()
