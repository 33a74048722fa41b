"""Options, and what of them a compilation is known by."""

import os
import subprocess
import sys

import pytest
import torch

from tests.end_to_end.models import compiled, mlp
from torch_eqsat import backend
from torch_eqsat.errors import OptionError
from torch_eqsat.planning.plans.source import source_hash
from torch_eqsat.search.parameters import SearchParameters

pytestmark = pytest.mark.usefixtures("fresh")


def test_unknown_option_names_the_nearest():
    with pytest.raises(Exception, match=r"did you mean 'eqsat\.seconds'"):
        compiled(mlp(), **{"eqsat.secnds": 1})(torch.rand(2, 16))


def test_bad_options_are_refused_before_any_work():
    with pytest.raises(OptionError, match="at least"):
        backend.eqsat_mcts(None, [], options={"eqsat.nodes": 0})


def test_backend_is_registered():
    assert "eqsat_mcts" in torch._dynamo.list_backends(exclude_tags=())


def test_source_hash_is_equal_across_processes():
    code = "from torch_eqsat.planning.plans.source import source_hash; print(source_hash())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONHASHSEED": "7"}
    text = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert text.stdout.strip() == source_hash()


def test_pass_is_known_by_its_options():
    def uuid(frozen=True, parameters=SearchParameters(), **options):
        return backend.EqsatPass(backend.Options(**options), frozen, [], [], parameters=parameters).uuid()

    assert uuid() == uuid()
    others = uuid(frozen=False), uuid(seed=1), uuid(disable=("matmul",)), uuid(parameters=SearchParameters(patience=1))
    assert len({uuid(), *others}) == 5
