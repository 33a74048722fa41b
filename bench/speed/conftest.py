"""Options and the closing table of the pytest-benchmark suite; the Makefile has the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.models.cases import CASES, Case, named
from bench.speed import report, runner
from bench.speed.process import VariantError

Outcomes = dict[str, runner.Outcome]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the runner that make sense for a suite."""
    group = parser.getgroup("torch_eqsat")
    group.addoption("--case", action="append", default=[], choices=list(CASES), help="a case to time; may be repeated")
    group.addoption("--rounds", type=int, default=7, help="turns of each variant; fewer for a slow case")
    group.addoption("--out", type=Path, default=report.RESULTS, help="the JSON file that rows are merged into")
    group.addoption("--readme", action="store_true", help="put the table into README.md")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Case by case, and of each case variant by variant."""
    if "case" in metafunc.fixturenames:
        pairs = [(case, variant) for case in named(metafunc.config.getoption("case")) for variant in report.COMPARED]
        metafunc.parametrize(("case", "variant"), pairs, ids=[f"{case.name}-{variant}" for case, variant in pairs])


class Measurements:
    """The outcomes of the cases asked for; each is measured once, for all of its variants together."""

    def __init__(self, config: pytest.Config, where: runner.Caches) -> None:
        self._config = config
        self._where = where
        self._known: dict[str, Outcomes | VariantError] = {}

    def __getitem__(self, case: Case) -> Outcomes:
        if case.name not in self._known:
            self._known[case.name] = self._measure(case)
        known = self._known[case.name]
        if isinstance(known, VariantError):
            raise known
        return known

    def _measure(self, case: Case) -> Outcomes | VariantError:
        rounds = self._config.getoption("rounds")
        try:
            outcomes = runner.measure(case, report.COMPARED, rounds, self._where, runner.progress)
        except VariantError as error:
            return error
        report.save(self._config.getoption("out"), [runner.row_of(case, outcomes)], list(CASES))
        return outcomes


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> Iterator[Measurements]:
    """The outcomes of the cases."""
    with runner.caches() as where:
        yield Measurements(request.config, where)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of all cases in the JSON file, after that of pytest-benchmark."""
    rows = report.load(config.getoption("out"))
    if not rows:
        return
    terminalreporter.write_line(f"\n{runner.summary(rows)}")
    if config.getoption("readme"):
        report.fill_readme(runner.README, runner.readme_text(rows))
