"""``torch_eqsat.explain``: the applied laws, the predicted saving of each region, and why the search stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from torch_eqsat import report as reports
from torch_eqsat.cost.targets import HERE
from torch_eqsat.options import PREFIX, Options


@dataclass(frozen=True)
class Explanation:
    """Reports on the graphs of a model; ``str()`` fits on a screen."""

    graphs: tuple[reports.GraphReport, ...]

    def __str__(self) -> str:
        if not self.graphs:
            return "torch.compile found no graph to compile"
        return "\n".join(str(graph) for graph in self.graphs)


def explain(
    model: Callable[..., Any], *inputs: Any, options: dict[str, Any] | None = None, target: str = HERE
) -> Explanation:
    """Compile ``model`` anew for ``inputs`` (without plans from disk), run it once, and return the reports.

    Dynamo is reset, so functions compiled before are compiled again at their next call. With a ``target`` such as
    "H100", the plan is made for that device at prices estimated from its data, and the report states the saving there.
    The original model runs here, because a plan for one machine may be slower on another. Raises OptionError for bad
    options and unknown targets.
    """
    options = dict(options or {})
    if target != HERE:
        options[f"{PREFIX}target"] = target
    Options.parse(options)
    chosen = {"force_disable_caches": True, **options, "eqsat.cache": False}
    torch._dynamo.reset()
    reports.reset()
    compiled = torch.compile(model, backend="eqsat_mcts", options=chosen)
    compiled(*inputs)
    return Explanation(tuple(reports.last_reports()))
