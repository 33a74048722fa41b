"""Steps of decoding with a static cache and live weights, as Inductor runs them and rewritten.

Run as ``python -m bench.prices.decoding`` (or ``make bench-decoding``) on an idle machine. A step that is rewritten is
compiled in two processes, which are timed in turn; of one that is left alone nothing is timed. Writes
bench/results/decoding.json; the status is 1 when a step was made slower.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.models.decoding_models import decoding_names
from bench.prices.drawn import is_slower, row_of, summary, worst

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "decoding.json"


def main() -> int:
    """Plan and time the steps, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="decode-FAMILY-WIDTHxLAYERS-bBATCH", default=decoding_names())
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.names:
        rows.append(row_of(name))
        print(json.dumps(rows[-1]), flush=True)
        arguments.results.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("\n".join([summary("decoding", rows), *worst(rows, len(rows))]))
    return int(any(map(is_slower, rows)))


if __name__ == "__main__":
    sys.exit(main())
