"""How close predicted times are to measured ones."""
