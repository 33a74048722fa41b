"""Rows of matrix products and linear layers: folds, re-association, merges of siblings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.laws.hand_rewrites.row import Row, Weights, differentiable, tensors, weights

EXPERTS = 8


def lora(p: Any, x: Tensor) -> Tensor:
    return functional.linear(x, p.w, p.bias) + 2.0 * functional.linear(functional.linear(x, p.down), p.up)


def lora_folded(p: Any, x: Tensor) -> Tensor:
    return functional.linear(x, p.w + 2.0 * (p.up @ p.down), p.bias)


def _lora(name: str, pays: bool, rank: int, rows: int, note: str, trained: bool = False) -> Row:
    def made() -> Weights:
        held = Weights(w=(768, 768), bias=(768,), down=(rank, 768), up=(768, rank))
        held.w.requires_grad_(False)
        held.bias.requires_grad_(False)
        return held

    inputs = differentiable if trained else tensors
    return Row(name, pays, made, lora, lora_folded, inputs((rows, 768)), note, not trained, trained)


def qkv(p: Any, x: Tensor) -> tuple[Tensor, ...]:
    return tuple(functional.linear(x, w, b) for w, b in ((p.q, p.q_bias), (p.k, p.k_bias), (p.v, p.v_bias)))


def qkv_merged(p: Any, x: Tensor) -> tuple[Tensor, ...]:
    merged = functional.linear(x, torch.cat([p.q, p.k, p.v]), torch.cat([p.q_bias, p.k_bias, p.v_bias]))
    return tuple(merged.split(p.q.shape[0], -1))


def _qkv(name: str, pays: bool, width: int, rows: int, note: str, trained: bool = False) -> Row:
    square, bias = (width, width), (width,)
    made = weights(q=square, k=square, v=square, q_bias=bias, k_bias=bias, v_bias=bias)
    inputs = differentiable if trained else tensors
    return Row(name, pays, made, qkv, qkv_merged, inputs((rows, width)), note, not trained, trained)


def gated(p: Any, x: Tensor) -> Tensor:
    return functional.silu(functional.linear(x, p.gate)) * functional.linear(x, p.up)


def gated_merged(p: Any, x: Tensor) -> Tensor:
    gate, up = functional.linear(x, torch.cat([p.gate, p.up])).chunk(2, -1)
    return functional.silu(gate) * up


def stacked(p: Any, x: Tensor) -> Tensor:
    return functional.linear(functional.linear(x, p.a, p.a_bias), p.b, p.b_bias)


def stacked_folded(p: Any, x: Tensor) -> Tensor:
    return functional.linear(x, p.b @ p.a, p.b @ p.a_bias + p.b_bias)


def _stacked(name: str, pays: bool, sizes: tuple[int, int, int], rows: int, note: str) -> Row:
    width, inner, out = sizes
    made = weights(a=(inner, width), a_bias=(inner,), b=(out, inner), b_bias=(out,))
    return Row(name, pays, made, stacked, stacked_folded, tensors((rows, width)), note)


def product_times_vector(p: Any, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    return (a @ b) @ v


def vector_first(p: Any, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    return a @ (b @ v)


def chain(p: Any, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.einsum("ik,kl->il", torch.einsum("ij,jk->ik", a, b), c)


def chain_from_the_right(p: Any, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.einsum("ij,jl->il", a, torch.einsum("jk,kl->jl", b, c))


def graph_convolution(p: Any, adjacency: Tensor, x: Tensor) -> Tensor:
    return torch.relu(adjacency @ (x @ p.w))


def neighbours_first(p: Any, adjacency: Tensor, x: Tensor) -> Tensor:
    return torch.relu((adjacency @ x) @ p.w)


def _expert_weights(p: Any) -> tuple[list[Tensor], list[Tensor]]:
    return [p.get_parameter(f"w{i}") for i in range(EXPERTS)], [p.get_parameter(f"b{i}") for i in range(EXPERTS)]


def experts(p: Any, x: Tensor) -> Tensor:
    hidden = [torch.relu(functional.linear(x, w, b)) for w, b in zip(*_expert_weights(p), strict=True)]
    gates = torch.softmax(functional.linear(x, p.gate), -1)
    return (gates.unsqueeze(-1) * torch.stack(hidden, 1)).sum(1)


def experts_merged(p: Any, x: Tensor) -> Tensor:
    w, b = _expert_weights(p)
    hidden = torch.relu(functional.linear(x, torch.cat(w), torch.cat(b)))
    gates = torch.softmax(functional.linear(x, p.gate), -1)
    return (gates.unsqueeze(-1) * hidden.unflatten(1, (EXPERTS, -1))).sum(1)


def _experts(name: str, rows: int, note: str, trained: bool = False) -> Row:
    shapes: dict[str, tuple[int, ...]] = {"gate": (EXPERTS, 256)}
    for i in range(EXPERTS):
        shapes |= {f"w{i}": (128, 256), f"b{i}": (128,)}
    inputs = differentiable if trained else tensors
    made = weights(**shapes)
    return Row(name, True, made, experts, experts_merged, inputs((rows, 256)), note, not trained, trained)


def linear_of_cat(p: Any, *parts: Tensor) -> Tensor:
    return functional.linear(torch.cat(parts, -1), p.w)


def sum_of_linears(p: Any, *parts: Tensor) -> Tensor:
    pieces = p.w.chunk(len(parts), 1)
    total = functional.linear(parts[0], pieces[0])
    for part, piece in zip(parts[1:], pieces[1:], strict=True):
        total = total + functional.linear(part, piece)
    return total


def product_twice(p: Any, x: Tensor, w: Tensor) -> Tensor:
    return torch.relu(x @ w) + (w.t() @ x.t()).t()


def product_once(p: Any, x: Tensor, w: Tensor) -> Tensor:
    y = x @ w
    return torch.relu(y) + y


def cat_then_slice(p: Any, a: Tensor, b: Tensor) -> Tensor:
    both = torch.cat([a, b], 1).t().t()
    return torch.relu(both[:, : a.shape[1]] @ p.w) + both[:, a.shape[1] :] @ p.u


def no_cat(p: Any, a: Tensor, b: Tensor) -> Tensor:
    return torch.relu(a @ p.w) + b @ p.u


def _plain(
    name: str,
    original: Callable[..., Any],
    hand: Callable[..., Any],
    shapes: list[tuple[int, ...]],
    note: str,
    frozen: bool = True,
    trained: bool = False,
    **parameters: tuple[int, ...],
) -> Row:
    return Row(name, True, weights(**parameters), original, hand, tensors(*shapes), note, frozen, trained)


ROWS = (
    _lora("lora_r16_m1", True, 16, 1, "1.14"),
    _lora("lora_r16_m128", True, 16, 128, "1.09"),
    _lora("lora_r64_m128", True, 64, 128, "1.20"),
    _lora("lora_r16_m1024_trained", False, 16, 1024, "0.77", trained=True),
    _qkv("qkv_m1", True, 768, 1, "1.17"),
    _qkv("qkv_m128_trained", False, 768, 128, "0.85", trained=True),
    _plain("swiglu_m1", gated, gated_merged, [(1, 384)], "1.12", gate=(1024, 384), up=(1024, 384)),
    _stacked("linear_768_768_768_m1", True, (768, 768, 768), 1, "1.68"),
    _stacked("linear_768_768_768_m256", True, (768, 768, 768), 256, "1.97"),
    _stacked("linear_768_3072_768_m1", True, (768, 3072, 768), 1, "6.52"),
    _stacked("linear_768_3072_768_m256", True, (768, 3072, 768), 256, "7.70"),
    _stacked("linear_256_1024_1000_m1", True, (256, 1024, 1000), 1, "2.38"),
    _stacked("linear_256_1024_1000_m256", True, (256, 1024, 1000), 256, "4.32"),
    _stacked("linear_768_64_768_m1", False, (768, 64, 768), 1, "0.67"),
    _stacked("linear_768_64_768_m256", False, (768, 64, 768), 256, "0.22"),
    _plain("product_times_vector", product_times_vector, vector_first, [(512, 512), (512, 512), (512,)], "21.5", False),
    _plain("einsum_chain", chain, chain_from_the_right, [(256, 64), (64, 256), (256, 64)], "4.0", False),
    _plain("gcn", graph_convolution, neighbours_first, [(512, 512), (512, 64)], "2.79", w=(64, 256)),
    _plain("gcn_unfrozen", graph_convolution, neighbours_first, [(512, 512), (512, 64)], "2.79", False, w=(64, 256)),
    _plain(
        "gcn_trained", graph_convolution, neighbours_first, [(512, 512), (512, 64)], "2.22", False, True, w=(64, 256)
    ),
    _experts("mmoe_b1", 1, "2.30"),
    _experts("mmoe_b64", 64, "1.27"),
    _experts("mmoe_b64_trained", 64, "1.12", trained=True),
    _plain("product_and_its_transpose", product_twice, product_once, [(256, 256), (256, 256)], "1.87", False),
    _plain("cat_then_slice", cat_then_slice, no_cat, [(512, 128), (512, 128)], "1.17", w=(128, 128), u=(128, 128)),
    Row(
        "linear_of_cat",
        False,
        weights(w=(256, 128)),
        linear_of_cat,
        sum_of_linears,
        tensors(*[(128, 32)] * 4),
        "0.67",
    ),
)
