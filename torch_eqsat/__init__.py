"""torch_eqsat: tensor graphs rewritten by equality saturation and Monte Carlo tree search.

    model = torch.compile(model, backend="eqsat_mcts")

Importing this package imports neither egglog nor torch's compiler; that happens when a model is compiled.
"""

from typing import TYPE_CHECKING, Any

from torch_eqsat._version import __version__

if TYPE_CHECKING:
    from torch_eqsat.allocator import keep_freed_memory
    from torch_eqsat.laws.law import equation, law, siblings
    from torch_eqsat.tools.explaining import explain
    from torch_eqsat.verification.laws import verify

__all__ = ["__version__", "equation", "explain", "keep_freed_memory", "law", "siblings", "verify"]

_HOMES = {
    "equation": "torch_eqsat.laws.law",
    "explain": "torch_eqsat.tools.explaining",
    "keep_freed_memory": "torch_eqsat.allocator",
    "law": "torch_eqsat.laws.law",
    "siblings": "torch_eqsat.laws.law",
    "verify": "torch_eqsat.verification.laws",
}


def __getattr__(name: str) -> Any:
    """Names that are loaded when they are first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
