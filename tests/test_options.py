"""Options: what is read and what is refused."""

from dataclasses import fields

import pytest

from torch_eqsat.errors import EqsatError, OptionError
from torch_eqsat.options import PREFIX, Options
from torch_eqsat.search.strategies.table import STRATEGIES


def test_strategies_are_those_that_there_are():
    (strategy,) = (field for field in fields(Options) if field.name == "strategy")
    assert set(strategy.metadata["choices"]) == set(STRATEGIES)


def test_defaults():
    assert Options.parse(None) == Options.parse({}) == (Options(), {})


def test_ours_and_inductors():
    options, others = Options.parse(
        {"eqsat.seconds": 2.5, "freezing": True, "eqsat.strict": True, "max-autotune": True}
    )
    assert options == Options(seconds=2.5, strict=True)
    assert others == {"freezing": True, "max_autotune": True}


def test_ints_for_floats_and_lists_for_tuples():
    options, _ = Options.parse({"eqsat.seconds": 3, "eqsat.disable": ["matmul"]})
    assert options.seconds == 3.0 and type(options.seconds) is float
    assert options.disable == ("matmul",)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("eqsat.second", "eqsat.seconds"), ("eqsat.exact", "eqsat.exactness"), ("eqsat.Nodes", "eqsat.nodes")],
)
def test_unknown_key(key, nearest):
    with pytest.raises(OptionError) as caught:
        Options.parse({key: 1})
    assert f"unknown option {key!r}; did you mean {nearest!r}?" in str(caught.value)
    assert all(PREFIX + field.name in str(caught.value) for field in fields(Options))


@pytest.mark.parametrize(
    ("key", "nearest"), [("freezin", "freezing"), ("cpp.thread", "cpp.threads"), ("seconds", "eqsat.seconds")]
)
def test_unknown_key_without_prefix(key, nearest):
    """It was found in the middle of compilation, and with Dynamo's suppress_errors never."""
    with pytest.raises(OptionError, match=f"unknown option {key!r}; did you mean {nearest!r}"):
        Options.parse({key: 1})


def test_wrong_type_for_inductor():
    """A text counted as true, also "False"."""
    with pytest.raises(OptionError, match="'epilogue_fusion' of Inductor is 'False'; it takes a bool"):
        Options.parse({"epilogue_fusion": "False"})


@pytest.mark.parametrize(
    ("key", "value", "type_"),
    [
        ("eqsat.seconds", "2", "float"),
        ("eqsat.seconds", True, "float"),
        ("eqsat.nodes", 2.0, "int"),
        ("eqsat.nodes", True, "int"),
        ("eqsat.strict", 1, "bool"),
        ("eqsat.exactness", None, "str"),
        ("eqsat.disable", "matmul", "tuple"),
        ("eqsat.disable", [1], "tuple"),
    ],
)
def test_wrong_type(key, value, type_):
    with pytest.raises(OptionError, match=f"it takes a {type_}") as caught:
        Options.parse({key: value})
    assert key in str(caught.value) and repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("eqsat.seconds", -1, "at least 0"),
        pytest.param("eqsat.seconds", float("nan"), "at least 0"),
        ("eqsat.nodes", 0, "at least 1"),
        ("eqsat.memory_bytes", 1, "at least 268435456"),
        ("eqsat.exactness", "exact", "one of bitwise, reassociates, approximates"),
    ],
)
def test_out_of_range(key, value, allowed):
    with pytest.raises(OptionError, match=allowed):
        Options.parse({key: value})


def test_errors_are_value_errors_of_ours():
    assert issubclass(OptionError, ValueError) and issubclass(OptionError, EqsatError)


def test_every_option_says_what_it_does():
    assert all(field.metadata["help"] for field in fields(Options))


def test_unknown_targets_are_refused_with_those_known():
    with pytest.raises(OptionError, match="'H99'; it is one of here, cpu, H100, H200, A100, L4"):
        Options.parse({"eqsat.target": "H99"})


def test_measuring_excludes_determinism():
    with pytest.raises(OptionError, match="exclude each other"):
        Options.parse({"eqsat.measure": True, "eqsat.deterministic": True})
