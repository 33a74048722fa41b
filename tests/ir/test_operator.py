"""Records of operators: none is incomplete, and what a new one lacks is said."""

import inspect
from dataclasses import fields

import pytest

from torch_eqsat.cost.roofline import Coefficients
from torch_eqsat.ir.operator import Operator, declare
from torch_eqsat.ir.operators import OPERATORS


def test_what_a_record_lacks_is_said():
    with pytest.raises(TypeError, match=r"operator 'topk' lacks acts_on, .*looks_up"):
        declare("topk", 1, "", infer=lambda attrs, types: types[0])


def test_a_field_that_is_none_is_refused():
    with pytest.raises(TypeError, match="colour"):
        declare(
            "topk",
            1,
            "",
            **{f.name: None for f in fields(Operator) if f.name not in ("name", "arity", "traits")},
            colour=1,
        )


def test_no_field_has_a_default_and_each_is_described():
    source = inspect.getsource(Operator)
    for field in fields(Operator):
        after = source.partition(f"    {field.name}: ")[2].partition("\n")[2]
        assert after.lstrip().startswith('"""') or field.name == "name", field.name


@pytest.mark.parametrize("name", OPERATORS)
def test_classes_of_work_have_a_coefficient(name):
    assert hasattr(Coefficients(), f"{OPERATORS[name].work}_ns")
