"""The records of the operators, a module a family."""
