"""How laws are declared: patterns, builders, laws. The laws themselves are in torch_eqsat.rewrites."""
