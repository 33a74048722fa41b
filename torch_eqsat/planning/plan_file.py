"""What a plan's file holds, and how one that was damaged or edited is known: JSON with a digest of its contents."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from typing_extensions import TypeAliasType

from torch_eqsat.errors import PlanError
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
    """A program as :func:`torch_eqsat.planning.plan.encode_program` writes it."""

    nodes: list[tuple[str, dict[str, _Value], list[_Count]]]
    types: list[tuple[list[_Size], str] | None]
    constant: list[bool]
    roots: list[_Count]
    origin: list[Annotated[int, Field(ge=-1, lt=2**31)]]


class StoredPlan(_Strict):
    """A plan: predicted times (ms) of the original and the program, the regions' searches, the program, where both
    graphs were timed the race, and what the judge said of it, by fingerprints of programs and weights."""

    base_ms: _Milliseconds
    best_ms: _Milliseconds
    regions: list[RegionReport]
    program: StoredProgram
    race: RaceReport | None = None
    verdicts: dict[str, str] = {}


class _File(_Strict):
    format: Literal[2]
    digest: str
    plan: dict[str, Any]


def seal(key: str, plan: dict[str, Any]) -> bytes:
    """The file of a plan. Raises PlanError for one that is larger than plans may be."""
    text = json.dumps({"format": FORMAT, "digest": _digest(key, _canonical(plan)), "plan": plan}, indent=1)
    if len(raw := text.encode()) > LARGEST_PLAN:
        raise PlanError(f"it has {len(raw)} bytes, more than {LARGEST_PLAN}")
    return raw


def unseal(key: str, raw: bytes) -> dict[str, Any]:
    """The plan in a file. Raises PlanError, in one line, for what :func:`seal` did not write for this key."""
    if len(raw) > LARGEST_PLAN:
        raise PlanError(f"it has {len(raw)} bytes, more than {LARGEST_PLAN}")
    try:
        file = _File.model_validate(from_json(raw))
        canonical = _canonical(file.plan)
        if file.digest != _digest(key, canonical):
            raise PlanError("its digest is not that of its contents")
        StoredPlan.model_validate_json(canonical)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise PlanError(f"{place or 'the file'}: {first['msg']}".replace("\n", " ")[:200]) from error
    except (ValueError, RecursionError) as error:
        raise PlanError(str(error).partition("\n")[0][:200]) from error
    return file.plan


def _canonical(plan: dict[str, Any]) -> bytes:
    return json.dumps(plan, sort_keys=True, separators=(",", ":")).encode()


def _digest(key: str, canonical: bytes) -> str:
    return hashlib.sha256(f"{FORMAT} {key} ".encode() + canonical).hexdigest()
