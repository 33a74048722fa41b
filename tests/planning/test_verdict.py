"""Which regions of a plan are kept, and what verdicts depend on."""

import pytest
import torch

from torch_eqsat.ir.term import Node, TermGraph, attributes
from torch_eqsat.planning.plans.plan import Plan
from torch_eqsat.planning.plans.plan_file import plan_from_json, plan_to_json
from torch_eqsat.planning.spent import Spent
from torch_eqsat.planning.verdict import UNDECIDED, GraphInputs, Judge, Verdict, fingerprint, judge, narrowed
from torch_eqsat.verification.judge import Progress


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


def test_a_verdict_that_time_cut_off_is_none(trace, monkeypatch):
    """The next process goes on with the hard inputs that are left, and finds what overflows for large ones alone."""
    x, plan = torch.rand(4, 3), plan_of(1)
    original, rewritten = trace(lambda x: x * 1.0, x).graph, trace(lambda x: x * 1e34 * 1e-34, x).graph

    def judged(plan, seconds):
        monkeypatch.setattr("torch_eqsat.planning.verdict.HARD_SECONDS", seconds)
        verdict = Judge(original, GraphInputs(frozenset(), [x]), Spent(), deterministic=False)(plan, rewritten)
        return verdict.problem, verdict.noted_in(plan)

    problem, cut = judged(plan, 0.0)
    assert problem == "" and not cut.verdicts
    assert plan_from_json(plan_to_json(cut)).begun == cut.begun != {}
    problem, whole = judged(cut, 1e9)
    assert "large numbers" in problem and list(whole.verdicts.values()) == [problem] and not whole.begun


def test_hard_inputs_are_tried_once(trace, monkeypatch):
    x, tried = torch.rand(4, 3), []
    monkeypatch.setattr("torch_eqsat.verification.judge._Pair.problem", lambda _, variant: tried.append(variant.key))
    graph = trace(lambda x: x * 1.0, x).graph
    judge(graph, graph, GraphInputs(frozenset(), [x]), progress=Progress(["large numbers", "equal rows"]))
    assert tried == ["", "large common offsets", "small numbers", "an infinity in the first sample of 4"]


def test_made_up_indices_are_zeros_where_nothing_else_fits(trace):
    graph = trace(lambda x, i: x[i] + x[i], torch.rand(1, 4), torch.zeros(3, dtype=torch.long)).graph
    assert judge(graph, graph, GraphInputs(frozenset(), ())) == ""


def test_a_graph_that_cannot_run_is_no_fault_of_the_rewriting(trace):
    graph = trace(lambda x, i: x[i + 1] * 2.0, torch.rand(1, 4), torch.zeros(3, dtype=torch.long)).graph
    assert judge(graph, graph, GraphInputs(frozenset(), ())).startswith("it cannot be checked, for the original")
