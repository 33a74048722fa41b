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

from torch_eqsat.egraph.compile import BASE
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
    """One egglog e-graph with the sort ``T`` of tensors and ``(node i)``, the e-class that holds our term number i.
    ``integers`` gives the integer that an i64 value of a row stands for."""

    def __init__(self) -> None:
        self._egraph: Any = EGraph()
        # A file in memory where the system has these: it disappears with the process, even after a kill.
        self._memory = os.memfd_create("eqsat") if hasattr(os, "memfd_create") else None
        self._path = f"/proc/self/fd/{self._memory}" if self._memory is not None else tempfile.mktemp(suffix=".egg")
        self.integers = _Integers(self)
        self._declared: list[dict[str, str]] = [{}]  # before each push and now
        self._known: dict[str, str] = {}  # all that was ever declared
        self._run_text(BASE)

    def close(self) -> None:
        """Free the e-graph's memory at once and remove the scratch file. Call this in the thread that made the e-graph:
        egglog frees it only there."""
        self._egraph = None
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None
        elif os.path.exists(self._path):
            os.unlink(self._path)

    @property
    def declared(self) -> Mapping[str, str]:
        """What was declared and not taken back, by name."""
        return self._declared[-1]

    def declare(self, texts: Mapping[str, str]) -> None:
        """Run the program texts that declare what is not declared yet, by name."""
        new = {name: text for name, text in texts.items() if name not in self.declared}
        if new:
            self._run_text("\n".join(new.values()))
            self._declared[-1].update(new)
            self._known.update(new)

    def _run_text(self, text: str) -> None:
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
        """Remember this state. What was ever declared is declared before, so that a pop does not take it back: a search
        that goes back to its root many times would declare the same each time."""
        self.declare(self._known)
        self._egraph.run_program(Push(1))
        self._declared.append(dict(self.declared))

    def pop(self) -> None:
        """Go back to the state of the last push."""
        self._egraph.run_program(Pop(_SPAN, 1))
        self._declared.pop()

    @property
    def known(self) -> Mapping[str, str]:
        """What was ever declared, by name."""
        return self._known

    def empty(self) -> None:
        """Go back to before the first push."""
        while len(self._declared) > 1:
            self.pop()

    def rows(self, functions: Iterable[str]) -> Iterator[tuple[str, list[Sequence[Any]], list[Any]]]:
        """For each named function: its name, the inputs of its rows and their outputs, as opaque hashable values."""
        frozen = self._egraph.freeze().functions
        for name in functions:
            if name in frozen and (rows := list(frozen[name].rows)):
                yield name, [row.inputs for row in rows], [row.output for row in rows]

    def integer(self, value: Any) -> int:
        """The integer that an i64 value of a row stands for."""
        return int(self._egraph.value_to_i64(value))


class _Integers(dict[Any, int]):
    """The integers of i64 values, each asked for once."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._integer = engine.integer

    def __missing__(self, value: Any) -> int:
        found = self[value] = self._integer(value)
        return found
