"""Operators of the language and ATen calls: of each operator both directions side by side, a module a family."""
