"""Plans on disk: the chosen program of each graph, readable JSON, found again by what it depends on."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from torch_eqsat.cost.folder import cache_folder, sweep, tell_trouble
from torch_eqsat.errors import PlanError
from torch_eqsat.planning.plans.artifacts import offer, offered, plan_name
from torch_eqsat.planning.plans.plan import Plan
from torch_eqsat.planning.plans.plan_file import FORMAT, LARGEST_PLAN, seal, unseal

logger = logging.getLogger(__name__)


def plan_path(key: str) -> Path:
    """Where the plan with ``key`` lies, beside the table of kernel times. Raises OSError where no folder can be had."""
    return cache_folder() / f"plans-v{FORMAT}" / f"{key}.json"


def load_plan(key: str) -> Plan | None:
    """The stored plan, or None when there is none. One that was damaged is removed, with a line in the log."""
    try:
        path = plan_path(key)
        with path.open("rb") as file:
            raw = file.read(LARGEST_PLAN + 1)
    except FileNotFoundError:
        return _loaded_with_artifacts(key)
    except OSError as error:
        tell_trouble(error)
        return None
    try:
        plan = unseal(key, raw)
    except PlanError as error:
        logger.warning("plan %s is not used and removed: %s", path, error)
        forget_plan(key)
        return None
    offer(plan_name(key), raw)
    with suppress(OSError):
        os.utime(path)  # those that are used are evicted last
    return plan


def _loaded_with_artifacts(key: str) -> Plan | None:
    """The plan among torch's artifacts that were loaded here, kept from now on."""
    for raw in offered(plan_name(key), LARGEST_PLAN):
        try:
            plan = unseal(key, raw)
        except PlanError as error:
            logger.warning("the loaded plan %s is not used: %s", key, error)
            continue
        store_plan(key, plan)
        return plan
    return None


def store_plan(key: str, plan: Plan) -> None:
    """Write the plan in one step, so that other processes see all of it or nothing. Once in a process, old plans and
    what others left behind are removed."""
    try:
        raw = seal(key, plan)
        offer(plan_name(key), raw)
        path = plan_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, raw)
        sweep(path.parent.parent)
    except OSError as error:
        tell_trouble(error)
    except PlanError as error:
        logger.warning("plan %s cannot be stored: %s", key, error)


def _write(path: Path, raw: bytes) -> None:
    descriptor, name = tempfile.mkstemp(suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
        os.replace(name, path)
    except BaseException:  # a full disk, an interrupt
        with suppress(OSError):
            os.unlink(name)
        raise


def forget_plan(key: str) -> None:
    """Remove the plan, if it is there."""
    with suppress(OSError):
        plan_path(key).unlink()
