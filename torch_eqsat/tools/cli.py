"""The command line: ``torch-eqsat calibrate``, ``torch-eqsat show`` and ``torch-eqsat bisect``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from torch_eqsat.cost.calibration import Calibration, calibrate, calibration_of
from torch_eqsat.cost.measure.kernels import context_of, measure
from torch_eqsat.cost.measure.pace import Pace, SteadyTimer
from torch_eqsat.cost.measure.probes import CompiledProbe, time_copy
from torch_eqsat.cost.measure.timer import CpuTimer
from torch_eqsat.cost.table import Table
from torch_eqsat.errors import EqsatError, MeasurementError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 if it succeeded, 1 if the machine is too busy for it. For ``bisect``:
    0 if a law was found, 1 if the compiled result agrees with eager, 2 if there is no such function, 3 if the result is
    wrong without any law."""
    parser = argparse.ArgumentParser(
        prog="torch-eqsat",
        description="Calibrate the cost model of torch_eqsat, or find the law behind a wrong result.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (
        ("calibrate", "measure the coefficients of the cost model on this CPU (a minute or two) and store them"),
        ("show", "print the coefficients of the cost model for this CPU"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("--threads", type=int, default=torch.get_num_threads(), help="number of torch's threads")
    _add_bisect(commands)
    options = parser.parse_args(arguments)
    if options.command == "bisect":
        return _bisect(options)
    if options.threads < 1:
        parser.error(f"--threads {options.threads}: at least 1 is needed")
    torch.set_num_threads(options.threads)
    with Table(context_of("cpu")) as table:
        if options.command == "calibrate":
            timer = SteadyTimer(CpuTimer(), Pace(table.paces_ms()))
            try:
                calibrate(table, CompiledProbe(timer), time_copy, lambda kernel: measure(kernel, timer), _say)
            except MeasurementError as error:
                _say(f"nothing is stored: {error}")
                return 1
        print(describe(table, calibration_of(table)))
    return 0


def _add_bisect(commands: Any) -> None:
    about = "find the law without which a compiled model agrees with eager"
    epilog = "Status: 0 a law was found, 1 the results agree, 2 bad arguments, 3 they differ without any law."
    command = commands.add_parser("bisect", help=about, description=about, epilog=epilog)
    command.add_argument("subject", metavar="module:function", help="a function that returns (model, inputs)")
    command.add_argument("--freezing", action="store_true", help="treat weights as constants")
    command.add_argument("--interpret", action="store_true", help="generate no code (backend eqsat_mcts_eager)")
    command.add_argument("--laws", nargs="*", default=[], metavar="MODULE", help="modules of additional laws")


def _bisect(options: argparse.Namespace) -> int:
    from torch_eqsat.tools.bisecting import USAGE, bisect

    backend = "eqsat_mcts_eager" if options.interpret else "eqsat_mcts"
    try:
        return bisect(options.subject, backend, {"freezing": options.freezing, "eqsat.laws": options.laws})
    except EqsatError as error:
        _say(f"torch-eqsat bisect: {error}")
        return USAGE


def describe(table: Table, calibration: Calibration) -> str:
    """The coefficients by name, each with its origin: measured or default."""
    known = table.coefficients()
    lines = [f"{table.context}", f"table: {table.path}"]
    for group, values in (("fusible", calibration.coefficients), ("roofline", calibration.roofline)):
        for name, value in asdict(values).items():
            origin = "measured" if f"{group} {name}" in known else "default"
            lines.append(f"{group} {name}: {value:.4g} ({origin})")
    return "\n".join(lines)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
