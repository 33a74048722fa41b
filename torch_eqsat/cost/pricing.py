"""The price of an e-node in milliseconds: measured for heavy kernels, by what fusion leaves for the rest.

Prices of one program's nodes add up, so fusible work is priced as if fused: what it computes, and a share of the
bytes that a fused kernel would move. Views are free, unless they are copies. Under freezing, what depends on constants
alone is free too: it is computed once, at compile time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch_eqsat.cost.inductor.copies import VECTOR
from torch_eqsat.cost.inductor.forms import forms_of
from torch_eqsat.cost.inductor.residency import RESIDENT, Residency, kept_bytes
from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.model import ALONE, Missing, TermContext
from torch_eqsat.cost.roofline import Coefficients, Roofline, class_of, cpu_roofline, elementwise_ms, gpu_roofline
from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.program import COLUMN, OWN
from torch_eqsat.ir.term import Node
from torch_eqsat.ir.types import HALF, TensorType

# Of the bytes that a pointwise operator reads and writes, the share that reaches memory once its neighbours are fused
# with it: chains of about four such operators to one kernel are usual in the graphs of the benchmark.
MEMORY_SHARE = 0.25
# The share of a bank of filters, where one pass sums rows and columns (see `torch_eqsat/kernels`): neither the sums of
# rows nor the padded image are written. Of ten sizes between 16x28x28 and 64x112x112, the sums before the products of a
# convolution are priced at 0.9 to 3 times what they take, those behind at 1.0 to 2.2 times (Intel Xeon, family 6).
TILED_SHARE = 0.5
# Its half of a call of such a kernel with cold caches: squeezenet1_1 gains 3 % by it (predicted: 4 %), and with 0.004
# other convolutions turn to Winograd's and it gains nothing (Intel Xeon, family 6).
TILED_MS = 0.01
# A bag is a call outside of generated code: 26 took 170 µs, one in the stacked tables 19 µs.
BAG_MS = 6e-3
# Each further operand of a concatenation is a buffer and an argument of its own in the wrapper: of 4 to 40 look-ups,
# which cost nothing to start, 0.44 µs each (AMD EPYC, family 26), and of as many scalars the same.
PART_MS = 0.44e-3
# What is made of weights in each call takes so many times as long as copies of as many bytes: live ones are read
# transposed, and what is read next has left the cache. A matrix of 33 MB was scaled in 2.1 ms, where copies take 1.4,
# and a step of decoding took 5.2 ms in place of 3.5. A frozen one of 9.4 MB, scaled by a number of the call, was priced
# at 0.06 ms, less than what reading it from memory costs, and took ten times as long.
MADE_OF_WEIGHTS = 2.0
# Inductor multiplies powers out up to this exponent (torch/_inductor/lowering.py, pow).
MOST_MULTIPLIED = 32
_POWER = re.compile(r"aten\.pow\.Tensor_Scalar\(%\d+, (-?[\d.]+)\)")


@dataclass(frozen=True)
class Pricing:
    """The cost model of graphs that Inductor compiles, on one device; ``measured`` gives ms by kernel key.

    Kernels that are not in it are priced at an optimistic roofline. A caller that passes a collector, ``missing``, is
    told of them, and can measure them and ask again: an optimistic price is corrected as soon as it matters.

    With ``alternatives`` a heavy node costs what the cheapest measured form of it does (see `inductor/forms.py`), but
    not a product whose rows are a multiple of a number that stands for a ``symbolic`` size. With ``epilogues`` what a
    frozen convolution takes in is free (see `inductor/fusion.py`). In a program that is known as a ``whole`` so is how
    images lie (see `inductor/layout.py`). Weights of which there are too many by ``residency`` are read from memory. Of
    the bytes of a fusible operator ``memory_share`` reaches memory; 1 prices it alone. ``roofline`` is that of float32
    on a CPU, if it was measured. ``distrust_ms`` is added to each estimate of a kernel: a large one keeps kernels that
    were not measured out of a program. Heavy operators that are not the user's own are dearer by the share
    ``heavy_doubt``, others by ``fused_doubt``: what saves less than that stays as it was. Banks of filters that kernels
    of our own compute in ``tiles`` are cheaper.

    What is computed from weights that are not frozen is computed anew in each call, and no neighbour shares its bytes:
    the weights are read from where they lie, and the result is written.
    """

    frozen: bool
    device: str = "cpu"
    threads: int = 1
    measured: dict[str, float] = field(default_factory=dict)
    coefficients: Coefficients = field(default_factory=Coefficients)
    alternatives: bool = False
    symbolic: frozenset[int] = frozenset()
    epilogues: bool = False
    whole: bool = False
    residency: Residency = RESIDENT
    # An estimate has to be optimistic, as it is measured if it matters: without a target, the fastest card known.
    gpu: str = "H200"
    memory_share: float = MEMORY_SHARE
    roofline: Roofline | None = None
    distrust_ms: float = 0.0
    heavy_doubt: float = 0.0
    fused_doubt: float = 0.0
    tiles: bool = False

    def as_captured(self) -> Pricing:
        """The same prices for calls that stay as the user wrote them."""
        if self.alternatives or self.distrust_ms or self.heavy_doubt or self.fused_doubt:
            return replace(self, alternatives=False, distrust_ms=0.0, heavy_doubt=0.0, fused_doubt=0.0)
        return self

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
        if len(types) != len(node.children):
            return 0.0
        if node.op == "fx":
            return self.opaque(types, result)
        if result is None or context.absorbed:
            return 0.0
        if (self.frozen and constant) or operator.arity == 0:
            return 0.0
        if "heavy" in operator.traits:
            added = self._copy_ms(result) if context.added_later else 0.0
            ms = self.kernel_ms(node, types, constants, missing) + added + self._copies_ms(types[0], context)
            return ms * (1 + self.heavy_doubt)
        if "view" in operator.traits:
            return self._copies_ms(result, context)
        return self._fusible(node, types, result, constants, context) * (1 + self.fused_doubt)

    def _copies_ms(self, copied: TensorType, context: TermContext) -> float:
        # Copies were measured on CPUs alone; a GPU's readers compute with indices.
        if self.device != "cpu" or not (context.copies or context.shuffled):
            return 0.0
        shuffle = "half shuffle" if copied.dtype in HALF else "shuffle"
        return context.copies * self._copy_ms(copied) + self._copy_ms(copied, shuffle) * context.shuffled

    def _copy_ms(self, copied: TensorType, work: str = "cheap") -> float:
        return elementwise_ms(copied.numel, copied.bytes, copied.bytes, {work: 1}, self.coefficients)

    def opaque(self, types: Sequence[TensorType], result: TensorType | None) -> float:
        """The price in ms of an operator that the language does not know, by its bytes. A call that returns no tensor
        counts as writing a tuple as large as its largest operand."""
        result = result or max(types, key=lambda t: t.bytes, default=None)
        if result is None:
            return 0.0
        return elementwise_ms(result.numel, sum(t.bytes for t in types), result.bytes, {"cheap": 1}, self.coefficients)

    def kernel_ms(
        self, node: Node, types: Sequence[TensorType], constants: Sequence[bool], missing: Missing | None = None
    ) -> float:
        """The time in ms of a heavy kernel, or of a form of it: measured, or else a lower estimate of its own."""
        try:
            kernel = self.kernel_of(node, types, constants)
        except TypeMismatchError:  # a dtype or rank that no kernel is measured for
            return self.opaque(types, types[0])
        own = self._ms(kernel, missing)
        forms = self.forms_ms(kernel, missing).values() if self.alternatives else ()
        return min([own, *forms]) if kernel.key in self.measured else own

    def forms_ms(self, kernel: Kernel, missing: Missing | None = None) -> dict[str, float]:
        """The times in ms of the other forms of a kernel (see `inductor/forms.py`) that are measured. The others
        do not count: the optimistic price of the node's own kernel leads to measuring all."""
        # What another kernel asks of its operands may be a guard on a symbolic size.
        rows, *sizes = (n for shape in kernel.shapes for n in shape)
        fixed = self.symbolic.isdisjoint(sizes) and not any(rows % number == 0 for number in self.symbolic)
        forms = forms_of(replace(kernel, cold=False)) if fixed else {}
        others = {form: self._placed(other, form == COLUMN) for form, other in forms.items()}
        if missing is not None:
            missing.update({k.key: k for k in others.values() if k.key not in self.measured})
        return {form: self.measured[k.key] for form, k in others.items() if k.key in self.measured}

    def _placed(self, kernel: Kernel, shared: bool) -> Kernel:
        """``kernel`` with its weight where a call of the program finds it; ``shared`` by all uses, or a packed copy."""
        cold = kernel.device == "cpu" and kernel.thin and self.is_cold(shared)
        return replace(kernel, cold=cold)

    def _just_made(self, kernel: Kernel, operand: TensorType) -> Kernel:
        """``kernel`` with its second operand where the program finds what it has computed: in memory if it is large.
        Of a weight of 33 MB, scaled for each token, 0.99 ms were predicted where the weight itself takes 1.8."""
        return replace(kernel, cold=kernel.device == "cpu" and kernel.thin and operand.bytes > self._kept_bytes())

    def is_colder_than(self, other: Pricing) -> bool:
        """Whether weights come from memory, packed or shared, that the ``other`` prices find in the cache."""
        return any(self.is_cold(shared) and not other.is_cold(shared) for shared in (False, True))

    def is_cold(self, shared: bool) -> bool:
        """Whether weights, ``shared`` by all uses or copied for each, come from memory in each call."""
        return (self.residency.shared if shared else self.residency.packed) > self._kept_bytes()

    def _kept_bytes(self) -> float:
        """How much stays in the cache; weights on a GPU are priced as they are read."""
        return kept_bytes(self.coefficients) if self.device == "cpu" else math.inf

    def unmeasured(self, node: Node, types: Sequence[TensorType], constants: Sequence[bool]) -> Kernel | None:
        """See `CostModel`."""
        kernel = self._heavy_kernel(node, types, constants)
        return kernel if kernel is not None and kernel.key not in self.measured else None

    def form(self, node: Node, types: Sequence[TensorType], constants: Sequence[bool]) -> str:
        """See `CostModel`. The price of a heavy e-node is that of its cheapest measured form."""
        kernel = self._heavy_kernel(node, types, constants) if self.alternatives else None
        if kernel is None:
            return OWN
        own, known = self.measured.get(kernel.key), self.forms_ms(kernel)
        if own is None or not known:
            return OWN
        best = min(known, key=lambda form: known[form])
        return best if known[best] < own else OWN

    def _heavy_kernel(self, node: Node, types: Sequence[TensorType], constants: Sequence[bool]) -> Kernel | None:
        """The kernel of a heavy node that is one of those that are measured."""
        if "heavy" not in OPERATORS[node.op].traits or len(types) != len(node.children):
            return None
        try:
            return self.kernel_of(node, types, constants)
        except TypeMismatchError:
            return None

    def _ms(self, kernel: Kernel, missing: Missing | None) -> float:
        found = self.measured.get(kernel.key)
        if found is not None:
            return found
        if missing is not None:
            missing[kernel.key] = kernel
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
            turned = constants[1] and not weight and types[1].rank == 2
            rows = shapes[0] if types[1].rank == 3 else (math.prod(shapes[0][:-1]), shapes[0][-1])
            product = Kernel.matmul(rows, shapes[1], dtype=dtype, device=device, weight=weight, turned=turned)
            return self._placed(product, not product.weight) if constants[1] else self._just_made(product, types[1])
        if node.op == "conv":
            geometry = {name: node[name] for name in ("stride", "padding", "dilation", "groups")}
            product = Kernel.conv(shapes[0], shapes[1], dtype=dtype, device=device, weight=weight, **geometry)
            return self._placed(product, not product.weight) if constants[1] else self._just_made(product, types[1])
        if node.op == "conv_transpose":
            geometry = {name: node[name] for name in ("stride", "padding", "groups")}
            product = Kernel.conv_transpose(shapes[0], shapes[1], dtype=dtype, device=device, weight=weight, **geometry)
            return self._placed(product, not product.weight) if constants[1] else self._just_made(product, types[1])
        return Kernel.sdpa(*shapes[:3], causal=node["causal"], dtype=dtype, device=device)

    def _fusible(
        self,
        node: Node,
        types: Sequence[TensorType],
        result: TensorType,
        constants: Sequence[bool],
        context: TermContext,
    ) -> float:
        traffic = OPERATORS[node.op].traffic(dict(node.attrs), types, result)
        start = PART_MS * traffic.parts + BAG_MS * traffic.calls
        weights = min(traffic.read, _weights_read(types, constants, result))  # frozen ones as well: this is not folded
        tiled = traffic.tiled and self.tiles and not weights
        share = 1.0 if weights else self.memory_share if traffic.fused else TILED_SHARE if tiled else 1.0
        work = {"cheap": 1.0} if context.of_channels else _work(node, traffic.work)
        if weights and not traffic.fused and result.rank > 2 and result.shape[-1] < VECTOR:
            # Sums along the windows of kernels are no vectors: Winograd's forms of live kernels took 0.13 ms more than
            # the 0.35 that they were priced at, of 128 to 128 channels.
            work = {"gather": traffic.work}
        read, written = share * (traffic.read - weights), share * result.bytes
        ms = elementwise_ms(traffic.elements, read, written, work, self.coefficients, launches=int(weights > 0))
        through = ms + weights / self._weight_rate()
        return start + TILED_MS * tiled + through * (MADE_OF_WEIGHTS if weights else 1.0)

    def _weight_rate(self) -> float:
        """Bytes per ms at which weights are read outside of the kernels that are measured."""
        return self.coefficients.bytes_per_ms if self.is_cold(True) else self.coefficients.cache_bytes_per_ms


def _weights_read(types: Sequence[TensorType], constants: Sequence[bool], result: TensorType) -> int:
    """Bytes of matrices of weights among the operands, where they are as large as what is made of them; vectors are
    read along with what they are applied to."""
    matrices = [t.bytes for t, c in zip(types, constants, strict=True) if c and sum(n > 1 for n in t.shape) > 1]
    return sum(matrices) if 2 * sum(matrices) >= result.bytes else 0


def _work(node: Node, times: float) -> Mapping[str, float]:
    """What ``node`` computes for each element, by class."""
    if node.op != "pointwise":
        return {OPERATORS[node.op].work: times}
    uid = str(node["uid"])
    if power := _POWER.match(uid):  # written as products, of square roots for halves
        exponent = abs(float(power[1]))
        if exponent <= MOST_MULTIPLIED and exponent % 0.5 == 0:
            return {"cheap": 2 * max(1.0, math.log2(max(exponent, 1.0))), "division": float(exponent % 1 > 0)}
    function = uid.partition("(")[0].split(".")
    return {class_of(function[1] if len(function) > 1 else function[0]): times}
