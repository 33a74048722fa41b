"""The last row of a symbolic length: where it lies, which kernels compute it, and prices where there are few rows."""

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from tests.end_to_end.compiling.test_dynamic import SETTINGS, Last
from torch_eqsat import backend
from torch_eqsat import report as reports
from torch_eqsat.cost.kernel import Measurement
from torch_eqsat.cost.measure import kernels
from torch_eqsat.planning import dynamic

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh", "one_thread")]


class LastOfAttention(nn.Module):
    """The last row of attention whose queries, keys and values are columns of one product."""

    def __init__(self):
        super().__init__()
        self.joined, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 128)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.joined(x).split(16, -1))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(self.out(y.transpose(1, 2).flatten(2)))[:, -1]


@pytest.mark.parametrize("freezing", [False, True], ids=["live", "frozen"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_place_that_is_counted_in_rows_of_several(batch, freezing):
    """The query of the last row is one of three for each: the graph was left unchanged."""
    model = LastOfAttention().eval()
    compiled = torch.compile(model, backend="eqsat_mcts_eager", options={**SETTINGS, "freezing": freezing})
    with torch.no_grad():
        for length in (64, 2, 17, 3):
            x = torch.randn(batch, length, 16)
            torch._dynamo.mark_dynamic(x, 1)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    (report,) = reports.last_reports()
    assert report.changed and "for all sizes (searched at " in report.decision
    assert counters["stats"]["unique_graphs"] == 1


def test_a_product_of_known_rows_goes_to_the_fastest_kernel(monkeypatch):
    """At two tokens Inductor's own kernel for symbolic rows was faster than the one that it takes for one row."""

    def measured(kernel, timer):
        return Measurement(1e-6 * kernel.flops * (0.1 if kernel.kind == "conv" else 1.0), 0.0, 1)

    def watched(graph, setting, inputs):
        report = rewrite(graph, setting, inputs)
        shapes.extend(
            n.args[0].meta["val"].shape for n in graph.nodes if n.target is torch.ops.aten.convolution.default
        )
        return report

    shapes, rewrite, model = [], dynamic.optimize, Last().eval()
    monkeypatch.setattr(kernels, "measure", measured)
    monkeypatch.setattr(backend, "optimize", watched)
    options = {**SETTINGS, "freezing": True, "eqsat.deterministic": False, "eqsat.seconds": 60.0}
    compiled = torch.compile(model, backend="eqsat_mcts_eager", options=options)
    with torch.no_grad():
        for length in (64, 2, 17):
            x = torch.randn(1, length, 16)
            torch._dynamo.mark_dynamic(x, 1)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    assert shapes and all(type(size) is int for shape in shapes for size in shape)
    assert counters["stats"]["unique_graphs"] == 1


def test_prices_are_compared_at_the_smallest_size(monkeypatch):
    seen = []

    def priced(graph, *_):
        values = [node.meta["val"] for node in graph.find_nodes(op="placeholder")]
        seen.extend(x.shape[1] for x in values if isinstance(x, torch.Tensor) and x.dim() == 3)
        return 1.0

    monkeypatch.setattr(dynamic, "estimated_ms", priced)
    model, x = Last().eval(), torch.randn(1, 64, 16)
    torch._dynamo.mark_dynamic(x, 1)
    with torch.no_grad():
        torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)(x)
    assert seen == [2, 2, 64, 64, 512, 512]
