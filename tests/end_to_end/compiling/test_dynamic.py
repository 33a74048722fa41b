"""Graphs with symbolic sizes: one program for all sizes, or the user's."""

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from torch_eqsat import backend
from torch_eqsat import report as reports
from torch_eqsat.planning import dynamic

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh", "one_thread")]
SETTINGS = {"eqsat.deterministic": True, "eqsat.min_saving": 0.0, "force_disable_caches": True}
SIZES = [(3, 17), (4, 32), (2, 3), (8, 31)]


class Folded(nn.Module):
    """Two linear layers, of which the first is wide."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 256), nn.Linear(256, 4)

    def forward(self, x):
        return self.second(self.first(x)).relu()


class Branches(nn.Module):
    """Convolutions of one image that become one, with a batch norm."""

    def __init__(self):
        super().__init__()
        self.wide, self.point, self.norm = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)

    def forward(self, x):
        image = x.transpose(1, 2)[..., None].expand(-1, -1, -1, 8)
        return self.norm(self.wide(image) + self.point(image))


class Concatenated(nn.Module):
    """Sizes that are sums and products of others."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 64), nn.Linear(64, 3)

    def forward(self, x):
        y = torch.cat([x, x[:, : x.shape[1] - 1], x.new_ones(x.shape[0], 2, 16)], 1)
        z = self.second(self.first(y) * 2 + 1)
        return z.reshape(-1, 3), z.shape[1], z.flatten(1).sum(1)


class Last(nn.Module):
    """The last row, which starts at a length less one."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 64), nn.Linear(64, 256)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))[:, -1]


class Residual(nn.Module):
    """A convolution beside its input, which becomes a kernel: a table that no size has a part in."""

    def __init__(self):
        super().__init__()
        self.wide, self.point = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)

    def forward(self, x):
        image = x.transpose(1, 2)[..., None].expand(-1, -1, -1, 8)
        return (self.wide(image) + self.point(image) + image).relu()


class Five(nn.Module):
    """Five layers of one input, whose weights together have as many columns as the smallest prime divides."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(16, 64) for _ in range(5))

    def forward(self, x):
        return torch.stack([part(x).relu() for part in self.parts]).sum(0)


class Upsampled(Folded):
    """The graph computes twice a length."""

    def forward(self, x):
        return super().forward(nn.functional.interpolate(x.mT, scale_factor=2.0).mT)


def answers(model, training=False, **options):
    """The model at all sizes, compiled once, beside eager."""
    settings = {**SETTINGS, **options}
    compiled = torch.compile(model, backend="eqsat_mcts_eager", dynamic=True, options=settings)
    for batch, length in SIZES:
        x = torch.randn(batch, length, 16, requires_grad=training)
        expected, found = model(x), compiled(x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        if training:
            loss = (found.square().sum(), expected.square().sum())
            ours, theirs = (torch.autograd.grad(value, [x, *model.parameters()]) for value in loss)
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    return reports.last_reports()


@pytest.mark.parametrize("freezing", [False, True], ids=["live", "frozen"])
@pytest.mark.parametrize("make", [Folded, Branches, Concatenated, Last, Residual, Upsampled])
def test_one_program_for_all_sizes(make, freezing):
    """Everything that has a symbol in its shape was opaque, and nothing was rewritten."""
    with torch.no_grad():
        (report,) = answers(make().eval(), freezing=freezing)
    assert report.changed and "for all sizes (searched at " in report.decision
    assert counters["stats"]["unique_graphs"] == 1


def test_a_width_that_a_law_makes_is_no_multiple_of_a_size():
    """Five weights of 64 columns have 320, and a batch of three is searched as one of five."""
    with torch.no_grad():
        (report,) = answers(Five().eval(), freezing=True)
    assert report.changed and report.laws["matmuls_of_one_input"]


def test_training():
    (report,) = answers(Folded(), training=True)
    assert counters["stats"]["unique_graphs"] == 1 and "refused" not in report.decision


def test_what_torch_makes_dynamic_by_itself(monkeypatch):
    """After a second batch. As many graphs and guards as without us."""
    guards = []
    rewrite = dynamic.optimize

    def counted(graph, setting, inputs):
        environments = [
            v.fake_mode.shape_env
            for n in graph.nodes
            if isinstance(v := n.meta.get("val"), torch.Tensor) and v.fake_mode.shape_env is not None
        ]
        before = [len(e.guards) for e in environments]
        report = rewrite(graph, setting, inputs)
        guards.append((before, [len(e.guards) for e in environments]))
        return report

    monkeypatch.setattr(backend, "optimize", counted)
    model = Folded().eval()
    compiled = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)
    with torch.no_grad():
        for batch in (32, 48, 80, 128, 2):
            x = torch.randn(batch, 16)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    assert len(guards) == 2 and all(before == after for before, after in guards)
    assert reports.last_reports()[-1].changed


class Mean(nn.Module):
    def forward(self, x):
        return (x.mean(1) * 3).mean(1).relu()


def test_what_holds_at_one_size_alone_is_refused(monkeypatch, caplog):
    """A size that became a number is seen at other sizes."""
    own = dynamic.pipeline.optimize

    def spoilt(graph, setting, inputs, *, folds=True):
        report = own(graph, setting, inputs, folds=folds)
        first = next(n for n in graph.nodes if n.op == "call_function")
        assert first.target is torch.ops.aten.mean.dim
        first.target = torch.ops.aten.sum.dim_IntList
        with graph.inserting_after(first):
            number = 1.0 / first.args[0].meta["val"].shape[1]
            scaled = graph.call_function(torch.ops.aten.mul.Tensor, (first, number))
        scaled.meta = dict(first.meta)
        first.replace_all_uses_with(scaled, delete_user_cb=lambda user: user is not scaled)
        return dynamic.replace(report, changed=True)

    monkeypatch.setattr(dynamic.pipeline, "optimize", spoilt)
    with torch.no_grad():
        (report,) = answers(Mean())
    assert not report.changed and "holds for some sizes alone" in report.decision
    assert counters["eqsat_mcts"]["refused_sizes"] == 1


def test_prices_are_compared_at_other_sizes(monkeypatch, caplog):
    """One program serves all sizes."""
    prices = iter([1.0, 1.0, 1.0, 0.5, 1.0, 1.2] * 2)
    monkeypatch.setattr(dynamic, "estimated_ms", lambda *_: next(prices))
    with torch.no_grad():
        (report,) = answers(Folded().eval())
    assert not report.changed and "it is predicted to take 1.2000 ms in place of 1.0000" in report.decision


@pytest.mark.parametrize("judge", [True, False])
def test_a_sum_of_shifts_is_no_number(judge):
    """Σ (x w + c) over 521 rows adds 521 c: a number at other sizes too, and without a judge nothing saw that."""

    def function(x, w, c):
        return (x @ w + c).sum(0)

    w, c = torch.randn(16, 64), torch.randn(64)
    compiled = torch.compile(
        function, backend="eqsat_mcts_eager", options={**SETTINGS, "eqsat.judge": judge, "eqsat.min_saving": 0.0}
    )
    with torch.no_grad():
        for rows in (521, 512, 700, 333):
            x = torch.randn(rows, 16)
            torch._dynamo.mark_dynamic(x, 0)
            torch.testing.assert_close(compiled(x, w, c), function(x, w, c), rtol=1e-3, atol=1e-2)
    assert counters["stats"]["unique_graphs"] == 1


def test_a_number_of_floating_point_made_of_a_size():
    """It was asked for its value, which is a guard."""

    def function(x):
        return x.sin().sum(0) + torch.full((4,), torch.sym_float(x.shape[0]))

    compiled = torch.compile(function, backend="eqsat_mcts_eager", dynamic=True, options=SETTINGS)
    for rows in (33, 7, 12):
        x = torch.randn(rows, 4)
        torch.testing.assert_close(compiled(x), function(x))
    assert counters["stats"]["unique_graphs"] == 1


FACTORS = {
    "factor": lambda x, n: (x * n) * 3,
    "alpha": lambda x, n: torch.add(torch.relu(torch.relu(x)), x, alpha=1 - n),
    "divisor": lambda x, n: (x * 2 / n) * 3,
}


@pytest.mark.parametrize("first", [0.0, 1.0])
@pytest.mark.parametrize("name", FACTORS)
def test_a_symbol_that_is_an_operand(name, first):
    """The number that stood for it became one of the graph; on zeros, for which it was compiled, nobody saw that."""
    function = FACTORS[name]
    options = {**SETTINGS, "eqsat.strategy": "saturation"}
    compiled = torch.compile(function, backend="eqsat_mcts_eager", dynamic=True, options=options)
    with torch.no_grad():
        for scale, n in ((first, 3), (1.0, 4), (2.0, 7)):
            x = scale * torch.ones(4, 6)
            torch.testing.assert_close(compiled(x, n), function(x, n))


def test_a_number_beside_the_sizes():
    """It has no least value, for which prices could be compared: no such graph was rewritten."""
    model = Folded().eval()

    def function(x, n):
        return model(x) * n

    compiled = torch.compile(function, backend="eqsat_mcts_eager", dynamic=True, options={**SETTINGS, "freezing": True})
    with torch.no_grad():
        for rows, n in ((8, 3), (5, 4), (9, -7)):
            x = torch.rand(rows, 16)
            torch.testing.assert_close(compiled(x, n), function(x, n), rtol=1e-4, atol=1e-4)
    assert reports.last_reports()[0].changed


def test_a_mean_is_no_number_where_all_is_zero():
    """What was found for one length was right for zeros at any."""

    def function(x, w):
        return (x @ w + 1.5).sum(0) - x.sum(0) @ w

    w = torch.randn(4, 3)
    options = {**SETTINGS, "eqsat.strategy": "saturation"}
    compiled = torch.compile(function, backend="eqsat_mcts_eager", dynamic=True, options=options)
    with torch.no_grad():
        for scale, rows in ((0.0, 6), (1.0, 7), (1.0, 12)):
            x = scale * torch.ones(rows, 4)
            torch.testing.assert_close(compiled(x, w), function(x, w), rtol=1e-4, atol=1e-4)
