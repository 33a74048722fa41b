"""All exceptions have one base."""

import inspect
import pkgutil
from importlib import import_module

import torch_eqsat
from torch_eqsat.errors import EqsatError


def test_all_exceptions_derive_from_one():
    names = [module.name for module in pkgutil.walk_packages(torch_eqsat.__path__, "torch_eqsat.")]
    assert "torch_eqsat.planning.race" in names
    kinds = {kind for name in names for _, kind in inspect.getmembers(import_module(name), inspect.isclass)}
    own = {kind for kind in kinds if issubclass(kind, Exception) and kind.__module__.startswith("torch_eqsat")}
    assert len(own) > 10 and {kind for kind in own if not issubclass(kind, EqsatError)} == set()
