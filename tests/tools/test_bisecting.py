"""The law behind a wrong result is found."""

import pytest
import torch

from torch_eqsat.laws.law import law
from torch_eqsat.tools import cli as command
from torch_eqsat.tools.bisecting import AGREES, FOUND, NOT_OURS, USAGE, _shortest, bisect

pytestmark = pytest.mark.usefixtures("fresh")
OPTIONS = {
    "eqsat.deterministic": True,
    "eqsat.seconds": 0.5,
    "eqsat.min_saving": 0,
    "eqsat.judge": False,
}


def relu_is_nothing(t, y, x):
    """relu(x) = x"""
    return x


WRONG = law("y := relu(x)", example="relu([2, 3])")(relu_is_nothing)


def wrong_for_negative_numbers():
    return lambda x, w: torch.relu(x @ w) @ w, (torch.randn(32, 64), torch.randn(64, 64))


def right_for_positive_numbers():
    return lambda x, w: torch.relu(x @ w) @ w, (torch.rand(32, 64), torch.rand(64, 64))


def no_model():
    return 3


def run(name, **options):
    said = []
    status = bisect(f"{__name__}:{name}", "eqsat_mcts_eager", {**OPTIONS, **options}, said.append)
    return status, said


@pytest.mark.slow
def test_the_law_is_found():
    status, said = run("wrong_for_negative_numbers", **{"eqsat.laws": [WRONG]})
    assert status == FOUND
    assert said[0].startswith("the compiled result is wrong: output 0 is off by")
    assert said[1] == "law: relu_is_nothing"


def test_results_that_agree():
    assert run("right_for_positive_numbers") == (AGREES, ["the compiled result agrees with eager"])


@pytest.mark.slow
def test_a_difference_that_no_law_makes(monkeypatch):
    monkeypatch.setattr("torch_eqsat.tools.bisecting.difference", lambda *_: "is off")
    status, said = run("right_for_positive_numbers")
    assert status == NOT_OURS and "without any law" in said[1]


@pytest.mark.parametrize("subject", ["no_such_module:f", "sys:no_such_function", f"{__name__}:no_model", "sys"])
def test_bad_subjects(subject, capsys):
    assert command.main(["bisect", subject, "--interpret"]) == USAGE
    assert "is not a module:function that returns (model, inputs)" in capsys.readouterr().err


@pytest.mark.parametrize("first", range(1, 9))
def test_the_shortest_beginning(first):
    tried = []
    names = "abcdefgh"

    def agrees(disabled):
        tried.append(disabled)
        return len(disabled) >= first

    assert _shortest(names, agrees) == names[:first]
    assert len(tried) <= 3
