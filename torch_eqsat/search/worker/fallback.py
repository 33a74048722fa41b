"""What is answered where a search or a repricing could not answer."""

from __future__ import annotations

from dataclasses import replace

from torch_eqsat.cost.model import Missing
from torch_eqsat.cost.programs import captured_program, cost_of, unmeasured
from torch_eqsat.errors import WorkerError
from torch_eqsat.search.limits import StopReason
from torch_eqsat.search.worker.channel import LateError
from torch_eqsat.search.worker.messages import Outcome, Request, SearchRequest


def stop_of(error: WorkerError) -> StopReason:
    """Why a search stopped whose worker met ``error``."""
    return StopReason.LATE if isinstance(error, LateError) else StopReason.FAILED


def gave_up(request: Request, stop: StopReason, detail: str = "", *, transient: bool = True) -> Outcome:
    """The answer without a search: the captured program; for a repricing the program known before, at today's prices,
    if it is still the better one. ``transient`` says that another try may do better, ``detail`` what happened."""
    met: Missing = {}
    captured = captured_program(request.task, request.pricing, met)
    if isinstance(request, SearchRequest):
        return Outcome(
            program=captured,
            base_cost=captured.cost,
            lower_bound=0.0,
            unmeasured=(),
            missing=tuple(met.values()),
            stop=stop,
            simulations=0,
            nodes=0,
            seconds=0.0,
            curve=((0.0, captured.cost),),
            transient=transient,
            detail=detail,
        )
    known = request.outcome.program
    program = replace(known, cost=cost_of(request.task, known, request.pricing, met))
    program = program if program.cost < captured.cost else captured
    return replace(
        request.outcome,
        program=program,
        base_cost=captured.cost,
        lower_bound=0.0,
        unmeasured=unmeasured(program, request.pricing),
        missing=tuple(met.values()),
        stop=stop,
        detail=detail,
        transient=transient or request.outcome.transient,
    )
