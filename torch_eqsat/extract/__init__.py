"""Extraction: the cheapest program of an e-graph."""
