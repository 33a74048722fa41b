"""Attention that is written out is the fused operator before the search, and after it."""

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from tests.end_to_end.models import DETERMINISTIC, assert_close, interpreted, last
from torch_eqsat.planning.inductor.attention import fuse_attention

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.slow]
WIDTH, LENGTH, HEADS = 64, 32, 4


class WrittenOut(nn.Module):
    """Self-attention without the fused operator, and two linear layers that are one."""

    def __init__(self, scores, read=lambda y: y):
        super().__init__()
        self.q, self.k, self.v, self.out, self.after = (nn.Linear(WIDTH, WIDTH) for _ in range(5))
        self.scores, self.read = scores, read
        self.register_buffer("mask", torch.full((LENGTH, LENGTH), -torch.inf).triu(1))

    def forward(self, x):
        q, k, v = (part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = torch.softmax(self.scores(q @ k.transpose(-2, -1), self.mask), -1) @ v
        return self.read(self.after(self.out(y.transpose(1, 2).flatten(2))))


SCORES = {
    "divided": lambda s, mask: s / 4.0,
    "multiplied": lambda s, mask: s * 0.25,
    "masked": lambda s, mask: s / 4.0 + mask,
    "plain": lambda s, mask: s,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", SCORES)
def test_a_rewritten_graph_keeps_the_fused_kernel(name, dtype):
    model, x = WrittenOut(SCORES[name]).eval().to(dtype), torch.randn(2, LENGTH, WIDTH).to(dtype)
    counters.clear()
    with torch.no_grad():
        y = interpreted(model, freezing=True)(x)
        torch.testing.assert_close(y, model(x), rtol=1e-4 if dtype == torch.float32 else 0.05, atol=0.02)
    assert last().changed and "matmul_is_associative" in last().laws
    assert counters["inductor"]["fuse_attention"] == 1


def test_one_query_of_written_out_attention():
    model = WrittenOut(SCORES["divided"], lambda y: y[:, -1]).eval()
    with torch.no_grad():
        assert_close(
            interpreted(model, freezing=True)(torch.ones(2, LENGTH, WIDTH)), model(torch.ones(2, LENGTH, WIDTH))
        )
    assert "slice_through_attention" in last().laws


def test_training_of_written_out_attention():
    model, x = WrittenOut(SCORES["divided"]).train(), torch.randn(2, LENGTH, WIDTH)
    counters.clear()
    gradients = []
    for run in (interpreted(model), model):
        model.zero_grad()
        run(x).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for ours, eager in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-3, atol=1e-6)
    assert counters["inductor"]["fuse_attention"] > 0


def test_keys_that_lie_transposed_stay_so():
    """Inductor has no pattern for them; one for other axes must not match."""

    def attend(q, k, v):
        return torch.softmax(q @ k / 4.0, -1) @ v

    q, k, v = torch.randn(2, 4, 16, 8), torch.randn(2, 4, 8, 16), torch.randn(2, 4, 16, 8)
    counters.clear()
    with torch.no_grad():
        assert_close(interpreted(attend)(q, k, v), attend(q, k, v))
    assert counters["inductor"]["fuse_attention"] == 0


@pytest.mark.parametrize("length", [4, 8])
def test_a_pattern_of_inductors_that_is_wrong_is_not_applied(length):
    """To a key that is permuted once it makes attention over other axes, if there are as many heads as tokens, and
    raises otherwise."""

    def attend(q, k, v):
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1), v.permute(0, 2, 1, 3)
        return torch.softmax(q @ k * 0.25, -1) @ v

    qkv = torch.randn(3, 2, length, 4, 16)
    with torch.no_grad():
        assert_close(interpreted(attend)(*qkv), attend(*qkv))
    assert torch._inductor.config.pattern_matcher


def test_attention_of_any_length():
    model = WrittenOut(SCORES["divided"]).eval()
    counters.clear()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eqsat_mcts_eager", dynamic=True, options=DETERMINISTIC)
        for batch, length in ((2, 32), (3, 17), (5, 8)):
            x = torch.randn(batch, length, WIDTH)
            assert_close(compiled(x), model(x))
    assert counters["inductor"]["fuse_attention"] == 1


def test_other_graphs_are_not_touched(trace):
    module = trace(lambda x: torch.softmax(x @ x.mT, -1).clone() + 0.0, torch.randn(4, 8))
    before = str(module.graph)
    assert fuse_attention(module.graph) == 0
    assert str(module.graph) == before


def test_a_graph_without_a_pattern_of_attention_is_not_touched(trace):
    module = trace(lambda q, k, v: torch.softmax(q @ k, -1) @ v.mul(1.0), *torch.randn(3, 2, 4, 8, 8))
    before = str(module.graph)
    assert fuse_attention(module.graph) == 0
    assert str(module.graph) == before
