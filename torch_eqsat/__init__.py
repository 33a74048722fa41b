"""torch_eqsat: tensor graphs rewritten by equality saturation and Monte Carlo tree search.

    model = torch.compile(model, backend="eqsat_mcts")

Importing this package imports neither egglog nor torch's compiler; that happens when a model is compiled.
"""

from typing import Any

from torch_eqsat._version import __version__

__all__ = ["__version__", "explain"]


def explain(model: Any, *inputs: Any, options: dict[str, Any] | None = None) -> Any:
    """Compile ``model`` for ``inputs`` and say what was done to its graphs; see torch_eqsat.explain."""
    from torch_eqsat.explaining import explain as implementation

    return implementation(model, *inputs, options=options)
