"""What a plan's file holds, and how one that was damaged or edited is known: JSON with a digest of its contents."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from typing_extensions import TypeAliasType

from torch_eqsat.errors import PlanError
from torch_eqsat.planning.plans.plan import Plan
from torch_eqsat.planning.plans.program_json import decode_program, encode_program
from torch_eqsat.report import RaceReport, RegionReport

FORMAT = 2
LARGEST_PLAN = 64 * 2**20  # bytes of a file; programs of 10,000 calls take about 3 MiB

_Count = Annotated[int, Field(ge=0, lt=2**31)]
_Size = Annotated[int, Field(ge=0, lt=2**63)]
_Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _no_integer(value: object) -> object:
    """Keep an integer that is too large for 64 bits from becoming an infinity."""
    if isinstance(value, int):
        raise ValueError("an integer of more than 64 bits")
    return value


_Float = Annotated[float, BeforeValidator(_no_integer)]
_Value = TypeAliasType("_Value", "bool | _Integer | _Float | str | list[_Value] | None")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class StoredProgram(_Strict):
    """A program as :func:`torch_eqsat.planning.plans.program_json.encode_program` writes it."""

    nodes: list[tuple[str, dict[str, _Value], list[_Count]]]
    types: list[tuple[list[_Size], str] | None]
    constant: list[bool]
    roots: list[_Count]
    origin: list[Annotated[int, Field(ge=-1, lt=2**31)]]


class StoredPlan(_Strict):
    """A :class:`torch_eqsat.planning.plans.plan.Plan` as :func:`plan_to_json` writes it."""

    base_ms: _Milliseconds
    best_ms: _Milliseconds
    regions: list[RegionReport]
    program: StoredProgram
    race: RaceReport | None = None
    verdicts: dict[str, str] = {}
    begun: dict[str, list[str]] = {}


class _File(_Strict):
    format: Literal[2]
    digest: str
    plan: dict[str, Any]


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """A plan as JSON values."""
    values: dict[str, Any] = {
        "base_ms": plan.base_ms,
        "best_ms": plan.best_ms,
        "regions": [{**vars(region), "laws": dict(region.laws)} for region in plan.regions],
        "program": encode_program(plan.program, plan.origin),
    }
    if plan.race is not None:
        values["race"] = dict(vars(plan.race))
    if plan.verdicts:
        values["verdicts"] = dict(plan.verdicts)
    if plan.begun:
        values["begun"] = {key: list(tried) for key, tried in plan.begun.items()}
    return values


def plan_from_json(values: dict[str, Any]) -> Plan:
    """The plan that :func:`plan_to_json` wrote. Raises ValidationError for values of other types and PlanError for a
    program that no search can have written."""
    StoredPlan.model_validate_json(_canonical(values))
    program, origin = decode_program(values["program"])
    race = values.get("race")
    return Plan(
        values["base_ms"],
        values["best_ms"],
        tuple(RegionReport(**region) for region in values["regions"]),
        program,
        origin,
        RaceReport(**race) if race else None,
        values.get("verdicts", {}),
        {key: tuple(tried) for key, tried in values.get("begun", {}).items()},
    )


def seal(key: str, plan: Plan) -> bytes:
    """The file of a plan. Raises PlanError for one that is larger than plans may be."""
    return seal_json(key, plan_to_json(plan))


def seal_json(key: str, plan: dict[str, Any]) -> bytes:
    """The file of a plan that is given as JSON values."""
    text = json.dumps({"format": FORMAT, "digest": _digest(key, _canonical(plan)), "plan": plan}, indent=1)
    if len(raw := text.encode()) > LARGEST_PLAN:
        raise PlanError(f"it has {len(raw)} bytes, more than {LARGEST_PLAN}")
    return raw


def unseal(key: str, raw: bytes) -> Plan:
    """The plan in a file. Raises PlanError, in one line, for what :func:`seal` did not write for this key."""
    if len(raw) > LARGEST_PLAN:
        raise PlanError(f"it has {len(raw)} bytes, more than {LARGEST_PLAN}")
    try:
        file = _File.model_validate(from_json(raw))
        if file.digest != _digest(key, _canonical(file.plan)):
            raise PlanError("its digest is not that of its contents")
        return plan_from_json(file.plan)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise PlanError(f"{place or 'the file'}: {first['msg']}".replace("\n", " ")[:200]) from error
    except Exception as error:  # whatever a file holds, it is refused
        raise PlanError(str(error).partition("\n")[0][:200]) from error


def _canonical(plan: dict[str, Any]) -> bytes:
    return json.dumps(plan, sort_keys=True, separators=(",", ":")).encode()


def _digest(key: str, canonical: bytes) -> str:
    return hashlib.sha256(f"{FORMAT} {key} ".encode() + canonical).hexdigest()
