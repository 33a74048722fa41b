"""The searches of a graph's regions, and the measurements between them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, repeat

from torch_eqsat.cost.inductor.residency import RESIDENT, Residency
from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.model import Missing
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.programs import captured_program, changed_ms, cost_of, residency_of, unmeasured
from torch_eqsat.cost.targets import HERE
from torch_eqsat.cost.terms import TermPrices
from torch_eqsat.ir.program import Task
from torch_eqsat.options import PREFIX
from torch_eqsat.planning.setting import Setting
from torch_eqsat.planning.spent import Spent
from torch_eqsat.search.hints import Hint, gathered, hint_of
from torch_eqsat.search.limits import Budget, Limits, StopReason, playouts
from torch_eqsat.search.partition import Partition
from torch_eqsat.search.worker.messages import Outcome, RepriceRequest, SearchRequest
from torch_eqsat.search.worker.pool import OVERRUN_SECONDS, WorkerPool

logger = logging.getLogger(__name__)

UNLIMITED = 1e6  # s; where time must not count

Times = Callable[[Sequence[Kernel], float], dict[str, float]]
"""Given kernels and a deadline (of time.monotonic(), s): those of their times in ms that can be had, by key."""


class Planner:
    """Searches regions with a pool of workers, measuring kernels between searches and never while one runs."""

    def __init__(
        self, setting: Setting, spent: Spent, pool: WorkerPool, times: Times, residency: Residency = RESIDENT
    ) -> None:
        self.setting, self.spent, self.pool = setting, spent, pool
        self.parameters = setting.parameters
        self._residency = residency
        self._times = times
        self._waits = setting.options.deterministic or setting.options.target != HERE
        self.prices: dict[str, float] = {}
        self._end = math.inf

    def search(self, partition: Partition) -> dict[str, Outcome]:
        """The best program of each group of equal regions, all of whose kernels are measured if time allows."""
        tasks = [partition.task_of(group) for group in partition.groups]
        self._measure_originals(tasks)
        weights = list(partition.weights(partition.captured(self.pricing())).values())
        outcomes = self._searched(tasks, weights)
        if not self.pool.interrupted:  # otherwise it ends with the best it has found, at prices as they are
            counts = [len(regions) for regions in partition.groups.values()]
            outcomes = self._priced_again(tasks, outcomes, counts)
        self.spent.search_seconds += sum(outcome.seconds for outcome in outcomes)
        if self.pool.interrupted:  # which left prices unmeasured, although the searches had ended by themselves
            outcomes = [outcome.cut_short(StopReason.INTERRUPTED) for outcome in outcomes]
        return dict(zip(partition.groups, outcomes, strict=True))

    def _searched(self, tasks: Sequence[Task], weights: Sequence[float]) -> list[Outcome]:
        """The best programs of ``tasks`` at today's prices; the time is shared by ``weights``."""
        options = self.setting.options
        self._end = time.monotonic() + options.seconds - self.spent.measure_seconds
        budget = Budget(self.parameters.search_share * options.seconds, weights, self.pool.workers)
        # Heavy regions first. They leave time to the others; when small ones came first, and took longer than their
        # share because the machine was busy, half the regions of mobileone_s0 got none.
        order = sorted(range(len(tasks)), key=lambda i: (-weights[i], i))
        alike = [[order[i] for i in group] for group in gathered([tasks[i].graph for i in order])]
        found: dict[int, Outcome] = {}
        # Of regions that are equal up to sizes the heaviest is searched first, with the playouts of all, and tells the
        # others what it found.
        for members in ([(group[0], group) for group in alike], [(i, group) for group in alike for i in group[1:]]):
            requests = []
            for i, group in members:
                leader = found.get(group[0])
                hint = None if leader is None else hint_of(leader.program, leader.base_cost)
                weight = sum(weights[member] for member in group) if leader is None else None
                requests.append(partial(self._request, tasks[i], weights[i], sum(weights), budget, weight, hint))
            answers = self.pool.map(requests, self._time_up() + OVERRUN_SECONDS)
            found |= zip((i for i, _ in members), answers, strict=True)
        for problem in dict(chain.from_iterable(outcome.dropped for outcome in found.values())).values():
            logger.warning("the search went on without a law of %slaws: %s", PREFIX, problem)
        return [found[i] for i in range(len(tasks))]

    def _priced_again(self, tasks: Sequence[Task], outcomes: list[Outcome], counts: Sequence[int]) -> list[Outcome]:
        """The best programs once kernels are measured, at the prices of whole programs; of each of ``tasks`` there are
        so many regions."""
        before = self.pricing(whole=True)
        outcomes = self._extracted(tasks, outcomes)
        self._reside(tasks, outcomes, counts)
        # Convolutions of Winograd's have up to four times the weights: the last ones of resnet18 left the cache, and
        # took 2.9 ms where 1.2 were predicted and the plain ones took 2.1.
        if self.pricing().is_colder_than(before):
            # Which kernels are missing at these prices.
            outcomes = self._reprice(tasks, outcomes, self.pricing())
            outcomes = self._extracted(tasks, outcomes)
        outcomes = self._reprice(tasks, outcomes, self._doubtful(), self._thorough_seconds(outcomes), anneal=True)
        extracted = self.pricing()
        self._reside(tasks, outcomes, counts)
        outcomes = self._settled(tasks, outcomes, before, bounded=not extracted.is_colder_than(self.pricing()))
        self._reside(tasks, outcomes, counts)
        met = {kernel.key for outcome in outcomes for kernel in outcome.missing}
        self.spent.kernels_left = 0 if self._waits else len(met - self.prices.keys())
        return outcomes

    def _extracted(self, tasks: Sequence[Task], outcomes: list[Outcome]) -> list[Outcome]:
        """The best programs once kernels are measured, of those that save more than is in doubt."""
        return self._reprice(tasks, self._at_measured_prices(tasks, outcomes), self._doubtful())

    def _reside(self, tasks: Sequence[Task], outcomes: Sequence[Outcome], counts: Sequence[int]) -> None:
        """From now on prices are those of calls that go through the weights of these programs."""
        everywhere = chain.from_iterable(
            repeat(residency_of(t, o.program, frozen=self.setting.frozen), n)
            for t, o, n in zip(tasks, outcomes, counts, strict=True)
        )
        self._residency = sum(everywhere, RESIDENT)

    def _time_up(self) -> float:
        """When the time of the search is over (of time.monotonic(), s); what is measured meanwhile does not count."""
        return time.monotonic() + UNLIMITED if self._waits else self._end + self.spent.measure_seconds

    def _at_measured_prices(self, tasks: Sequence[Task], outcomes: list[Outcome]) -> list[Outcome]:
        """Measure what the programs need, then what might make better ones, cheap kernels first, and extract again;
        until the time is over."""
        took = 0.0
        for _ in range(self.parameters.reprice_rounds):
            needed = [kernel for o in outcomes for kernel in o.unmeasured]
            others = sorted((k for o in outcomes for k in o.missing), key=self.pricing().estimate_ms)
            found = self._measure(needed, self.parameters.needed_share)
            if found + self._measure(others, self.parameters.others_share) == 0:
                break
            if time.monotonic() + 2 * took > self._time_up():  # another one is made at the end
                break
            start = time.monotonic()
            outcomes = self._reprice(tasks, outcomes, self.pricing())  # which says what to measure next
            took = time.monotonic() - start
        return outcomes

    def _measure(self, kernels: Iterable[Kernel], share: float = 1.0) -> int:
        """Measure what is not priced yet, in this share of the time that is left; how many prices are new."""
        unused = self.setting.options.measure_seconds - self.spent.measure_seconds
        left = math.inf if self._waits else share * unused
        wanted = [kernel for kernel in kernels if kernel.key not in self.prices]
        if not wanted or left <= 0 or self.pool.interrupted:
            return 0
        with self.spent.measuring():
            found = self._times(wanted, time.monotonic() + left)
        new = set(found) - set(self.prices)
        self.prices.update(found)
        self.spent.kernels_measured += 0 if self._waits else len(new)
        return len(new)

    def _measure_originals(self, tasks: Sequence[Task]) -> None:
        """Measure the kernels that the graph runs now, what every saving is compared with."""
        missing: Missing = {}
        for task in tasks:
            captured_program(task, self.pricing(), missing)
        self._measure(missing.values())
        missing.clear()
        for task in tasks:  # and what else could compute the same
            prices = TermPrices(task.graph, self.pricing(), missing=missing)
            for term in range(len(task.graph)):
                prices(term)
        self._measure(missing.values())

    def pricing(self, *, whole: bool = False) -> Pricing:
        """Prices as they are known now, of e-nodes or of the terms of ``whole`` programs."""
        return self.setting.pricing(self.prices, self._residency, whole=whole)

    def _doubtful(self) -> Pricing:
        """Prices by which each rewriting has to save more than is in doubt of its own work, so that none rides along on
        others: resnet18 with live weights got 542 new calls for 2 %. All together have to save more than is in doubt of
        what they take away too."""
        chosen, doubts = self.parameters, not self.setting.options.measure
        heavy, fused = doubts * chosen.kernel_doubt, doubts * chosen.fused_doubt
        distrust = 0.0 if self._waits else chosen.distrust_ms
        return replace(self.pricing(), distrust_ms=distrust, heavy_doubt=heavy, fused_doubt=fused)

    def _request(
        self,
        task: Task,
        weight: float,
        all_weights: float,
        budget: Budget,
        shared_weight: float | None = None,
        hint: Hint | None = None,
    ) -> SearchRequest:
        options = self.setting.options
        shared = playouts(options.simulations, weight if shared_weight is None else shared_weight, all_weights)
        limits = Limits(options.nodes, budget.share(weight), shared)
        if options.deterministic:
            part = weight / all_weights if all_weights > 0 else 1.0
            seconds = part * self.parameters.search_share * options.seconds
            limits = replace(limits, seconds=UNLIMITED, work=seconds * self.parameters.work_per_second)
        disabled = frozenset(options.disable)
        return SearchRequest(
            task,
            self.pricing(),
            limits,
            options.exactness,
            disabled,
            options.seed,
            options.strategy,
            self.setting.user_laws,
            frozenset(options.assume),
            self.parameters,
            hint,
        )

    def _reprice(
        self,
        tasks: Sequence[Task],
        outcomes: Sequence[Outcome],
        pricing: Pricing,
        milp: Sequence[float] | None = None,
        *,
        anneal: bool = False,
    ) -> list[Outcome]:
        """Extract again at the prices given, with as many seconds for exact extraction as ``milp`` says (below 0 for no
        extraction), and with annealing if asked to ``anneal``."""
        milp = [0.0] * len(tasks) if milp is None else milp
        possible = [i for i, outcome in enumerate(outcomes) if outcome.extractables and milp[i] >= 0]
        seed, until = self.setting.options.seed, self._time_up() + OVERRUN_SECONDS
        # What is left of the time is shared, with as much again for sending and reading.
        left = self.pool.workers * max(self._time_up() - time.monotonic(), 0.0) / 2
        leisure = left / max(1, sum(len(outcomes[i].extractables) for i in possible))
        leisure = UNLIMITED if self._waits else max(0.0, min(self.parameters.leisure_seconds, leisure))
        requests = []
        for i in possible:
            rounds = self.parameters.annealing_rounds * anneal
            given = tasks[i], outcomes[i], pricing, seed, milp[i], leisure, self.parameters, rounds
            requests.append(partial(RepriceRequest, *given))
        again = dict(zip(possible, self.pool.map(requests, until), strict=True))
        return [again.get(i, outcome) for i, outcome in enumerate(outcomes)]

    def _thorough_seconds(self, outcomes: Sequence[Outcome]) -> list[float]:
        """For each outcome the seconds of its exact extraction, 0 for one that only anneals, -1 where its e-graphs are
        too large for both, so that nothing would change. Those that save most come first."""
        chosen = self.parameters
        least = [min((len(e.snapshot.nodes) for e in outcome.extractables), default=0) for outcome in outcomes]
        seconds = [0.0 if nodes <= chosen.annealed_nodes else -1.0 for nodes in least]
        if self.setting.options.deterministic:  # an exact extraction ends by the clock
            return seconds
        left = max(0.0, self._time_up() - time.monotonic())
        for i in sorted(range(len(outcomes)), key=lambda i: outcomes[i].program.cost - outcomes[i].base_cost):
            saves = outcomes[i].program.cost < outcomes[i].base_cost
            if saves and least[i] <= chosen.exact_nodes and left >= chosen.exact_needs:
                seconds[i] = chosen.exact_seconds
                left -= seconds[i]
        return seconds

    def _settled(
        self, tasks: Sequence[Task], outcomes: Sequence[Outcome], before: Pricing, *, bounded: bool
    ) -> list[Outcome]:
        """The outcomes at the prices of whole programs: what an e-node's price cannot know is what else uses its
        operands, how they lie in memory, and how many weights there are once others were folded. The original, at the
        prices of ``before``, where what is saved is in doubt. The lower bounds of the outcomes hold if ``bounded``.
        """
        unknown: Missing = {}
        for task, outcome in zip(tasks, outcomes, strict=True):
            cost_of(task, outcome.program, self.pricing(whole=True), unknown)
        self._measure(unknown.values())
        after = self.pricing(whole=True)
        before = replace(before, measured=dict(self.prices))
        outcomes = [o if bounded else replace(o, lower_bound=0.0) for o in outcomes]
        return [self._beyond_doubt(t, o, before, after) for t, o in zip(tasks, outcomes, strict=True)]

    def _beyond_doubt(self, task: Task, outcome: Outcome, before: Pricing, after: Pricing) -> Outcome:
        """``outcome``, or the original where too little is saved or the program relies on estimates, which are
        optimistic; where all that both have are estimates, they are compared as they are."""
        missing: Missing = {}
        captured, cost = captured_program(task, before, missing), cost_of(task, outcome.program, after)
        guessed = bool(unmeasured(outcome.program, after)) and not (self._waits and missing)
        doubt = 0.0
        if not self.setting.options.measure:
            heavy, rest = changed_ms(task, outcome.program, before)
            doubt = self.parameters.kernel_doubt * heavy + self.parameters.fused_doubt * rest
        saves = captured.cost - cost > doubt and not guessed
        program = replace(outcome.program, cost=cost) if saves else captured
        bound = 0.0 if guessed else min(outcome.lower_bound, program.cost)
        return replace(outcome, program=program, base_cost=captured.cost, lower_bound=bound)
