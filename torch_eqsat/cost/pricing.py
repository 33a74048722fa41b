"""The price of an e-node in milliseconds: measured for heavy kernels, by what fusion leaves for the rest.

Prices of one program's nodes add up, so fusible work is priced as if fused: what it computes, and a share of the
bytes that a fused kernel would move. Views are free. Under freezing, what depends on constants alone is free too:
it is computed once, at compile time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch_eqsat.cost.inductor.forms import forms_of
from torch_eqsat.cost.inductor.residency import RESIDENT, Residency
from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.roofline import Coefficients, Roofline, class_of, cpu_roofline, elementwise_ms, gpu_roofline
from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.program import COLUMN
from torch_eqsat.ir.term import Node
from torch_eqsat.ir.types import TensorType

# One e-node more is never better for nothing; of two equal programs the one as captured is kept.
NODE_MS = 1e-7
REWRITTEN_MS = 1e-7
# Of the bytes that a pointwise operator reads and writes, the share that reaches memory once its neighbours are fused
# with it: chains of about four such operators to one kernel are usual in the graphs of the benchmark.
MEMORY_SHARE = 0.25
# A bag is a call outside of generated code: 26 took 170 µs, one in the stacked tables 19 µs.
BAG_MS = 6e-3
# Each further operand of a concatenation is a buffer and an argument of its own in the wrapper: of 4 to 40 look-ups,
# which cost nothing to start, 0.44 µs each (AMD EPYC, family 26), and of as many scalars the same.
PART_MS = 0.44e-3


@dataclass
class Pricing:
    """Prices e-nodes for a device; ``measured`` gives ms by kernel key.

    Kernels that are not in it are priced at an optimistic roofline and collected in ``missing``, so that the caller
    can measure them and ask again: an optimistic price is corrected as soon as it matters.

    With ``alternatives`` a heavy node costs what the cheapest measured form of it does (see `forms.py`), with
    ``epilogues`` what a frozen convolution takes in is free (see `epilogue.py`). In a program that is known as a
    ``whole`` so is how images lie (see `layout.py`). Weights of which there are too many by ``residency`` are read from
    memory. Of the bytes of a fusible operator ``memory_share`` reaches memory; 1 prices it alone. ``roofline`` is that
    of float32 on a CPU, if it was measured. ``distrust_ms`` is added to each estimate of a kernel: much of it
    keeps what was not measured out of a program.
    """

    frozen: bool
    device: str = "cpu"
    threads: int = 1
    measured: dict[str, float] = field(default_factory=dict)
    missing: dict[str, Kernel] = field(default_factory=dict)
    coefficients: Coefficients = field(default_factory=Coefficients)
    alternatives: bool = False
    epilogues: bool = False
    whole: bool = False
    residency: Residency = RESIDENT
    # An estimate has to be optimistic, as it is measured if it matters: without a target, the fastest card known.
    gpu: str = "H200"
    memory_share: float = MEMORY_SHARE
    roofline: Roofline | None = None
    distrust_ms: float = 0.0

    def as_captured(self) -> Pricing:
        """The same prices, and the same kernels found missing, for calls that stay as the user wrote them."""
        changed = self.alternatives or self.distrust_ms
        return replace(self, alternatives=False, distrust_ms=0.0) if changed else self

    def price(
        self,
        node: Node,
        types: Sequence[TensorType],
        result: TensorType | None,
        constants: Sequence[bool],
        constant: bool,
        *,
        absorbed: bool = False,
        of_channels: bool = False,
        copies: int = 0,
    ) -> float:
        """The price in ms of ``node`` over operands of ``types``, of which ``constants`` depend on weights alone.
        What is ``absorbed`` by a convolution costs nothing; a gather ``of_channels`` moves vectors of them; a view may
        be copied, once for each of ``copies`` users. What reads
        a tuple (``types`` leaves such operands out) costs nothing here either: the call that returns it does."""
        operator = OPERATORS[node.op]
        if len(types) != len(node.children):
            return 0.0
        if node.op == "fx":
            return self.opaque(types, result)
        if result is None or absorbed:
            return 0.0
        if (self.frozen and constant) or operator.arity == 0:
            return 0.0
        if "heavy" in operator.traits:
            return self.kernel_ms(node, types, constants)
        if "view" in operator.traits:
            return copies * elementwise_ms(result.numel, result.bytes, result.bytes, {"cheap": 1}, self.coefficients)
        return self._fusible(node, types, result, of_channels)

    def opaque(self, types: Sequence[TensorType], result: TensorType | None) -> float:
        """The price in ms of an operator that the language does not know: its bytes. What returns no tensor is taken to
        write a tuple as large as its largest operand."""
        result = result or max(types, key=lambda t: t.bytes, default=None)
        if result is None:
            return 0.0
        return elementwise_ms(result.numel, sum(t.bytes for t in types), result.bytes, {"cheap": 1}, self.coefficients)

    def kernel_ms(self, node: Node, types: Sequence[TensorType], constants: Sequence[bool]) -> float:
        """The time in ms of a heavy kernel, or of a form of it: measured, or else a lower estimate of its own."""
        try:
            kernel = self.kernel_of(node, types, constants)
        except TypeMismatchError:  # a dtype or rank that no kernel is measured for
            return self.opaque(types, types[0])
        own = self._ms(kernel)
        forms = self.forms_ms(kernel).values() if self.alternatives else ()
        return min([own, *forms]) if kernel.key in self.measured else own

    def forms_ms(self, kernel: Kernel) -> dict[str, float]:
        """The times in ms of the other forms of a kernel (see `forms.py`) that are measured. Those that are not do not
        count yet: the optimistic price of the node's own kernel leads to measuring all."""
        others = {
            form: self._placed(other, form == COLUMN) for form, other in forms_of(replace(kernel, cold=False)).items()
        }
        self.missing.update({k.key: k for k in others.values() if k.key not in self.measured})
        return {form: self.measured[k.key] for form, k in others.items() if k.key in self.measured}

    def _placed(self, kernel: Kernel, shared: bool) -> Kernel:
        """``kernel`` with its weight where a call of the program finds it; ``shared`` by all uses, or a packed copy."""
        through = self.residency.shared if shared else self.residency.packed
        cold = kernel.device == "cpu" and kernel.thin and through > self.coefficients.cache_bytes
        return replace(kernel, cold=cold)

    def _ms(self, kernel: Kernel) -> float:
        found = self.measured.get(kernel.key)
        if found is not None:
            return found
        self.missing[kernel.key] = kernel
        return self.distrust_ms + self.estimate_ms(kernel)

    def estimate_ms(self, kernel: Kernel) -> float:
        """A lower estimate of the time in ms of a kernel that is not measured."""
        return self._roofline(kernel.dtype).lower_estimate_ms(kernel)

    def _roofline(self, dtype: str) -> Roofline:
        if self.device == "cpu":
            return (self.roofline or cpu_roofline(self.threads)).of_cpu_dtype(dtype)
        roofline = gpu_roofline(self.gpu, dtype)
        assert roofline is not None
        return roofline

    def kernel_of(self, node: Node, types: Sequence[TensorType], constants: Sequence[bool]) -> Kernel:
        """The kernel that computes a heavy e-node."""
        shapes = [t.shape for t in types]
        dtype, device = types[0].dtype, self.device
        weight = self.frozen and constants[1]
        if node.op == "matmul":
            # Weights of linear layers come transposed; what is computed in the graph lies as it was made.
            turned = constants[1] and not weight and types[0].rank == 2
            product = Kernel.matmul(shapes[0], shapes[1], dtype=dtype, device=device, weight=weight, turned=turned)
            return self._placed(product, not product.weight) if constants[1] else product
        if node.op == "conv":
            geometry = {name: node[name] for name in ("stride", "padding", "dilation", "groups")}
            product = Kernel.conv(shapes[0], shapes[1], dtype=dtype, device=device, weight=weight, **geometry)
            return self._placed(product, not product.weight) if constants[1] else product
        if node.op == "conv_transpose":
            geometry = {name: node[name] for name in ("stride", "padding", "groups")}
            return Kernel.conv_transpose(shapes[0], shapes[1], dtype=dtype, device=device, **geometry)
        return Kernel.sdpa(*shapes[:3], causal=node["causal"], dtype=dtype, device=device)

    def _fusible(self, node: Node, types: Sequence[TensorType], result: TensorType, of_channels: bool) -> float:
        traffic = OPERATORS[node.op].traffic(dict(node.attrs), types, result)
        work = {"cheap": 1.0} if of_channels else {_class(node): traffic.work}
        share = self.memory_share if traffic.fused else 1.0
        start = PART_MS * traffic.parts + BAG_MS * traffic.calls
        read, written = share * traffic.read, share * result.bytes
        return start + elementwise_ms(traffic.elements, read, written, work, self.coefficients, launches=0)


def _class(node: Node) -> str:
    """The class of what ``node`` computes for each element."""
    if node.op != "pointwise":
        return OPERATORS[node.op].work
    function = str(node["uid"]).partition("(")[0].split(".")
    return class_of(function[1] if len(function) > 1 else function[0])
