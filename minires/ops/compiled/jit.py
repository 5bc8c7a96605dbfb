"""Compile kernels with Numba.

Numba compiles a kernel when it is first called with arguments of some types. This takes seconds, so
the result is stored on disk, see `kernel_cache`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from numba import njit
from numba.core import event

from minires.errors import InputError
from minires.ops.compiled.kernel_cache import cache_folder, keep_on_disk

__all__ = [
    "FLAGS",
    "KERNELS",
    "announce",
    "cache_folder",
    "compilations",
    "forbid_kernels",
    "inline",
    "kernel",
]

# the only fast-math freedom for LLVM is to compute a*b + c in one instruction: it must not reorder
# sums or assume that NaN and Inf do not occur
FLAGS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy", "nogil": True}
KERNELS: list[Any] = []  # every kernel of the package, in order of definition


def kernel(function: Callable) -> Any:
    """Compile an entry point, which divides its work among threads by `prange` over *chunks*.

    The size of a chunk depends on the arguments alone, never on the number of threads, so any
    number of threads gives the same bits.
    """
    compiled = njit(parallel=True, **FLAGS)(function)
    keep_on_disk(compiled)
    KERNELS.append(compiled)
    return compiled


def inline(function: Callable) -> Any:
    """Compile a helper that is inlined into every kernel that calls it."""
    return njit(forceinline=True, **FLAGS)(function)


def forbid_kernels(reason: str) -> None:
    """Make every call of a kernel in this process raise an InputError that says why."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise InputError(reason)

    for compiled in KERNELS:
        compiled._compile_for_args = refuse  # called for argument types without machine code
        compiled._reset_overloads()  # no argument types have machine code from here on


class _Announce(event.Listener):
    def __init__(self, report: Callable[[str], None]):
        self.report = report
        self.ours = {kernel.py_func for kernel in KERNELS}

    def on_start(self, event: event.Event) -> None:
        function = event.data["dispatcher"].py_func
        if function in self.ours:
            self.report(function.__name__)

    def on_end(self, event: event.Event) -> None:
        """Report nothing."""


@contextmanager
def announce(report: Callable[[str], None]) -> Iterator[None]:
    """Call `report(name)` for each kernel that is about to be compiled, not loaded from disk."""
    with event.install_listener("numba:compile", _Announce(report)):
        yield


def compilations() -> dict[str, int]:
    """How many kernels this process compiled, and how many it loaded from disk."""
    stats = [kernel.stats for kernel in KERNELS]
    return {
        "compiled": sum(sum(s.cache_misses.values()) for s in stats),
        "loaded": sum(sum(s.cache_hits.values()) for s in stats),
    }
