"""The command line: ``torch-eqsat calibrate`` and ``torch-eqsat show``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

import torch

from torch_eqsat.cost.calibration import Calibration, calibrate, calibration_of
from torch_eqsat.cost.kernels import context_of, measure
from torch_eqsat.cost.probes import CompiledProbe
from torch_eqsat.cost.table import Table
from torch_eqsat.cost.timer import CpuTimer
from torch_eqsat.errors import MeasurementError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 when it was done, 1 when the machine is too busy for it."""
    parser = argparse.ArgumentParser(prog="torch-eqsat", description="Prices of torch_eqsat on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (
        ("calibrate", "measure this CPU (a minute or two) and keep what prices are made of"),
        ("show", "print what prices are made of on this CPU"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument(
            "--threads", type=int, default=torch.get_num_threads(), help="threads of torch to run with"
        )
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads {options.threads}: at least 1 is needed")
    torch.set_num_threads(options.threads)
    with Table(context_of("cpu")) as table:
        if options.command == "calibrate":
            timer = CpuTimer()
            try:
                calibrate(table, CompiledProbe(timer), lambda kernel: measure(kernel, timer), _say)
            except MeasurementError as error:
                _say(f"nothing is stored: {error}")
                return 1
        print(describe(table, calibration_of(table)))
    return 0


def describe(table: Table, calibration: Calibration) -> str:
    """The numbers by name, and whether they were measured here."""
    known = table.coefficients()
    lines = [f"{table.context}", f"table: {table.path}"]
    for group, values in (("fusible", calibration.coefficients), ("roofline", calibration.roofline)):
        for name, value in asdict(values).items():
            origin = "measured" if f"{group} {name}" in known else "default"
            lines.append(f"{group} {name}: {value:.4g} ({origin})")
    return "\n".join(lines)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
