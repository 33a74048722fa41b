"""The built wheel works elsewhere: the catalogue lies at the top of the checkout and inside the package of a wheel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import torch_eqsat

CHECKOUT = Path(__file__).parent.parent
USE = """
import torch_eqsat, torch_eqsat.rewrites, torch_eqsat.search.worker.process
assert torch_eqsat.__file__.startswith({folder!r}), torch_eqsat.__file__
assert torch_eqsat.rewrites.__file__.startswith({folder!r}), torch_eqsat.rewrites.__file__
print(len(torch_eqsat.rewrites.catalogue()))
"""


@pytest.mark.slow
def test_wheel(tmp_path):
    if not (CHECKOUT / "pyproject.toml").exists():
        pytest.skip("not in a checkout: there is no pyproject.toml beside the tests")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    pytest.importorskip("setuptools", reason="setuptools builds the wheel")
    subprocess.run([*pip, str(CHECKOUT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    folder = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(folder)
    assert (folder / "torch_eqsat" / "py.typed").exists()
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", USE.format(folder=str(folder))]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 60


def test_citation_names_this_version():
    citation = CHECKOUT / "CITATION.cff"
    if not citation.exists():
        pytest.skip("not in a checkout: there is no CITATION.cff beside the tests")
    assert f"version: {torch_eqsat.__version__}" in citation.read_text(encoding="utf-8").splitlines()
