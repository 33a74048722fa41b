"""All rows."""

from bench.laws.hand_rewrites import convolution, linear, reading, sequence
from bench.laws.hand_rewrites.row import Row

ROWS: dict[str, Row] = {row.name: row for module in (linear, convolution, sequence, reading) for row in module.ROWS}
