"""A user's laws: where they come from and how they are refused."""

import os
import subprocess
import sys
import textwrap

import pytest

import torch_eqsat
from torch_eqsat import backend
from torch_eqsat import user_laws as user_laws
from torch_eqsat.errors import LawError, OptionError
from torch_eqsat.laws.law import law
from torch_eqsat.laws.pattern import Place
from torch_eqsat.options import Options
from torch_eqsat.user_laws import load_laws

EXAMPLE = "view(view([2, 6], shape=[12]), shape=[3, 4])"
MODULE = f'''
    from torch_eqsat import law

    @law("v := view(view(x))", exactness="bitwise", example="{EXAMPLE}")
    def view_once(t, v, x):
        """view(view(x)) = view(x)"""
        return t.view(x, v.shape)

    @law("p := permute(view(x))", exactness="bitwise", example="permute(view([2, 6], shape=[1, 12]), dims=[1, 0])")
    def permute_once(t, p, x):
        """permute(view(x)) = view(x)"""
        return t.view(x, p.shape) if 1 in p.shape and p.rank == 2 else None

    NUMBER = 3
'''


def declared(function, example=EXAMPLE, **keywords):
    return law("v := view(view(x))", exactness="bitwise", example=example, **keywords)(function)


def view_once(t, v, x):
    """view(view(x)) = view(x)"""
    return t.view(x, v.shape)


def load(*laws, disable=()):
    return load_laws(Options.parse({"eqsat.laws": laws, "eqsat.disable": disable})[0])


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of laws that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def write(text, name="laws_of_mine"):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        made.append(name)
        return name

    yield write
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture
def entry_points(monkeypatch):
    """Pretends that a package with these entry points is installed."""

    def install(**points):
        found = [user_laws.metadata.EntryPoint(name, value, user_laws.GROUP) for name, value in points.items()]
        monkeypatch.setattr(user_laws.metadata, "entry_points", lambda group: found if group in found[0].group else [])

    return install


def names(given):
    return [item.name for item in given.laws]


def test_no_laws_need_no_work():
    assert load() is user_laws.NO_LAWS


def test_laws_and_lists_of_laws():
    (single,) = declared(view_once)
    assert names(load(single)) == names(load([single])) == names(load(single, [single])) == ["view_once"]
    parsed, _ = Options.parse({"eqsat.laws": declared(view_once)})
    assert names(load_laws(parsed)) == ["view_once"]
    assert [name for name, _ in load(single).shipped] == ["view_once"]


def test_modules(module):
    name = module(MODULE)
    assert names(load(name)) == ["view_once", "permute_once"]
    assert names(load(f"{name}:permute_once")) == names(load(f"{name}:permute_once", f"{name}:permute_once"))
    assert load(name).key == load(f"{name}:view_once", f"{name}:permute_once").key != load(f"{name}:view_once").key


def test_installed_packages(module, entry_points):
    entry_points(mine=module(MODULE))
    assert names(load()) == ["view_once", "permute_once"]
    assert names(load(disable=["permute_once"])) == ["view_once"]
    assert names(load(disable=["mine"])) == []
    with pytest.raises(OptionError, match=r"names 'mime'.*did you mean 'mine'"):
        load(disable=["mime"])


@pytest.mark.parametrize("given", [3, [3], [[declared(view_once)[0], 3]], [None], "laws_of_mine"])
def test_what_is_no_law(given):
    with pytest.raises(OptionError, match=r"eqsat.laws"):
        Options.parse({"eqsat.laws": given})


@pytest.mark.parametrize(
    ("entry", "text", "message"),
    [
        ("no_such_module_of_laws", "", "cannot be imported: ModuleNotFoundError"),
        ("laws_of_mine", "1 / 0", r"cannot be imported: ZeroDivisionError.*laws_of_mine.py:1\)"),
        ("laws_of_mine", "x = 1", "declares no laws"),
        ("laws_of_mine:view_onze", MODULE, "'laws_of_mine:view_onze'.* is not a law; did you mean 'view_once'"),
        ("laws_of_mine:NUMBER", MODULE, "is not a law"),
    ],
)
def test_modules_that_are_refused(module, entry, text, message):
    module(text)
    with pytest.raises(OptionError, match=message):
        load(entry)


def test_malformed_law_of_a_module(module):
    with pytest.raises(LawError, match=r"law view_once \(.*laws_of_mine.py:\d+\): unknown operator 'vieuw'"):
        load(module(MODULE.replace("v := view(view(x))", "v := vieuw(view(x))")))


def idle(t, v, x):
    """view(view(x)) = view(view(x))"""


def failing(t, v, x):
    """view(view(x)) = ?"""
    return 1 // 0


def retyped(t, v, x):
    """view(view(x)) = x"""
    return x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (idle, "does not fire on its example"),
        (failing, "raises ZeroDivisionError on its examples"),
        (retyped, r"turns .* into .*2, 6"),
    ],
)
def test_laws_that_fail_on_their_examples_are_refused_before_any_work(function, message):
    laws = declared(function)
    with pytest.raises(LawError, match=message) as caught:
        backend.eqsat_mcts(None, [], options={"eqsat.laws": laws})
    assert f"law {function.__name__} ({__file__}:{function.__code__.co_firstlineno})" in str(caught.value)
    assert load(*laws, disable=[function.__name__]).laws == ()


def test_name_of_the_catalogue():
    def view_of_view(t, v, x):
        """view(view(x)) = view(x)"""
        return t.view(x, v.shape)

    with pytest.raises(LawError, match=r"law view_of_view \(.*test_user_laws.py:\d+\) is also declared at .*layout.py"):
        load(declared(view_of_view))


@pytest.mark.parametrize(
    ("name", "near"),
    [("matmull", "'matmul'"), ("view_of_views", "'view_of_view'"), ("view_onze", "'view_once'"), ("", "known: ")],
)
def test_unknown_names_to_disable(name, near):
    with pytest.raises(OptionError, match=f"names {name!r}, which is no law or family") as caught:
        load(declared(view_once), disable=[name])
    assert near in str(caught.value)


def test_disabling_by_law_declaration_and_family():
    laws = law("F(v := view(x))", F=[Place("relu", 1)], example="F(view([2, 6], shape=[12]))")(through)
    assert names(load(laws)) == ["through[relu]"]
    for name in ("through[relu]", "through", "test_user_laws"):
        assert load(laws, disable=[name]).laws == ()


def through(t, v, x):
    """relu(view(x)) = view(relu(x))"""
    return t.view(t.apply("relu", [x]), v.shape)


def test_bodies_are_in_the_key_of_the_cache():
    def made(number):
        def view_once(t, v, x):
            """view(view(x)) = view(x)"""
            return t.view(x, v.shape) if number else None

        return declared(view_once)

    def uuid(*laws, disable=()):
        options, _ = Options.parse({"eqsat.laws": laws, "eqsat.disable": disable})
        return backend.EqsatPass(options, False, [], [], load_laws(options)).uuid()

    assert uuid(made(1)) == uuid(made(1))
    assert len({uuid(), uuid(made(1)), uuid(made(2)), uuid(disable=["matmul"]), uuid(made(1), disable=["matmul"])}) == 5


def test_public_names_are_loaded_when_they_are_used():
    code = (
        "import sys, torch_eqsat\n"
        "assert set(torch_eqsat.__all__) >= {'law', 'equation', 'siblings', 'verify'}\n"
        "assert not {'torch', 'egglog', 'torch_eqsat.laws.law'} & set(sys.modules)\n"
        "torch_eqsat.law, torch_eqsat.equation, torch_eqsat.siblings\n"
        "import torch_eqsat.user_laws\n"
        "assert not {'torch', 'egglog'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert torch_eqsat.verify(declared(view_once), draws=2) == 1
    with pytest.raises(AttributeError, match="'torch_eqsat' has no attribute 'theorems'"):
        _ = torch_eqsat.theorems
