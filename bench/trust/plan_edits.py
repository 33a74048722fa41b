"""Ways to damage a stored plan: edits of what it says, and of its bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

OPERATORS = ("add", "mul", "matmul", "permute", "relu", "exp", "view", "conv", "fx", "input", "nonsense")
Plan = dict[str, Any]


# Edits of a plan; its digest is made to fit afterwards.


def _nodes(plan: Plan, draw: random.Random, fits: Callable[[Any], bool] = lambda node: True) -> Any:
    """A random node that fits; the first one if none does."""
    nodes = plan["program"]["nodes"]
    return draw.choice([node for node in nodes if fits(node)] or nodes[:1])


def inputs_swapped(plan: Plan, draw: random.Random) -> None:
    inputs = [i for i, node in enumerate(plan["program"]["nodes"]) if node[0] == "input"]
    a, b = draw.sample(inputs, 2)
    nodes = plan["program"]["nodes"]
    nodes[a][1]["name"], nodes[b][1]["name"] = nodes[b][1]["name"], nodes[a][1]["name"]


def operands_swapped(plan: Plan, draw: random.Random) -> None:
    _nodes(plan, draw, lambda node: len(node[2]) > 1)[2].reverse()


def root_changed(plan: Plan, draw: random.Random) -> None:
    roots = plan["program"]["roots"]
    roots[draw.randrange(len(roots))] = draw.randrange(-1, len(plan["program"]["nodes"]) + 1)


def child_changed(plan: Plan, draw: random.Random) -> None:
    children = _nodes(plan, draw, lambda node: bool(node[2]))[2]
    if children:
        children[draw.randrange(len(children))] = draw.randrange(-1, len(plan["program"]["nodes"]) + 1)


def operator_changed(plan: Plan, draw: random.Random) -> None:
    _nodes(plan, draw)[0] = draw.choice(OPERATORS)


def attribute_changed(plan: Plan, draw: random.Random) -> None:
    attributes = _nodes(plan, draw, lambda node: bool(node[1]))[1]
    if attributes:
        name = draw.choice(sorted(attributes))
        attributes[name] = _other(attributes[name], draw)


def attribute_missing(plan: Plan, draw: random.Random) -> None:
    attributes = _nodes(plan, draw, lambda node: bool(node[1]))[1]
    if attributes:
        del attributes[draw.choice(sorted(attributes))]


def type_changed(plan: Plan, draw: random.Random) -> None:
    types = plan["program"]["types"]
    place = draw.randrange(len(types))
    types[place] = draw.choice((None, [[2**60], "float32"], [[], "int64"], _other(types[place], draw)))


def origin_changed(plan: Plan, draw: random.Random) -> None:
    origin = plan["program"]["origin"]
    origin[draw.randrange(len(origin))] = draw.randrange(-2, 12)


def constant_changed(plan: Plan, draw: random.Random) -> None:
    constant = plan["program"]["constant"]
    place = draw.randrange(len(constant))
    constant[place] = not constant[place]


def node_missing(plan: Plan, draw: random.Random) -> None:
    place = draw.randrange(len(plan["program"]["nodes"]))
    for name in ("nodes", "types", "constant", "origin"):
        del plan["program"][name][place]


def list_shortened(plan: Plan, draw: random.Random) -> None:
    plan["program"][draw.choice(("nodes", "types", "constant", "origin", "roots"))].pop()


def list_lengthened(plan: Plan, draw: random.Random) -> None:
    values = plan["program"][draw.choice(("nodes", "types", "constant", "origin", "roots"))]
    values += values[:1] * draw.choice((1, 2, 100_000))


def nested_deeply(plan: Plan, draw: random.Random) -> None:
    value: Any = []
    for _ in range(draw.choice((10, 150, 900))):
        value = [value]
    _nodes(plan, draw)[1]["deep"] = value


def number_huge(plan: Plan, draw: random.Random) -> None:
    plan["program"][draw.choice(("roots", "origin"))][0] = draw.choice((10**400, 2**31, 2**63, -(2**63), 1e308))


def type_foreign(plan: Plan, draw: random.Random) -> None:
    target = draw.choice((plan, plan["program"]))
    target[draw.choice(sorted(target))] = draw.choice((None, 3, "text", [], {}, True, [[]], float("nan")))


def key_unknown(plan: Plan, draw: random.Random) -> None:
    draw.choice((plan, plan["program"]))["unknown"] = 1


def times_changed(plan: Plan, draw: random.Random) -> None:
    plan[draw.choice(("base_ms", "best_ms"))] = draw.choice((0.0, -1.0, 1e300, float("inf"), float("nan"), 1))


EDITS = (
    inputs_swapped, operands_swapped, root_changed, child_changed, operator_changed, attribute_changed,
    attribute_missing, type_changed, origin_changed, constant_changed, node_missing, list_shortened, list_lengthened,
    nested_deeply, number_huge, type_foreign, key_unknown, times_changed,
)  # fmt: skip


def _other(value: Any, draw: random.Random) -> Any:
    """A value like this one."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return draw.choice((value + 1, value - 1, -value, 0, value * 2))
    if isinstance(value, str):
        return draw.choice((value + "1", value[:-1], value.swapcase(), "float64", ""))
    if value and draw.random() < 0.7:
        place = draw.randrange(len(value))
        return [*value[:place], _other(value[place], draw), *value[place + 1 :]]
    return draw.choice(([], value[::-1], [*value, 1], value[1:]))


def damaged(raw: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A name, and the bytes of a file after something happened to it."""
    place, size = draw.randrange(len(raw)), draw.choice((1, 8, 512))
    noise = draw.randbytes(size)
    cases = {
        "bit flipped": lambda: raw[:place] + bytes([raw[place] ^ 1 << draw.randrange(8)]) + raw[place + 1 :],
        "bytes replaced": lambda: raw[:place] + noise + raw[place + size :],
        "bytes inserted": lambda: raw[:place] + noise + raw[place:],
        "bytes removed": lambda: raw[:place] + raw[place + size :],
        "truncated": lambda: raw[:place],
        "repeated": lambda: raw + raw[place:],
    }
    name = draw.choice(sorted(cases))
    return name, cases[name]()
