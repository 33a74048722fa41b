"""Laws sent to another process."""

import os
import pickle
import subprocess
import sys
import threading

import pytest

from torch_eqsat.errors import LawError
from torch_eqsat.laws.law import equation, law, siblings
from torch_eqsat.laws.matcher import check_examples
from torch_eqsat.laws.transfer import receive, ship

EXAMPLE = "view(view([2, 6], shape=[12]), shape=[3, 4])"


def shape_of(x):
    return x.shape


def view_again(t, v, x):
    """view(view(x)) = view(x)"""
    return t.view(x, shape_of(v))


def sums_commute(a):
    """a + (b + c) = (b + c) + a"""
    return a.rank == 1


def one_matmul(t, members):
    """X A, X B = X A, X B"""
    return [member["m"] for member in members]


CHECK = """
import pickle, sys
from torch_eqsat.laws.matcher import check_examples
from torch_eqsat.laws.transfer import receive
failures = {}
for law in receive(pickle.load(sys.stdin.buffer), failures):
    check_examples(law)
    print(law.name)
assert not failures and 'torch' not in sys.modules, failures
"""


def test_laws_work_in_a_process_that_does_not_know_their_module(tmp_path):
    laws = [
        *law("v := view(view(x))", exactness="bitwise", example=EXAMPLE)(view_again),
        *equation("matmul(a, relu(b)) = matmul(a, relu(b))", example=[])(sums_commute),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p and "tests" not in p)}
    command = [sys.executable, "-c", CHECK]
    done = subprocess.run(command, input=pickle.dumps(ship(laws)), env=environment, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split() == ["view_again", "sums_commute"]


def test_law_that_cannot_be_sent():
    lock = threading.Lock()

    @law("v := view(view(x))", example=EXAMPLE)
    def locked(t, v, x):
        """view(view(x)) = view(x)"""
        with lock:
            return t.view(x, v.shape)

    with pytest.raises(LawError, match=r"law locked \(.*test_transfer.py:\d+\) cannot be sent"):
        ship(locked)


def test_law_that_cannot_be_loaded():
    failures = {}
    assert receive((("gone", b"cno_such_module\nlaw\n."),), failures) == []
    assert "law gone cannot be loaded" in failures["gone"]


def broken(t, v, x):
    """view(view(x)) = ?"""
    return 1 // 0


def a_number(t, v, x):
    """view(view(x)) = 3"""
    return 3


def other_type(t, v, x):
    """view(view(x)) = x"""
    return x


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (broken, "raised ZeroDivisionError: integer"),
        (a_number, "returned 3, which is not a term"),
        (other_type, "into TensorType(shape=(2, 6), dtype='float32')"),
    ],
)
def test_law_is_dropped_at_its_first_error(function, problem):
    failures = {}
    (good,) = receive(ship(law("v := view(view(x))", example=EXAMPLE)(view_again)), failures)
    check_examples(good)
    (bad,) = receive(ship(law("v := view(view(x))", example=EXAMPLE)(function)), failures)
    for _ in range(2):
        with pytest.raises(LawError, match="does not fire"):
            check_examples(bad)
    assert list(failures) == [function.__name__]
    assert problem in failures[function.__name__] and "test_transfer.py:" in failures[function.__name__]
    assert receive(ship(law("v := view(view(x))", example=EXAMPLE)(function)), failures) == []


def too_few(t, members):
    """X A, X B = X A"""
    return [members[0]["m"]]


def test_siblings_are_guarded_too():
    example = "add(matmul(x := [2, 3], [3, 4]), matmul(x, [3, 4]))"
    failures = {}
    (bad,) = receive(ship(siblings("m := matmul(x, w)", shared="x", example=example)(too_few)), failures)
    with pytest.raises(LawError, match="does not fire"):
        check_examples(bad)
    assert "for 2 matches" in failures["too_few"]
