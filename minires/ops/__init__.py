"""A backend is a module: the same functions in plain NumPy and compiled by Numba, chosen by name.

This is the only place that imports the compiled one, so that plain NumPy works where Numba is not installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from types import ModuleType

from minires.errors import InputError

BACKENDS = ("numpy", "numba")


def default_backend() -> str:
    """Name of the fastest backend that this installation has: what the command line uses unless told otherwise."""
    return "numba" if importlib.util.find_spec("numba") else "numpy"


def prepare(backend: str, report: Callable[[str], None]) -> None:
    """Have everything compiled that a network needs, before it is timed or watched.

    Parameters
    ----------
    backend : str
    report : callable
        Called with the name of each kernel that is about to be compiled; kernels found on the disk are not reported.
    """
    if backend == "numba":
        jit = importlib.import_module("minires.ops.compiled.jit")
        backwards = "from minires.ops.compiled.warm_up import warm_up; warm_up(backwards=True)"
        with jit.announce(report), jit.compile_from_both_ends(backwards):
            importlib.import_module("minires.ops.compiled.warm_up").warm_up()


@cache
def get_ops(backend: str) -> ModuleType:
    """Return the module that holds every op of `backend`.

    Raises
    ------
    InputError
        If there is no such backend, or Numba is asked for and not installed.
    """
    _need(backend)
    return importlib.import_module(f"minires.ops.{backend}_ops")


@cache
def get_fused(backend: str) -> ModuleType:
    """Return the module whose ops do what training needs of `backend` with less work, see `numpy_fused`."""
    _need(backend)
    return importlib.import_module(f"minires.ops.{backend}_fused")


def _need(backend: str) -> None:
    if backend not in BACKENDS:
        raise InputError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "numba" and importlib.util.find_spec("numba") is None:
        raise InputError(
            "the numba backend needs Numba: pip install numba, or choose the numpy backend"
        )


def threads_to_share(backend: str) -> int:
    """How many threads the ops of `backend` use if these may be divided among Python threads that train, else 0."""
    return (
        int(importlib.import_module("minires.ops.compiled.threads").threads_to_share())
        if backend == "numba"
        else 0
    )


def use_threads(backend: str, threads: int) -> None:
    """Let ops that this Python thread calls use so many threads, 0 for as many as before; the bits are the same."""
    if backend == "numba" and threads:
        importlib.import_module("numba").set_num_threads(threads)
