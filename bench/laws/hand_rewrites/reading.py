"""Rows of sums, traces and diagonals of products, and of tables that are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.laws.hand_rewrites.row import Row, indices, tensors, weights

TABLES, ENTRIES, BAG = 26, 100, 10
INTERLEAVED = "joining the parts of one tensor again, in another order, is no law yet"


def mean_of_linear(p: Any, x: Tensor) -> Tensor:
    return (x @ p.w).mean(1)


def linear_of_mean(p: Any, x: Tensor) -> Tensor:
    return x.mean(1) @ p.w


def one_hot_product(p: Any, index: Tensor) -> Tensor:
    return functional.one_hot(index, p.w.shape[0]).to(p.w.dtype) @ p.w


def rows_of_table(p: Any, index: Tensor) -> Tensor:
    functional.one_hot(index, p.w.shape[0])  # for its checks, which are effects; the rest is dead code
    row = index.clamp(0, p.w.shape[0] - 1)  # a row of zeros stands for an index that is out of range
    return torch.where((row == index)[:, None], functional.embedding(row, p.w), 0.0)


def diagonal_product(p: Any, v: Tensor, x: Tensor) -> Tensor:
    return torch.diag(v) @ x


def scaled_rows(p: Any, v: Tensor, x: Tensor) -> Tensor:
    return v[:, None] * x


def trace_of_product(p: Any, a: Tensor, b: Tensor) -> Tensor:
    return torch.trace(a @ b)


def sum_of_products(p: Any, a: Tensor, b: Tensor) -> Tensor:
    return (a * b.t()).sum()


def row_sums_of_product(p: Any, a: Tensor, b: Tensor) -> Tensor:
    return (a @ b).sum(1)


def product_with_row_sums(p: Any, a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.sum(1, keepdim=True)).squeeze(1)


def pairwise_interactions(p: Any, v: Tensor) -> Tensor:
    return torch.triu(v @ v.transpose(1, 2), 1).sum((1, 2))


def interactions_of_sums(p: Any, v: Tensor) -> Tensor:
    return 0.5 * ((v.sum(1) ** 2).sum(1) - (v**2).sum((1, 2)))


def linear_of_embedding(p: Any, index: Tensor) -> Tensor:
    return functional.linear(functional.embedding(index, p.table), p.w)


def wider_table(p: Any, index: Tensor) -> Tensor:
    return functional.embedding(index, functional.linear(p.table, p.w))


def embeddings(p: Any, index: Tensor) -> Tensor:
    return torch.cat([functional.embedding(index[:, i], p.get_parameter(f"t{i}")) for i in range(TABLES)], 1)


def one_table(p: Any, index: Tensor) -> Tensor:
    table = torch.cat([p.get_parameter(f"t{i}") for i in range(TABLES)])
    return functional.embedding(index + torch.arange(TABLES) * ENTRIES, table).flatten(1)


def bags(p: Any, index: Tensor) -> Tensor:
    pooled = [functional.embedding_bag(index[:, i], p.get_parameter(f"t{i}"), mode="sum") for i in range(TABLES)]
    return torch.cat(pooled, 1)


def one_bag(p: Any, index: Tensor) -> Tensor:
    table = torch.cat([p.get_parameter(f"t{i}") for i in range(TABLES)])
    shifted = index + (torch.arange(TABLES) * ENTRIES)[:, None]
    return functional.embedding_bag(shifted.flatten(0, 1), table, mode="sum").view(index.shape[0], -1)


def _tables() -> nn.Module:
    return weights(**{f"t{i}": (ENTRIES, 16) for i in range(TABLES)})()


ROWS = (
    Row("mean_of_linear", True, weights(w=(768, 768)), mean_of_linear, linear_of_mean, tensors((2, 64, 768)), "11.9"),
    Row("one_hot_product", True, weights(w=(2000, 64)), one_hot_product, rows_of_table, indices(2000, 64), "35.3"),
    Row("diagonal_product", True, weights(), diagonal_product, scaled_rows, tensors((256,), (256, 256)), "34.8", False),
    Row(
        "trace_of_product",
        True,
        weights(),
        trace_of_product,
        sum_of_products,
        tensors(*[(256, 256)] * 2),
        "15.4",
        False,
    ),
    Row(
        "row_sums_of_product",
        True,
        weights(),
        row_sums_of_product,
        product_with_row_sums,
        tensors(*[(256, 256)] * 2),
        "31.0",
        False,
    ),
    Row(
        "pairwise_interactions",
        True,
        weights(),
        pairwise_interactions,
        interactions_of_sums,
        tensors((64, 39, 16)),
        "3.2",
        False,
        exactness="approximates",  # where the sum of all and the diagonal nearly cancel, rounding is what is left
    ),
    Row(
        "linear_of_embedding",
        True,
        weights(table=(2000, 64), w=(256, 64)),
        linear_of_embedding,
        wider_table,
        indices(2000, 128),
        "4.84",
    ),
    Row(
        "dlrm_embeddings_b1",
        True,
        _tables,
        embeddings,
        one_table,
        indices(ENTRIES, 1, TABLES),
        "1.12",
        out_of_reach=f"one look-up is found, but {INTERLEAVED}: it makes as many small copies as it saves",
    ),
    Row(
        "dlrm_bags_b1",
        True,
        _tables,
        bags,
        one_bag,
        indices(ENTRIES, 1, TABLES, BAG),
        "3.68",
        out_of_reach=f"one look-up is found, but {INTERLEAVED}: small copies stay beside the calls saved",
    ),
    Row(
        "dlrm_bags_b64",
        True,
        _tables,
        bags,
        one_bag,
        indices(ENTRIES, 64, TABLES, BAG),
        "1.50",
        out_of_reach=f"one look-up is found, but {INTERLEAVED}: small copies stay beside the calls saved",
    ),
)
