"""Compares what two things compute: the sides of a law, e-nodes of an e-class, graphs, compiled functions."""
