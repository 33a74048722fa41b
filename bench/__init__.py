"""The benchmarks, a folder per question: see README.md."""
