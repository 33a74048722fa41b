"""TASO's rules: how they are read, sized and judged, and that every one of them follows from the laws."""

import pytest

from bench.laws.taso import DATA, Limits, derive, format_table, summary, validity
from bench.laws.taso_rules import parse, read_rule, read_rules
from bench.laws.taso_shapes import assignments
from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.laws.law import law
from torch_eqsat.rewrites import catalogue

LAWS = catalogue()
RULES = read_rules(DATA) if (DATA / "converted.txt").is_file() else []
ASSOCIATIVE = "(matmul 0 (matmul 0 ?a ?b) ?c)=>(matmul 0 ?a (matmul 0 ?b ?c))"


def rule(*texts):
    return read_rule("single 1", texts)


@law("matmul(matmul(a, b), c)")
def associative(t, a, b, c):
    """(A B) C = A (B C)"""
    return t.matmul(a, t.matmul(b, c))


@pytest.mark.skipif(not RULES, reason=f"{DATA} does not hold TASO's rules; name their folder in TASO_RULES")
def test_all_rules_are_read():
    assert [sum(r.name.startswith(kind) for r in RULES) for kind in ("single", "multi")] == [120, 13]
    assert {len(r.lefts) for r in RULES if r.name.startswith("multi")} == {2}


@pytest.mark.parametrize("each", RULES, ids=lambda r: r.name)
def test_rule_is_derived(each):
    verdict = derive(each, LAWS)
    assert verdict.lhs, format_table([verdict])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(foo ?a)", "unknown operator 'foo'"),
        ("(relu ?a ?b)", "relu takes 1 operands"),
        ("?a ?b", "text after the end"),
        ("(relu ?a", "text ends inside"),
    ],
)
def test_what_cannot_be_read_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_sizes_are_as_general_as_the_rule_allows():
    (shapes,) = assignments(rule(ASSOCIATIVE))
    assert shapes == {"a": (2, 3), "b": (3, 4), "c": (4, 2)}


def test_groups_follow_from_the_weight():
    found = assignments(rule("(conv2d 1 1 0 0 ?x ?w)=>(conv2d 1 1 0 0 ?x ?w)"))
    groups = {shapes["x"][1] // shapes["w"][1] for shapes in found}
    assert groups == {1, 2, 3, 4}
    assert found[0]["x"][1] == found[0]["w"][1]


def test_sums_of_sizes_are_solved():
    text = "(ewadd (concat 0 2 ?a ?b) (concat 0 2 ?c ?d))=>(concat 0 2 (concat 0 2 ?a ?b) (concat 0 2 ?c ?d))"
    assert not assignments(rule(text))  # the right side has twice as many rows
    found = assignments(rule("(ewadd (concat 0 2 ?a ?b) (concat 0 2 ?c ?d))=>(concat 0 2 ?a ?b)"))
    assert found
    assert all(s["a"][0] + s["b"][0] == s["c"][0] + s["d"][0] for s in found)


def test_ranks_that_do_not_fit_are_refused():
    wrong = rule("(matmul 0 ?a ?b)=>(conv2d 1 1 0 0 ?a ?b)")
    with pytest.raises(TypeMismatchError, match=r"\?a is used with ranks"):
        assignments(wrong)
    assert derive(wrong, associative).stop == "ill-typed"


def test_wrong_rule_is_found_out():
    verdict = derive(rule("(ewadd ?a ?b)=>(ewmul ?a ?b)"), associative)
    assert (verdict.lhs, verdict.both, verdict.stop) == (False, False, "wrong")


def test_rule_that_is_wrong_for_some_shapes_is_reported():
    """Kernels side by side mix the groups' outputs."""
    text = "(concat 1 4 (conv2d 1 1 0 0 ?x ?u) (conv2d 1 1 0 0 ?x ?v))=>(conv2d 1 1 0 0 ?x (concat 0 4 ?u ?v))"
    found = validity(rule(text))
    assert 0 < found.wrong < found.typed
    assert found.shapes["x"][1] == found.shapes["u"][1]
    assert found.counterexample["x"][1] > found.counterexample["u"][1]


def test_split_is_where_the_concatenation_was():
    text = "(matmul 0 ?x ?v)=>(split_1 (split 1 (matmul 0 ?x (concat 1 2 ?u ?v))))"
    found = validity(rule(text))
    assert (found.typed, found.wrong) == (1, 0)
    assert found.shapes["u"] != found.shapes["v"]


def test_derivation_needs_the_laws():
    assert not derive(rule(ASSOCIATIVE), []).lhs
    verdict = derive(rule(ASSOCIATIVE), associative)
    assert (verdict.lhs, verdict.rounds, verdict.stop) == (True, 1, "found")


def test_right_side_that_only_leads_to_the_left_is_not_derived():
    verdict = derive(rule("(matmul 0 ?a (matmul 0 ?b ?c))=>(matmul 0 (matmul 0 ?a ?b) ?c)"), associative)
    assert (verdict.lhs, verdict.both, verdict.stop) == (False, True, "saturated")


def test_limits_end_the_attempt():
    text = "(matmul 0 (matmul 0 (matmul 0 ?a ?b) ?c) ?d)=>(matmul 0 ?a (matmul 0 ?b (matmul 0 ?c ?d)))"
    assert derive(rule(text), associative, Limits(rounds=1)).stop == "rounds"
    assert derive(rule(text), associative, Limits(nodes=8)).stop == "node limit"
    assert derive(rule(text), associative).lhs


def test_operands_of_sums_may_be_in_any_order():
    verdict = derive(rule("(ewadd ?a ?b)=>(ewadd ?b ?a)"), [])
    assert (verdict.lhs, verdict.stop) == (True, "identical")


def test_report_counts_and_names():
    verdicts = [derive(rule(ASSOCIATIVE), laws) for laws in (associative, [])]
    assert "not derived: single 1 (saturated)" in format_table(verdicts)
    assert summary(verdicts)["taso_single_derived"] == 1
    assert summary(verdicts)["taso_not_derived"] == {"single 1": "saturated"}
