"""Kernels of our own: C++ that Inductor's generated code calls where its own reads and writes more than it need."""
