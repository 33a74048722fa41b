"""E-graphs belong to the thread that made them."""

import gc

import pytest


@pytest.fixture(autouse=True)
def egraphs_end_in_their_thread():
    """What a test left behind is collected here, not in a thread of the next test, where egglog refuses to drop it."""
    yield
    gc.collect()
