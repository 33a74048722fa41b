"""The e-graph: egglog stores e-nodes, closes congruence and matches. Only this package calls egglog."""
