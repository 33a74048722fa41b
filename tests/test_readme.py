"""What the README says of options is what the code says, and its example of a law runs."""

import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch._inductor.utils import fresh_cache

import torch_eqsat
from torch_eqsat import report
from torch_eqsat.options import PREFIX, Options

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def text():
    if not README.exists():
        pytest.skip("not in a checkout: there is no README.md beside the tests")
    return README.read_text(encoding="utf-8")


def test_table_of_options(text):
    rows = [f"| `{PREFIX}{f.name}` | `{f.default!r}` | {f.metadata['help']} |" for f in fields(Options)]
    assert "\n".join(rows) in text


def test_calls_in_the_text(text, fresh):
    """What stands in the text as `torch_eqsat...(...)` runs."""
    given = {"torch_eqsat": torch_eqsat, "model": torch.nn.Linear(8, 8), "x": torch.rand(2, 8)}
    calls = [call for call in re.findall(r"`(torch_eqsat[^`\n]*\))`", text) if not call.endswith("()")]
    assert calls
    for call in calls:
        assert "graph of" in str(eval(call, given))


@pytest.mark.slow
def test_law_of_the_reader(text, tmp_path, monkeypatch, one_thread):
    monkeypatch.setenv("TORCH_EQSAT_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    example = text.partition("<!-- laws -->\n```python\n")[2].partition("```\n<!-- /laws -->")[0]
    (tmp_path / "example_of_the_readme.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    a, b = torch.randn(2000, 4), torch.randn(4, 2000)
    with torch.no_grad(), fresh_cache():  # what another run compiled has no report
        module = import_module("example_of_the_readme")
        torch.testing.assert_close(module.energy(a, b), (a @ b).square().sum(), rtol=1e-4, atol=0.0)
    (only,) = report.last_reports()
    assert only.changed and "energy_of_product" in only.laws
