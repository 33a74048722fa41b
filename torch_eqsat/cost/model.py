"""The seam between the search and what it costs to run a program: a cost model prices one e-node at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.ir.term import Node
from torch_eqsat.ir.types import TensorType

Missing = dict[str, Kernel]
"""Kernels, by key, whose times prices would have needed; who reads prices may pass one to be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TermContext:
    """What the program around a term makes of it. A new term of the cost is one field here and one line where it is
    priced."""

    absorbed: bool = False
    """A convolution takes it in: it costs nothing."""
    of_channels: bool = False
    """It is a gather that moves whole vectors of channels."""
    copies: int = 0
    """So often a view is copied: for each convolution that reads a slice of channels, or once by a reshape."""
    shuffled: bool = False
    """It is a view whose elements are read one by one, by their indices."""
    added_later: bool = False
    """It is a product to which Inductor adds a tensor of its own size: `addmm` writes that tensor first."""


ALONE = TermContext()
"""Nothing is known of the program, as for an e-node."""


class CostModel(Protocol):
    """Prices in ms, which add up over the nodes of a program. Reading a price changes nothing but ``missing``."""

    @property
    def frozen(self) -> bool:
        """Whether terms of constants alone are computed once, at compile time."""
        ...

    @property
    def epilogues(self) -> bool:
        """Whether convolutions take in what follows them, so that contexts have to be found."""
        ...

    @property
    def whole(self) -> bool:
        """Whether prices are of whole programs, so that how images lie has to be found."""
        ...

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
        """The price in ms of ``node`` over operands of ``types``, of which ``constants`` depend on weights alone, as
        the result does if it is ``constant``. A node that reads a tuple (``types`` leaves such operands out) costs
        nothing: the call that returns the tuple does."""
        ...

    def unmeasured(self, node: Node, types: Sequence[TensorType], constants: Sequence[bool]) -> Kernel | None:
        """The kernel whose estimate the price of a heavy node relies on, if it does."""
        ...

    def form(self, node: Node, types: Sequence[TensorType], constants: Sequence[bool]) -> str:
        """The form that a heavy node is best written in (see `inductor/forms.py`); OWN for Inductor's own choice."""
        ...

    def as_captured(self) -> CostModel:
        """The same prices for calls that stay as the user wrote them."""
        ...
