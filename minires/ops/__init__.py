"""A backend is a module: the same functions in plain NumPy and compiled by Numba, chosen by name.

This is the only place that imports the compiled one, so that plain NumPy works where Numba is not installed.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType

from minires.errors import InputError
from minires.ops import numpy_ops as numpy_ops  # first, since its last line imports `fused`, which imports it

BACKENDS = ("numpy", "numba")


def get_ops(backend: str) -> ModuleType:
    """Return the module that holds every op of `backend`.

    Raises
    ------
    InputError
        If there is no such backend, or Numba is asked for and not installed.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "numba" and importlib.util.find_spec("numba") is None:
        raise InputError("the numba backend needs Numba: pip install numba, or choose the numpy backend")
    return importlib.import_module(f"minires.ops.{backend}_ops")
