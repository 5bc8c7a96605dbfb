"""A backend is a module: the same functions in plain NumPy and compiled by Numba, chosen by name.

This is the only place that imports the compiled one, so that plain NumPy works where Numba is not installed.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from minires.errors import InputError

BACKENDS = ("numpy",)


def get_ops(backend: str) -> ModuleType:
    """Return the module that holds every op of `backend`.

    Raises
    ------
    InputError
        If there is no such backend.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    return importlib.import_module(f"minires.ops.{backend}_ops")
