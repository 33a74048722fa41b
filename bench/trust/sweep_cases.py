"""The cases of one operator of op_db, run in a process of their own: see bench/trust/sweep.py."""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import random
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_leaves, tree_map

from bench.trust.in_process import brief, searching_here
from torch_eqsat import report as reports
from torch_eqsat.counters import COUNTERS
from torch_eqsat.verification.guard import InDouble, difference, widened

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64)
SKIPPED = re.compile(
    r"rand|bernoulli|multinomial|normal|dropout|poisson|cauchy|exponential|geometric|uniform|sparse|^empty|^new_empty"
    r"|resize|^lobpcg|_segment|rrelu|to_sparse|jiterator|svd_lowrank|pca_lowrank|fractional"
)
OPTIONS = {
    "eqsat.strategy": "saturation",
    "eqsat.deterministic": True,
    "eqsat.min_saving": 0.0,
    "eqsat.nodes": 500,
    "eqsat.seconds": 2.0,
    "eqsat.cache": False,
}
Wrapper = Callable[[Tensor, list[Tensor]], Any]
"""What is made of an operator's result and three matrices [last axis, 3]."""
MOVING: dict[str, Wrapper] = {
    "plain": lambda y, w: y,
    "slice": lambda y, w: torch.cat([y, y], -1)[..., 1:],
    "cat": lambda y, w: torch.cat([y[..., :1], y], -1),
    "permute": lambda y, w: y.transpose(0, -1).flatten(),
    "written": lambda y, w: y,
    "flip": lambda y, w: torch.stack([y, y]).flip(-1)[1],
}
FLOATING: dict[str, Wrapper] = {
    "linear": lambda y, w: y @ w[0] + 1,
    "linear of linear": lambda y, w: (y @ w[0]) @ (w[1].mT @ w[2]),
    "siblings": lambda y, w: (y @ w[0], y @ w[1]),
    "sum of linears": lambda y, w: y @ w[0] + y @ w[1],
    "slice of linear": lambda y, w: (y @ w[0])[..., 1:],
    "mean": lambda y, w: y.mean(-1, keepdim=True) * 2,
    "standardised": lambda y, w: (y - y.mean(-1, keepdim=True)) * 0.5,
    "scale": lambda y, w: (y * 0.5 + 1) * 3 - y,
    "sum of products": lambda y, w: (y * 2 + y * w[0].mean()).sum(-1),
    "max": lambda y, w: (y + 1).amax(-1),
    "softmax": lambda y, w: (y * 2).softmax(-1) @ w[0],
    "quotient": lambda y, w: y / (y.abs() + 1),
}
WRAPPERS = MOVING | FLOATING


def names() -> list[str]:
    """The operators that are swept, with their variants."""
    return [name_of(op) for op in op_db if not SKIPPED.search(op.name)]


def name_of(op: Any) -> str:
    """The name of an operator and its variant."""
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else str(op.name)


class Wrapped(nn.Module):
    """The operator on its first input; its other tensors and the wrapper's matrices are weights."""

    def __init__(self, op: Any, sample: Any, wrapper: str, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.op, self.wrapper, self.writes = op, WRAPPERS[wrapper], wrapper == "written"
        tensors = [x for x in tree_leaves((sample.args, sample.kwargs)) if isinstance(x, Tensor)]
        for number, tensor in enumerate(tensors):
            self.register_buffer(f"t{number}", tensor.detach().clone())
        generator = torch.Generator().manual_seed(0)
        for number in range(3):
            weight = torch.randn(width, 3, generator=generator).to(dtype if dtype in DTYPES else torch.float32)
            self.register_buffer(f"w{number}", weight)
        numbers = iter(range(len(tensors)))
        self.template = tree_map(
            lambda x: f"\0t{next(numbers)}" if isinstance(x, Tensor) else x, (sample.args, sample.kwargs)
        )

    def forward(self, x: Any) -> Any:
        """The wrapper of the operator's first floating result, and all other results."""

        def fill(value: Any) -> Any:
            return getattr(self, value[1:]) if isinstance(value, str) and value.startswith("\0t") else value

        args, kwargs = tree_map(fill, self.template)
        result = self.op(x, *args, **kwargs)
        if self.writes and isinstance(x, Tensor) and not x.requires_grad:
            x.copy_(x.flip(0) if x.dim() else x + 1)  # what was read before is not what the input holds
        first, *others = tree_leaves(result)
        return self.wrapper(first, [self.w0, self.w1, self.w2]), others


def cases(op: Any, seed: int) -> Iterator[dict[str, Any]]:
    """What one operator is run as: each dtype plainly, and with wrappers that the seed chooses."""
    rng = random.Random(f"{seed} {name_of(op)}")
    for dtype in DTYPES:
        if dtype not in op.supported_dtypes("cpu"):
            continue
        wrappers = {**MOVING, **(FLOATING if dtype.is_floating_point else {})}
        chosen = ["plain", *rng.sample(sorted(wrappers), 3 if dtype is torch.float32 else 1)]
        for wrapper, kind in itertools.product(dict.fromkeys(chosen), ("searched", "drawn")):
            grad = dtype.is_floating_point and op.supports_autograd and rng.random() < 0.4
            yield {"dtype": dtype, "wrapper": wrapper, "kind": kind, "grad": grad, "frozen": rng.random() < 0.4}


def run_case(op: Any, case: dict[str, Any], seed: int) -> dict[str, Any]:
    """The row of one case."""
    dtype, grad = case["dtype"], case["grad"]
    try:
        sample = next(iter(op.sample_inputs("cpu", dtype, requires_grad=False)))
        first = tree_leaves(op.op(sample.input, *sample.args, **sample.kwargs))[0]
        wrapper = WRAPPERS[case["wrapper"]]
        model = Wrapped(op.op, sample, case["wrapper"], first.shape[-1] if first.dim() else 1, first.dtype)
        if first.dim() == 0:
            model.wrapper = lambda y, w: wrapper(y.reshape(1), w)
        model = model.eval()
        eager = compute(model, sample.input, grad)
    except Exception as error:
        return {"outcome": "eager fails", "reason": brief(error)}
    wide = copy.deepcopy(model)
    for name, buffer in list(wide.named_buffers()):
        setattr(wide, name, widened(buffer))
    try:
        with InDouble():
            exact = compute(wide, tree_map(widened, sample.input), grad)
    except Exception:
        exact = [None] * len(eager)
    try:
        problem, facts = compare(model, sample.input, case, eager, exact, seed, {})
    except Exception as error:
        return {"outcome": without_laws(model, sample.input, case), "reason": brief(error)}
    if not problem:
        return {"outcome": "agree", **facts}
    again, _ = compare(model, sample.input, case, eager, exact, None, {"eqsat.strategy": "none"})
    return {"outcome": "differ without laws" if again else "differ", "reason": problem, **facts}


def without_laws(model: nn.Module, x: Any, case: Any) -> str:
    """What became of a case that raised: whether it does so with torch's own backend too."""
    torch.compiler.reset()
    try:
        compute(torch.compile(model, backend="aot_eager_decomp_partition", dynamic=False), x, case["grad"])
    except Exception:
        return "eager fails"
    return "raised"


def compare(
    model: nn.Module, x: Any, case: Any, eager: list[Any], exact: list[Any], seed: int | None, options: Any
) -> tuple[str, dict[str, Any]]:
    """What is wrong with the compiled results ("" if nothing), and what the pass did."""
    torch.compiler.reset()
    drawn = seed if case["kind"] == "drawn" else None
    freezing = case["frozen"] and not case["grad"]
    own = {**OPTIONS, **options, "freezing": freezing}
    with searching_here(drawn):
        compiled = torch.compile(model, backend="eqsat_mcts_eager", options=own, dynamic=False)
        actual = compute(compiled, x, case["grad"])
    made = reports.last_reports()
    refused = [r.decision.partition("refused (")[2] for r in made if "refused" in r.decision]
    faults = [r.decision for r in made if re.search(r"\w+(Error|Exception|Node)\w*: ", r.decision)]
    facts = {
        "rewritten": sum(report.changed for report in made),
        "faults": int(counters[COUNTERS]["faults"]),
        "refused": len(refused),
        "reasons": [re.sub(r"[-+]?\d[\d.e+-]*", "#", reason)[:160] for reason in (*refused, *faults)],
        "laws": sorted({law for report in made if report.changed for law in report.laws}),
    }
    for number, (found, wide, own_) in enumerate(zip(actual, exact, eager, strict=True)):
        if problem := difference(found, wide, own_):
            return f"output {number} {problem}", facts
    return "", facts


def compute(function: Callable[..., Any], x: Any, grad: bool) -> list[Any]:
    """All results, and the gradients of the first input by them; without gradients that input after the call."""
    x = tree_map(lambda v: v.detach().clone() if isinstance(v, Tensor) else v, x)
    torch.manual_seed(0)
    if not grad or not isinstance(x, Tensor) or not x.is_floating_point():
        with torch.no_grad():
            return [*tree_leaves(function(x)), *tree_leaves(x)]
    x.requires_grad_()
    results = list(tree_leaves(function(x)))
    parts = [y for y in results if isinstance(y, Tensor) and y.requires_grad]
    gradients = torch.autograd.grad([y.abs().sum() if y.is_complex() else y.sum() for y in parts], x) if parts else ()
    return [*(y.detach() if isinstance(y, Tensor) else y for y in results), *gradients]


def main() -> None:
    """Append the rows of the operators named."""
    parser = argparse.ArgumentParser(prog="python -m bench.trust.sweep_cases", description=__doc__)
    parser.add_argument("results", help="the file that rows are appended to")
    parser.add_argument("run", type=int, help="a number for the rows of this process")
    parser.add_argument("seed", type=int, help="of the inputs, and of the choice of wrappers")
    parser.add_argument("names", nargs="+", metavar="OPERATOR")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    by_name = {name_of(op): op for op in op_db}
    with open(given.results, "a", encoding="utf-8") as file:
        for name in given.names:
            for case in cases(by_name[name], given.seed):
                text = " ".join(
                    [str(case["dtype"])[6:], case["wrapper"], "backward" * case["grad"], "frozen" * case["frozen"]]
                )
                row = {"op": name, "run": given.run, "case": text, "kind": case["kind"]}
                row |= run_case(by_name[name], case, given.seed)
                file.write(json.dumps(row) + "\n")
                file.flush()
            file.write(json.dumps({"op": name, "run": given.run, "case": "", "outcome": "done"}) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
