"""Verifies the whole catalogue of laws and measures what it is good for; prints tables, writes results/laws.json.

Run as ``python -m bench.laws.verify`` (or ``make laws``); ``--part NAME`` runs one part and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from bench.laws import taso
from bench.laws.hand_rewrites.evaluate import evaluate
from bench.laws.hand_rewrites.table import ROWS
from bench.laws.redundancy import Redundancy, format_redundancy, redundancy
from bench.laws.taso_rules import read_rules
from torch_eqsat.errors import EqsatError
from torch_eqsat.rewrites import catalogue
from torch_eqsat.verification.laws import law_named, verify

CHECKOUT = Path(__file__).resolve().parents[2]
RESULTS = CHECKOUT / "bench" / "results" / "laws.json"
PROCESSES = 2
DRAWS = 60  # variants of each example; verify() itself draws fewer
Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Part:
    """What a part found: rows of the results, and names of what failed with the reason."""

    rows: dict[str, Any]
    failed: dict[str, Any] = field(default_factory=dict)


def _in_parallel(function: Callable[[Item], Answer], items: Iterable[Item], chunk: int = 1) -> list[Answer]:
    """``function`` of each item, in two processes of one thread each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context, _one_thread) as pool:
        return list(pool.map(function, items, chunksize=chunk))


def _one_thread() -> None:
    torch.set_num_threads(1)


# Verification


def _verified(name: str) -> tuple[str, str, float]:
    """The name of a law, what is wrong with it ("" if nothing), and the seconds that this took."""
    start = time.monotonic()
    try:
        verify([law_named(name)], DRAWS)
        problem = ""
    except EqsatError as error:
        problem = str(error)
    except Exception as error:  # a fault of the checks, or of a law's function
        problem = f"{type(error).__name__}: {error}"
    return name, problem, time.monotonic() - start


def verification() -> Part:
    """Every law on its examples, near misses and variants."""
    laws = catalogue()
    answers = _in_parallel(_verified, [law.name for law in laws], 4)
    families = Counter(law.family for law in laws)
    tiers = Counter(law.exactness for law in laws)
    wrong = {name: problem for name, problem, _ in answers if problem}
    right = Counter(law.family for law in laws if law.name not in wrong)
    print(f"{'family':16}{'declarations':>14}{'laws':>6}{'verified':>10}")
    for family, count in families.items():
        declared = len({law.declaration for law in laws if law.family == family})
        print(f"{family:16}{declared:14}{count:6}{right[family]:10}")
    print(", ".join(f"{count} {tier}" for tier, count in tiers.items()))
    slowest = sorted(answers, key=lambda answer: -answer[2])[:5]
    print("slowest: " + ", ".join(f"{name} {seconds:.1f} s" for name, _, seconds in slowest))
    for name, problem in wrong.items():
        print(f"WRONG {name}: {problem}")
    return Part({"laws": len(laws), "verified": len(laws) - len(wrong)}, {"verification": wrong})


# Redundancy


def _redundancy(names: list[str]) -> Redundancy:
    laws = catalogue()
    return redundancy(laws, [law for law in laws if law.name in names])


def redundant() -> Part:
    """Laws that follow from the others."""
    names = [law.name for law in catalogue()]
    answers = _in_parallel(_redundancy, [names[start :: 2 * PROCESSES] for start in range(2 * PROCESSES)])
    found = Redundancy(
        tuple(name for name in names if any(name in answer.derived for answer in answers)),
        answers[0].variants,
        tuple(dict.fromkeys(line for answer in answers for line in answer.failed)),
    )
    print(format_redundancy(found))
    failed = {"redundant": list(found.derived), "one_law": [f"{a} = {b}" for a, b in found.variants]}
    return Part({"redundant": len(found.derived)}, {**failed, "raised": list(found.failed)})


# TASO's rules


def _derived(name: str) -> taso.Verdict:
    (rule,) = (rule for rule in read_rules(taso.DATA) if rule.name == name)
    return taso.derive(rule, catalogue())


def derivations() -> Part:
    """The rules of TASO, derived from the laws."""
    if not (taso.DATA / "converted.txt").is_file():
        print(f"skipped: {taso.DATA} does not hold TASO's rules; name their folder in TASO_RULES")
        return Part({"taso_single_derived": None, "taso_multi_derived": None})
    verdicts = _in_parallel(_derived, [rule.name for rule in read_rules(taso.DATA)], 4)
    print(taso.format_table(verdicts))
    rows = taso.summary(verdicts)
    counted = ("taso_single_derived", "taso_multi_derived")
    return Part({key: rows[key] for key in counted}, {k: v for k, v in rows.items() if k not in counted})


# Hand rewrites


def hand_rewrites() -> Part:
    """The rewrites that pay, and those that lose. Kernels are timed, so nothing runs beside this."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        verdicts = []
        for row in ROWS.values():
            verdicts.append(evaluate(row))
            print(verdicts[-1], flush=True)
    finally:
        torch.set_num_threads(threads)
    good = {v.row.name for v in verdicts if v.priced and v.reached}
    paying, losing = ([v.row.name for v in verdicts if v.row.pays is pays] for pays in (True, False))
    rows = {
        "hand_rewrites_found": len(good.intersection(paying)),
        "hand_rewrites_total": len(paying),
        "losing_refused": len(good.intersection(losing)),
        "losing_total": len(losing),
    }
    print(", ".join(f"{key} {value}" for key, value in rows.items()))
    return Part(rows, {"hand_rewrites": {v.row.name: str(v) for v in verdicts if v.row.name not in good}})


PARTS: dict[str, Callable[[], Part]] = {
    "verification": verification,
    "redundancy": redundant,
    "taso": derivations,
    "hand": hand_rewrites,
}


def main() -> None:
    """Run the parts; the status is 1 when a law is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--part", action="append", choices=PARTS, help="run only this part, and write nothing")
    options = parser.parse_args()
    start = time.monotonic()
    rows: dict[str, Any] = {}
    failed: dict[str, Any] = {}
    for name in options.part or PARTS:
        begin = time.monotonic()
        print(f"\n{name}", flush=True)
        part = PARTS[name]()
        rows |= part.rows
        failed |= part.failed
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
    rows["seconds"] = round(time.monotonic() - start, 1)
    print("\n" + ", ".join(f"{key} {value}" for key, value in rows.items()))
    if not options.part:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**rows, "failed": failed}, indent=1).replace(f"{CHECKOUT}/", "")
        RESULTS.write_text(text + "\n", encoding="utf-8")
    sys.exit(bool(failed.get("verification")))


if __name__ == "__main__":
    main()
