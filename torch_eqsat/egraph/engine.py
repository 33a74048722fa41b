"""The only module that calls egglog: program text in, rows out.

Text is passed as files through ``Include``, which Rust parses: 14.7 ms for a graph of 667 nodes, 137 ms through the
Python parser. Facts are rows of relations, read by ``Input``, which a rule for each relation turns into e-nodes: 2.6 µs
a fact, where an action of a rule of program text takes 100 µs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch_eqsat.egraph.compile import READING
from torch_eqsat.egraph.home import some_home

with some_home():
    from egglog.bindings import (
        EgglogSpan,
        EGraph,
        Include,
        Input,
        Pop,
        Push,
        Run,
        RunConfig,
        RunSchedule,
        SrcFile,
    )

_SPAN = EgglogSpan(SrcFile(None, ""), 0, 0)


class Engine:
    """One egglog e-graph with the sort ``T`` of tensors and ``(node i)``, the e-class that holds our term number i."""

    def __init__(self) -> None:
        self._egraph: Any = EGraph()
        # A file in memory where the system has these: it disappears with the process, even after a kill.
        self._memory = os.memfd_create("eqsat") if hasattr(os, "memfd_create") else None
        self._path = f"/proc/self/fd/{self._memory}" if self._memory is not None else tempfile.mktemp(suffix=".egg")
        self._integers: dict[Any, int] = {}
        self.include("(sort T)\n(constructor node (i64) T)\n" + READING)

    def close(self) -> None:
        """Free the e-graph's memory at once and remove the scratch file. Call this in the thread that made the e-graph:
        egglog frees it only there."""
        self._egraph = None
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None
        elif os.path.exists(self._path):
            os.unlink(self._path)

    def include(self, text: str) -> None:
        """Run program text, such as declarations."""
        with open(self._path, "w", encoding="utf-8") as file:
            file.write(text)
        self._egraph.run_program(Include(_SPAN, self._path))

    def read(self, tables: Mapping[str, Sequence[tuple[int, ...]]], ruleset: str) -> None:
        """Add rows of integers to relations, by name, and run the rules that make e-nodes of them."""
        for relation, rows in tables.items():
            with open(self._path, "w", encoding="utf-8") as file:
                file.writelines("\t".join(map(str, row)) + "\n" for row in rows)
            self._egraph.run_program(Input(_SPAN, relation, self._path))
        self.run([ruleset])

    def run(self, rulesets: Iterable[str]) -> dict[str, int]:
        """Run each ruleset once, in order; the number of matches by rule name."""
        commands = [RunSchedule(Run(_SPAN, RunConfig(name))) for name in rulesets]
        matches: dict[str, int] = {}
        for output in self._egraph.run_program(*commands):
            matches.update(output.report.num_matches_per_rule)
        return matches

    def push(self) -> None:
        self._egraph.run_program(Push(1))

    def pop(self) -> None:
        self._egraph.run_program(Pop(_SPAN, 1))

    def rows(self, functions: Iterable[str]) -> Iterator[tuple[str, list[tuple[Any, ...]], list[Any]]]:
        """For each named function: its name, the inputs of its rows and their outputs, as opaque hashable values."""
        frozen = self._egraph.freeze().functions
        for name in functions:
            if name in frozen:
                rows = list(frozen[name].rows)
                yield name, [tuple(row.inputs) for row in rows], [row.output for row in rows]

    def integer(self, value: Any) -> int:
        """The integer that an i64 value of a row stands for."""
        found = self._integers.get(value)
        if found is None:
            found = self._integers[value] = self._egraph.value_to_i64(value)
        return found
