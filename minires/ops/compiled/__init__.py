"""Kernels of the compiled backend; `numba_ops` is what calls them."""
