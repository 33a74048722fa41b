"""What the README says of options is what the code says."""

from dataclasses import fields
from pathlib import Path

import pytest

from torch_eqsat.options import PREFIX, Options

README = Path(__file__).parent.parent / "README.md"


def test_table_of_options():
    if not README.exists():
        pytest.skip("not in a checkout: there is no README.md beside the tests")
    rows = [f"| `{PREFIX}{f.name}` | `{f.default!r}` | {f.metadata['help']} |" for f in fields(Options)]
    assert "\n".join(rows) in README.read_text(encoding="utf-8")
