"""Fingerprints of laws: equal for laws that do the same, in every process, and for no others."""

import os
import subprocess
import sys
import textwrap

from torch_eqsat.laws.fingerprint import fingerprint, modules_of
from torch_eqsat.laws.law import equation, law
from torch_eqsat.laws.pattern import Place

SOURCE = """
    from torch_eqsat.laws.law import equation, law
    import laws_helper
    from laws_helper import shape_of

    LIMIT = 3

    def helper(x):
        return x.rank < LIMIT

    @law("v := view(view(x))", exactness="bitwise", example="view(view([2, 6], shape=[12]), shape=[3, 4])")
    def view_again(t, v, x):
        "view(view(x)) = view(x)"
        return t.view(x, shape_of(v)) if helper(x) and laws_helper.agrees(x) else None

    @equation("add(a, b) = add(b, a)", example="add([2], [2])")
    def sums_commute(a):
        "a + b = b + a"
        return helper(a)
"""
HELPER = """
    def shape_of(x):
        return tuple(n for n in x.shape)

    def agrees(x):
        return True
"""
PRINT = "import laws_under_test as m; from torch_eqsat.laws.fingerprint import fingerprint; "
PRINT += "print(fingerprint(m.view_again), fingerprint(m.sums_commute))"


def fingerprints(folder, source=SOURCE, helper=HELPER, seed="1"):
    """Those of the laws of a module in a process of its own."""
    (folder / "laws_under_test.py").write_text(textwrap.dedent(source))
    (folder / "laws_helper.py").write_text(textwrap.dedent(helper))
    path = os.pathsep.join([str(folder), *(p for p in sys.path if p)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_equal_in_other_processes_and_at_other_places(tmp_path):
    first = fingerprints(tmp_path)
    assert fingerprints(tmp_path, "\n\n# moved\n" + textwrap.dedent(SOURCE), seed="7") == first
    assert len(set(first)) == 2


def test_what_is_changed_changes_it(tmp_path):
    (view, commuted), seen = fingerprints(tmp_path), set()
    for old, new, both in [
        ("tuple(n for n in x.shape)", "tuple(1 * n for n in x.shape)", False),  # a function of another module
        ("return True", "return x.rank", False),  # a function of a module that is named with it
        ("shape_of(v)) if", "shape_of(x)) if", False),  # the body
        ("LIMIT = 3", "LIMIT = 4", True),  # a number that a helper reads
        ("x.rank < LIMIT", "x.rank <= LIMIT", True),
        ("[12]), shape=[3, 4]", "[12]), shape=[4, 3]", False),  # the declaration
    ]:
        assert (old in SOURCE) + (old in HELPER) == 1
        changed = fingerprints(tmp_path, SOURCE.replace(old, new), HELPER.replace(old, new))
        assert changed[0] != view and (changed[1] != commuted) == both, old
        seen.add(changed[0])
    assert len(seen) == 6


def test_closures_and_places_count():
    def make(number):
        @law("F(x)", F=[Place("relu", 1), Place("abs", 1)], example="F([2])")
        def scaled(t, x, F):
            """F(x) = n x"""
            return t.mul(x, t.scalar(number * len(F.op)))

        return scaled

    one, two = make(1.0), make(2.0)
    assert fingerprint(one) == fingerprint(make(1.0)) != fingerprint(two)
    assert fingerprint(one[:1]) != fingerprint(one[1:])
    assert fingerprint([]) != fingerprint(one)


def test_modules():
    @equation("add(a, b) = add(b, a)", example="add([2], [2])")
    def sums_commute(a):
        """a + b = b + a"""

    assert modules_of(sums_commute[0]) == {__name__}
