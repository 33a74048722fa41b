"""Each rewrite that pays is found by the search; each that does not is refused."""

from __future__ import annotations

import pytest
import torch

from bench.laws.hand_rewrites.evaluate import evaluate, use_recorded_times
from bench.laws.hand_rewrites.row import Row
from bench.laws.hand_rewrites.table import ROWS

each_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
# Those that take over 3 s; most take 1 s.
SLOW = {"mobileone_dense", "mobileone_depthwise", "lstm_b16_trained", "lstm_b16_unfrozen"}


@pytest.fixture(autouse=True)
def one_thread(tmp_path_factory, monkeypatch):
    """One thread, and a table of recorded kernel times, so that a busy machine decides as a quiet one."""
    folder = tmp_path_factory.getbasetemp() / "kernel_times"
    monkeypatch.setenv("TORCH_EQSAT_CACHE_DIR", str(folder))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if not folder.exists():
        use_recorded_times()
    yield
    torch.set_num_threads(threads)
    torch.compiler.reset()


@each_row
def test_both_forms_compute_the_same(row: Row):
    original, hand, inputs = row.build(torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(_outputs(hand(*inputs)), _outputs(original(*inputs)), rtol=1e-12, atol=1e-12)


def _outputs(value) -> list[torch.Tensor]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=[pytest.mark.slow] * (name in SLOW)) for name, row in ROWS.items()], ids=ROWS
)
def test_search_does_as_the_hand(row: Row):
    verdict = evaluate(row, deterministic=True)
    assert verdict.error < 1e-4, verdict
    assert verdict.priced, f"the prices do not order the two forms as the clock does: {verdict}"
    if row.out_of_reach:
        assert not verdict.reached, f"in reach now, drop the reason why it is not: {verdict}"
    else:
        assert verdict.reached, verdict
