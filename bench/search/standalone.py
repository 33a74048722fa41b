"""The cost model of the paper's experiments: the sum of the times of single operators, each measured alone.

As in TASO's: nothing is fused; inputs, weights, views, slices and permutations are free. Work on weights alone is free
as well, as it is when TASO runs its result ("weight preprocessing"). Prices come from a table of measured times; the
processes that search read it as plain data, and collect what it lacks. Free of torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.model import ALONE, Missing, TermContext
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.roofline import elementwise_ms
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.program import OWN
from torch_eqsat.ir.term import Node
from torch_eqsat.ir.types import TensorType

TABLE = Path(__file__).parents[1] / "results" / "paper_costs.json"


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator as it is timed: a node without its children, and the types of its operands."""

    node: Node
    types: tuple[TensorType, ...]

    @property
    def key(self) -> str:
        """A readable name, equal exactly when the operations are."""
        attributes = "".join(f" {name}={value}" for name, value in self.node.attrs if name not in ("shape", "dtype"))
        operands = " ".join(f"{t.dtype}{list(t.shape)}" for t in self.types)
        return f"{self.node.op} {operands}{attributes}"


@dataclass
class Standalone:
    """A cost model by the table ``times`` (ms by key); operations that it lacks are estimated, and kept in ``lacking``,
    kernels in ``missing``."""

    times: Mapping[str, float] = field(default_factory=dict)
    lacking: dict[str, Operation] = field(default_factory=dict)
    missing: Missing = field(default_factory=dict)
    frozen: bool = True
    epilogues: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        self._kernels = Pricing(frozen=True, measured=dict(self.times))

    def price(
        self,
        node: Node,
        types: Sequence[TensorType],
        result: TensorType | None,
        constants: Sequence[bool],
        constant: bool,
        context: TermContext = ALONE,
        missing: Missing | None = None,
    ) -> float:
        """See `CostModel`."""
        operator = OPERATORS[node.op]
        operands = len(types) == len(node.children)
        if constant or operator.arity == 0 or "view" in operator.traits or not operands or node.op == "input":
            return 0.0
        if "heavy" in operator.traits:
            return self._kernels.kernel_ms(node, types, constants, self.missing)
        operation = Operation(Node(node.op, node.attrs, ()), tuple(types))
        found = self.times.get(operation.key)
        if found is not None:
            return found
        self.lacking[operation.key] = operation
        written = result.bytes if result else types[0].bytes
        return elementwise_ms(written // 4, sum(t.bytes for t in types), written, {"cheap": 1})

    def unmeasured(self, node: Node, types: Sequence[TensorType], constants: Sequence[bool]) -> Kernel | None:
        """See `CostModel`."""
        return self._kernels.unmeasured(node, types, constants)

    def form(self, node: Node, types: Sequence[TensorType], constants: Sequence[bool]) -> str:
        """Operators are timed as they are."""
        return OWN

    def as_captured(self) -> Standalone:
        """Captured operators have the same prices."""
        return self


def load_table() -> dict[str, float]:
    """Measured times in ms, by the key of an operation or of a heavy kernel; none when there is no table."""
    if not TABLE.is_file():
        return {}
    content: dict[str, float] = json.loads(TABLE.read_text(encoding="utf-8"))["ms"]
    return content


def standalone(times: Mapping[str, float]) -> Standalone:
    """Prices by a table."""
    return Standalone(times)
