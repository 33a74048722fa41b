"""Candidates timed in turn, on a clock that the candidates themselves move."""

import pytest

from torch_eqsat.planning.race import BLOCKS, Contest, contest


class Machine:
    """A clock, and work that takes ``ms`` of it, or what ``disturbed`` makes of that at the time."""

    def __init__(self, disturbed=lambda now, ms: ms):
        self.now, self.order, self._disturbed = 0.0, [], disturbed

    def work(self, name, ms):
        def call():
            self.order.append(name)
            self.now += self._disturbed(self.now, ms) / 1e3

        return call

    def contest(self, *times, seconds=1.0):
        calls = [self.work(name, ms) for name, ms in enumerate(times)]
        return contest(calls, seconds, lambda: self.now, lambda: self.now)


def test_the_faster_of_two():
    found = Machine().contest(5.0, 4.9)
    assert found.ms == pytest.approx((5.0, 4.9))
    assert found.faster(1, 0) and not found.faster(0, 1)


def test_equal_ones_are_undecided():
    found = Machine().contest(5.0, 5.0)
    assert found.ms[0] == pytest.approx(found.ms[1])
    jittered = Contest((5.0, 5.01), ((5.0, 5.1, 5.0), (5.1, 5.0, 5.1)))
    assert not jittered.faster(0, 1) and not jittered.faster(1, 0)


def test_a_disturbance_meets_all():
    """Half of the time the machine is four times as slow: measured one after the other, the slower one would win."""
    found = Machine(lambda now, ms: 4 * ms if now < 0.5 else ms).contest(5.0, 4.0)
    assert found.faster(1, 0)


def test_noise_beyond_the_difference_refuses():
    machine = Machine()
    noise = iter([1.0, 1.3, 1.2, 0.9, 1.1, 1.4, 0.8] * 1000)
    machine._disturbed = lambda now, ms: ms * next(noise)
    found = machine.contest(500.0, 499.0, seconds=0.0)
    assert not found.faster(0, 1) and not found.faster(1, 0)


def test_a_long_call_still_gets_all_blocks():
    machine = Machine()
    found = machine.contest(10_000.0, 20_000.0)
    assert [len(blocks) for blocks in found.blocks] == [BLOCKS, BLOCKS]
    assert len(machine.order) == 2 * (2 + BLOCKS)  # a warm-up, a look at how long it takes, a round for each block


def test_short_calls_are_repeated():
    machine = Machine()
    machine.contest(0.01, 0.01, seconds=0.1)
    assert machine.order[4:104] == [0] * 100
