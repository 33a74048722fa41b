"""The e-graph: egglog stores e-nodes, closes congruence and matches; this package is the only one that speaks to it."""
