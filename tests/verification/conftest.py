"""What tests of the judge share."""

import pytest

from torch_eqsat.verification.judge import disagreement


@pytest.fixture
def judged(trace):
    """The disagreement of two functions on inputs, in words."""

    def judged_(original, rewritten, *inputs):
        return disagreement(trace(original, *inputs), trace(rewritten, *inputs), inputs)

    return judged_
