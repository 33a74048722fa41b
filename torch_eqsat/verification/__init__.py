"""Whether two things compute the same: laws, e-graphs, graphs, compiled functions."""
