"""Changes carried into FX graphs: chosen programs, and what was made of copies with other sizes."""
