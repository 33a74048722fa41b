"""Declarations of laws: patterns, examples, assumptions. The laws themselves are in torch_eqsat.rewrites."""
