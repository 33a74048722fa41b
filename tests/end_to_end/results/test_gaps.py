"""Results that lie with gaps between rows: logits of one token lie as far apart as those of all."""

import pytest
import torch
from torch import nn
from torch._inductor.utils import run_and_get_code

from tests.end_to_end.models import DETERMINISTIC, assert_close, interpreted, last

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.slow]
WIDTH, LENGTH, CLASSES = 64, 24, 500


class Logits(nn.Module):
    """The logits of the last token."""

    def __init__(self, classes=CLASSES):
        super().__init__()
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x):
        return self.head(x)[:, -1]


def check(compiled, model, *sizes, dynamic=None, trained=False):
    for size in sizes:
        x = torch.randn(*size, WIDTH, requires_grad=trained)
        if dynamic is not None:
            torch._dynamo.mark_dynamic(x, dynamic)
        with torch.set_grad_enabled(trained):
            ours, eager = compiled(x), model(x)
        assert_close(ours, eager)
        assert ours.stride() == eager.stride()
    assert last().changed


@pytest.mark.parametrize("trained", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("dynamic", [None, 0, 1], ids=["static", "batch", "length"])
def test_results_lie_as_before(dynamic, trained):
    model = Logits()
    others = {None: [], 0: [(6, LENGTH)], 1: [(4, LENGTH + 6)]}[dynamic]
    fast = torch.compile(model, backend="eqsat_mcts", options=DETERMINISTIC)
    check(fast, model, (4, LENGTH), *others, dynamic=dynamic, trained=trained)


@pytest.mark.parametrize("freezing", [False, True], ids=["live", "frozen"])
def test_what_lies_between_the_rows_is_not_written(freezing):
    model, x = Logits().eval(), torch.randn(4, LENGTH, WIDTH)
    fast = torch.compile(model, backend="eqsat_mcts", options={**DETERMINISTIC, "freezing": freezing})
    with torch.no_grad():
        _, (code, *_) = run_and_get_code(fast, x)
    assert f"empty_strided_cpu((4, {CLASSES}), ({LENGTH * CLASSES}, 1)" in code
    assert f"(4, {LENGTH * CLASSES})" not in code  # of zeros, of which the result was a part


def test_one_program_for_all_batches():
    """It was refused: filled with zeros, 64 results were predicted to take longer than all logits."""
    model = Logits(classes=6 * CLASSES).eval()
    with torch.no_grad():
        fast = interpreted(model, freezing=True)
        check(fast, model, (8, 2 * LENGTH), (3, 2 * LENGTH), dynamic=0)
    assert last().best_ms < 0.2 * last().base_ms
