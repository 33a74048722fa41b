"""Plans on disk."""

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_eqsat.ir.term import Node, TermGraph, attributes
from torch_eqsat.ir.types import TensorType
from torch_eqsat.plan import decode_program, encode_program, load_plan, plan_path, store_plan


@pytest.fixture(autouse=True)
def cache_in(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EQSAT_CACHE_DIR", str(tmp_path))


values = st.recursive(
    st.integers(-5, 5) | st.floats(allow_nan=False) | st.booleans() | st.text(max_size=5) | st.none(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)
names = st.text("abcdef", min_size=1, max_size=4)
types = st.none() | st.builds(TensorType, st.lists(st.integers(1, 9), max_size=4).map(tuple), st.just("float32"))


@st.composite
def programs(draw):
    graph = TermGraph()
    for i in range(draw(st.integers(1, 8))):
        children = draw(st.lists(st.integers(0, len(graph) - 1), max_size=3)) if i and len(graph) else []
        attrs = attributes(**draw(st.dictionaries(names, values, max_size=3)), number=i)
        node = Node(draw(st.sampled_from(["fx", "add", "conv"])), attrs, tuple(children))
        graph.add(node, draw(types), draw(st.booleans()))
    graph.roots = draw(st.lists(st.integers(0, len(graph) - 1), max_size=3))
    return graph, draw(st.lists(st.integers(-1, 99), min_size=len(graph), max_size=len(graph)))


@settings(deadline=None, derandomize=True, database=None)
@given(programs())
def test_programs_survive_json(program):
    graph, origin = program
    again, origin_again = decode_program(json.loads(json.dumps(encode_program(graph, origin))))
    assert origin_again == origin
    assert again.digest() == graph.digest()
    assert again.nodes == graph.nodes


def test_plan_is_found_again():
    plan = {"base_ms": 1.5, "best_ms": 0.1, "regions": [], "program": {"nodes": []}}
    assert load_plan("key") is None
    store_plan("key", plan)
    assert load_plan("key") == {"format": 1, **plan}
    assert load_plan("another") is None
    store_plan("key", {**plan, "best_ms": 0.2})
    assert load_plan("key")["best_ms"] == 0.2
    assert [path.name for path in plan_path("key").parent.iterdir()] == ["key.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"format": 1, "base_ms"'])
def test_corrupt_plan_is_ignored_with_a_line(content, caplog):
    store_plan("key", {})
    plan_path("key").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert load_plan("key") is None
    (record,) = [r for r in caplog.records if r.name == "torch_eqsat.plan"]
    assert "key.json" in record.getMessage() and "\n" not in record.getMessage()


@pytest.mark.parametrize("content", ["[]", "3", '{"format": 0}', "{}"])
def test_plan_of_another_format_is_ignored(content):
    store_plan("key", {})
    plan_path("key").write_text(content)
    assert load_plan("key") is None


def test_unwritable_cache_is_reported(tmp_path, monkeypatch, caplog):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("TORCH_EQSAT_CACHE_DIR", str(file))
    with caplog.at_level(logging.WARNING):
        store_plan("key", {})
        assert load_plan("key") is None
    assert "cannot be stored" in caplog.text
