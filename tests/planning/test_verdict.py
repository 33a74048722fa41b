"""Which regions of a plan are kept, and what verdicts depend on."""

import pytest
import torch

from torch_eqsat.ir.term import Node, TermGraph, attributes
from torch_eqsat.planning.plans.plan import Plan
from torch_eqsat.planning.verdict import UNDECIDED, GraphInputs, Verdict, fingerprint, judge, narrowed


@pytest.mark.parametrize("wrong", [{"a"}, {"h"}, {"c", "d"}, {"a", "h"}, set("abcdefgh")], ids=sorted)
def test_what_is_right_is_kept(wrong):
    asked = []

    def problem_of(groups):
        asked.append(set(groups))
        return ", ".join(sorted(wrong & set(groups)))

    kept, refused = narrowed(list("abcdefgh"), problem_of)
    assert kept == sorted(set("abcdefgh") - wrong)
    assert set(refused) == wrong
    assert len(asked) <= 14


def test_what_is_wrong_together_is_parted():
    kept, refused = narrowed(["a", "b"], lambda groups: "both" if set(groups) == {"a", "b"} else "")
    assert kept == ["a"] and refused == {"b": "both"}


def test_late_regions_are_left():
    kept, refused = narrowed(["a", "b"], lambda groups: "", -1.0)
    assert not kept and set(refused) == {"a", "b"}


def plan_of(number):
    """A plan with a program of one input."""
    graph = TermGraph()
    graph.add(Node("input", attributes(name=f"x{number}"), ()), None, False)
    return Plan(2.0, 1.0, (), graph, (0,))


def test_verdicts_are_of_a_program_and_weights():
    plan, other = plan_of(1), plan_of(2)
    inputs = GraphInputs(frozenset({0}), [torch.ones(3), torch.ones(2)])
    changed = GraphInputs(frozenset({0}), [torch.full((3,), 2.0), torch.ones(2)])
    lived = GraphInputs(frozenset({0}), [torch.ones(3), torch.zeros(2)])
    key = fingerprint(plan, inputs)
    assert key == fingerprint(plan, lived) != fingerprint(plan, changed)
    assert key != fingerprint(other, inputs)
    judged = Verdict(key, "").noted_in(plan)
    assert judged.verdicts == {key: ""} and not plan.verdicts
    for number in range(40):
        judged = Verdict(str(number), "no").noted_in(judged)
    assert key not in judged.verdicts and judged.verdicts["39"] == "no"
    assert Verdict(key, UNDECIDED[0]).noted_in(plan) == plan


def test_made_up_indices_are_zeros_where_nothing_else_fits(trace):
    graph = trace(lambda x, i: x[i] + x[i], torch.rand(1, 4), torch.zeros(3, dtype=torch.long)).graph
    assert judge(graph, graph, GraphInputs(frozenset(), ())) == ""


def test_a_graph_that_cannot_run_is_no_fault_of_the_rewriting(trace):
    graph = trace(lambda x, i: x[i + 1] * 2.0, torch.rand(1, 4), torch.zeros(3, dtype=torch.long)).graph
    assert judge(graph, graph, GraphInputs(frozenset(), ())).startswith("it cannot be checked, for the original")
