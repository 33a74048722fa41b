"""The models and graphs that the benchmarks run."""
