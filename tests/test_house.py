"""The sizes that CONTRIBUTING.md sets for functions, modules and folders."""

import ast
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
FUNCTION_LINES, MODULE_LINES, FOLDER_FILES = 50, 300, 14
FLAT = {CHECKOUT / "rewrites"}  # a reader finds a family by its name, in one list


@pytest.fixture
def modules():
    if not (CHECKOUT / "pyproject.toml").exists():
        pytest.skip("not in a checkout: there is no pyproject.toml beside the tests")
    return [
        path for folder in ("torch_eqsat", "rewrites", "bench", "tests") for path in (CHECKOUT / folder).rglob("*.py")
    ]


def test_modules_are_short(modules):
    sizes = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    assert not {path: size for path, size in sizes.items() if size > MODULE_LINES}


def test_functions_fit_a_screen(modules):
    found = {
        f"{path}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in modules
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert not {function: size for function, size in found.items() if size > FUNCTION_LINES}


def test_folders_are_small(modules):
    folders = {path.parent for path in modules} - FLAT
    sizes = {str(folder): sum(entry.is_file() for entry in folder.iterdir()) for folder in folders}
    assert not {folder: size for folder, size in sizes.items() if size > FOLDER_FILES}
