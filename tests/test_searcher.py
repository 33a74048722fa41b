"""The searcher between its workers and its measurements."""

import logging

import pytest

from torch_eqsat.options import Options
from torch_eqsat.report import GraphReport
from torch_eqsat.search.pool import gave_up
from torch_eqsat.search.regions import split_into_regions
from torch_eqsat.searcher import Searcher, Setting


class InterruptedPool:
    """A pool whose searches the user interrupts."""

    workers = 1
    interrupted = False

    def map(self, requests):
        self.interrupted = True
        return [gave_up(request(), "interrupted") for request in requests]


@pytest.fixture
def regions(task_of):
    return split_into_regions(task_of(lambda x, a, b: (x @ a) @ b, (64, 32), (32, 64), (64, 4)))


def test_nothing_is_measured_after_an_interrupt(regions, caplog):
    measured = []
    pool = InterruptedPool()

    def measure(kernels, until):
        measured.append(pool.interrupted)
        return {kernel.key: 1.0 for kernel in kernels}

    searcher = Searcher(Setting(Options(), True, "cpu", 1, "key"), GraphReport(2, True), pool, measure)
    with caplog.at_level(logging.WARNING, logger="torch_eqsat"):
        (outcome,) = searcher.search([regions])
    assert measured == [False]
    assert outcome.stop == "interrupted" and outcome.program.cost == outcome.base_cost
    assert [record.message.split(":")[0] for record in caplog.records] == ["interrupted"]
