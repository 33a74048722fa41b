"""The judge on hard inputs."""

import pytest
import torch

from torch_eqsat.verification.judge import disagreement

W = torch.linspace(-1.0, 1.0, 64).reshape(8, 8).sin()


def test_masks_are_closed(judged):
    """With the mask of the first call, which is open, both are equal."""

    def masked(x, mask):
        return torch.softmax(x + mask, -1)

    x, mask = torch.randn(2, 5, 5), torch.zeros(2, 5, 1)
    assert "closed masks" in judged(masked, lambda x, mask: torch.softmax(x + 0 * mask.clamp(min=0), -1), x, mask)


def test_offsets_are_added(judged):
    """(x - 1) · w and x · w - w are equal for numbers of the size of 1."""

    def distributed(x, w):
        return x @ w - w.sum(0)

    x = torch.full((4, 8), 1.0) + torch.randn(4, 8) * 2.0**-18
    assert "rounding error" in judged(lambda x, w: (x - 1.0) @ w, distributed, x, W)


def test_an_infinity_stays_in_its_sample(judged):
    x = torch.randn(3, 4)
    assert judged(lambda x: x * 2.0, lambda x: x + x, x) == ""
    spread = judged(lambda x: x * 2.0, lambda x: x * 2.0 + 0.0 * x.sum(0), x)
    assert spread == "output 0: infinities or NaNs differ (an infinity in the first sample)"


def test_a_table_with_more_rows_is_no_batch(judged):
    x, table = torch.randn(3, 4), torch.randn(9, 4)
    spread = judged(lambda x, t: x * t[:1], lambda x, t: x * t[:1] + 0.0 * x.sum(0), x, table)
    assert spread == "output 0: infinities or NaNs differ (an infinity in the first sample)"


CHOICES = {
    "largest": lambda d: d.argmax(-1),
    "topk": lambda d: d.topk(2, -1)[0],
    "sort": lambda d: d.sort(-1)[0] * 2,
    "cells": lambda d: torch.floor(d * 3),
}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_graphs_that_choose_get_hard_inputs(trace, choice):
    """Such graphs were judged on their inputs alone, where rounding could not decide otherwise."""

    def centred(x, w):
        d = x - x[:, :1]
        return choice(d @ w), d @ w

    def cancelling(x, w):
        d = x - x[:, :1]
        return choice(d @ w), x @ w - x[:, :1] @ w.sum(0, keepdim=True)

    def before(x, w):
        d = x @ w - x[:, :1] @ w.sum(0, keepdim=True)
        return choice(d), (x - x[:, :1]) @ w

    x = torch.randn(6, 8)
    original = trace(centred, x, W)
    for function, reason in ((centred, ""), (cancelling, "offsets"), (before, "offsets")):
        found = disagreement(original, trace(function, x, W), [x, W], live=[0])
        assert reason in found and bool(reason) == bool(found)


def test_another_choice_is_no_difference_on_hard_inputs(judged):
    """Of equal rows sums in another order choose another row."""
    x = torch.randn(1, 8) + torch.zeros(6, 1)
    first, second = ((lambda x, w: torch.topk((x @ w).T, 3)[1]), (lambda x, w: torch.topk(w.T @ x.T, 3)[1]))
    assert judged(first, second, x + 1e-3 * torch.randn(6, 8), W) == ""
