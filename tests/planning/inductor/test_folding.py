"""What Inductor's passes over frozen graphs get wrong by themselves."""

import pytest
import torch
from torch import nn

from torch_eqsat import backend
from torch_eqsat.planning.inductor import interpreting

pytestmark = pytest.mark.usefixtures("fresh")
SETTINGS = {"freezing": True, "eqsat.strict": True, "eqsat.strategy": "none", "force_disable_caches": True}


class Counts(nn.Module):
    """A product of integers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.arange(12).reshape(3, 4))

    def forward(self, x):
        return x.long() @ self.weight + 1


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Conv2d(3, 4, 3), (2, 3, 8, 8)),
        (nn.ConvTranspose2d(3, 4, 3), (2, 3, 8, 8)),
        (nn.Conv3d(3, 4, 1), (2, 3, 4, 4, 4)),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), (2, 3, 8, 8)),
        (Counts(), (2, 3)),
        (nn.Linear(3, 4), (2, 3)),
    ],
    ids=["conv", "transposed", "conv3d", "norm", "integers", "linear"],
)
def test_weights_that_onednn_does_not_pack(model, shape):
    """A frozen graph with one did not compile, and went on without freezing."""
    model, x = model.double().eval(), torch.rand(shape, dtype=torch.float64) * 9
    with torch.no_grad():
        actual = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)(x)
        torch.testing.assert_close(actual, model(x))


class Behind(nn.Module):
    """What ``function`` makes of two convolutions and constants."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.deep, self.linear = nn.Conv3d(4, 8, 1), nn.Linear(8, 8)
        self.bare = nn.Conv2d(8, 8, 1, bias=False)
        shapes = {"row": (1, 8), "columns": (1, 8, 1), "channels": (8, 1, 1), "square": (8, 8)}
        shapes |= {f"{name}{i}": shape for i in range(3) for name, shape in (("bias", (8,)), ("weight", (8, 8)))}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.randn(shape))
        self.register_buffer("short", torch.randn(8, 1, 1).bfloat16())

    def layers(self):
        return [(getattr(self, f"bias{i}"), getattr(self, f"weight{i}")) for i in range(3)]

    def forward(self, x):
        return self.function(self, x)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda m, x: m.second(m.first(x) * 0.5) + 1.0, (2, 8, 6, 8)),
        (lambda m, x: m.second((m.first(x) + 2.0).relu()) / 4.0 - 1.0, (2, 8, 6, 8)),
        (lambda m, x: m.linear(m.linear(x) * 0.5) + 1.5, (2, 8)),
        (lambda m, x: m.linear(m.linear(x) * 0.5) + 1.5, (3, 2, 8)),
        (lambda m, x: m.first(x) + m.row, (2, 8, 6, 8)),
        (lambda m, x: m.first(x) * m.row, (2, 8, 6, 8)),
        (lambda m, x: m.deep(x) - m.columns, (2, 4, 3, 8, 5)),
        (lambda m, x: torch.add(m.first(x), m.channels, alpha=3), (2, 8, 6, 8)),
        (lambda m, x: torch.sub(m.first(x), 0.25, alpha=3), (2, 8, 6, 8)),
        (lambda m, x: m.channels - m.first(x), (2, 8, 6, 8)),
        (lambda m, x: m.bare(x) + m.short, (2, 8, 6, 8)),
        (lambda m, x: torch.add(m.linear(x), m.row, alpha=3), (2, 8)),
        (lambda m, x: torch.addmm(m.row, x, m.square, beta=3, alpha=0.5) * m.row, (2, 8)),
        (lambda m, x: (x @ m.square).reshape(16, 1) + m.row[0], (2, 8)),
        (lambda m, x: tuple(torch.addmm(b, x, w, alpha=0.5) for b, w in m.layers()), (16, 8)),
    ],
    ids=[
        "numbers", "more numbers", "linear", "rows", "row", "factors", "3d", "alpha", "number", "reversed",
        "dtypes", "linear alpha", "addmm", "reshape", "siblings",
    ],
)  # fmt: skip
@pytest.mark.parametrize("linear", [False, True])
def test_what_stands_behind_a_convolution_or_product(function, shape, linear):
    model, x = Behind(function).eval(), torch.randn(shape)
    settings = {**SETTINGS, "enable_linear_binary_folding": linear, "cpp.enable_concat_linear": linear}
    with torch.no_grad():
        actual = torch.compile(model, backend="eqsat_mcts_eager", options=settings)(x)
        torch.testing.assert_close(actual, model(x), rtol=1e-4, atol=1e-4)


def test_numbers_are_folded_as_constants(monkeypatch):
    """Each is folded into its own kernel, and what was lifted for it is gone."""
    handed = []
    interpret = interpreting.interpret
    monkeypatch.setattr(
        backend, "interpret", lambda module, *a, **k: handed.append(module) or interpret(module, *a, **k)
    )
    with torch.no_grad():
        model = Behind(lambda m, x: m.second((m.first(x) * 0.5).relu()) + 1.0).eval()
        torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)(torch.randn(2, 8, 6, 8))
    (module,) = handed
    targets = [str(node.target) for node in module.graph.nodes]
    assert not [t for t in targets if "mul" in t or "add" in t or "_eqsat_number" in t]
