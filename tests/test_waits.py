"""Nothing in the package waits without a deadline: a worker, a lock or another process may never answer."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import torch_eqsat
import torch_eqsat.rewrites

# How many positional arguments a call has when it names a deadline; all take the keyword ``timeout`` as well. Those of
# ``get`` and ``join`` that have arguments are the ones of dictionaries and of text.
WAITS = {"wait": 1, "join": 1, "result": 1, "acquire": 2, "communicate": 2, "get": 1}
OF_MODULES = {("select", "select"): 4, ("subprocess", "run"): 99, ("subprocess", "check_output"): 99,
              ("subprocess", "check_call"): 99, ("subprocess", "call"): 99, ("os", "waitpid"): 99,
              ("os", "wait"): 99, ("futures", "wait"): 2, ("signal", "pause"): 99}  # fmt: skip
FUNCTIONS = {"wait": 2, "as_completed": 2}


def waits(source: str) -> Iterator[int]:
    """The lines of calls that wait without a deadline."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(word.arg in ("timeout", None) for word in node.keywords):
            continue
        if len(node.args) < _arguments(node.func):
            yield node.lineno


def _arguments(function: ast.expr) -> int:
    if isinstance(function, ast.Name):
        return FUNCTIONS.get(function.id, 0)
    if not isinstance(function, ast.Attribute):
        return 0
    if isinstance(function.value, ast.Name) and (found := OF_MODULES.get((function.value.id, function.attr))):
        return found
    return WAITS.get(function.attr, 0)


@pytest.mark.parametrize(
    "call",
    ["process.wait()", "thread.join()", "future.result()", "lock.acquire()", "process.communicate()", "queue.get()",
     "wait([future])", "select.select([1], [], [])", "subprocess.run(command)", "lock.acquire(True)",
     "process.communicate(None)", "as_completed(futures)"],
)  # fmt: skip
def test_what_waits_for_ever_is_found(call):
    assert list(waits(f"x = 1\n{call}")) == [2]


@pytest.mark.parametrize(
    "call",
    ["process.wait(3)", "thread.join(timeout=3)", "future.result(0)", "', '.join(names)", "known.get(key)",
     "wait([future], timeout=3)", "select.select([1], [], [], 3)", "subprocess.run(command, timeout=3)"],
)  # fmt: skip
def test_what_has_a_deadline_is_not(call):
    assert not list(waits(call))


def test_every_wait_of_the_package_has_a_deadline():
    folders = [Path(torch_eqsat.__file__).parent, Path(str(torch_eqsat.rewrites.__file__)).parent]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(paths) > 80
    found = [f"{path}:{line}" for path in paths for line in waits(path.read_text(encoding="utf-8"))]
    assert not found, "these wait without a deadline; give them one"
