"""How kernels are compiled and where the machine code is kept.

Numba compiles a kernel when it first meets its argument types, which takes seconds, so the result
is stored on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any

import numba
import pooch
from llvmlite import binding
from numba import njit
from numba.core import config, event

# LLVM may join a*b + c into one instruction and nothing else: sums keep their order, and NaN and
# Inf stay visible
FLAGS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy", "nogil": True}
KERNELS: list[Any] = []  # every kernel of the package, in order of definition


@cache
def cache_folder() -> str:
    """Where machine code is kept: per user, outside the package (which may be read-only).

    The name is a digest of the sources of all ops: Numba looks at the file of a kernel only and
    would not see an edit of a helper in another file.
    """
    processor = config.CPU_NAME or binding.get_host_cpu_name()
    digest = hashlib.sha256(f"{numba.__version__} {processor}".encode())
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    return str(Path(pooch.os_cache("minires")) / "numba" / digest.hexdigest()[:16])


def kernel(function: Callable) -> Any:
    """Compile an entry point, which shares its work among threads by `prange` over *chunks*.

    A chunk is a number of images or of values that depends on the arguments alone, never a share
    per thread, so any number of threads gives the same bits. NUMBA_CACHE_DIR, if set, wins over
    `cache_folder`.
    """
    chosen = config.CACHE_DIR
    # read while a function is decorated; other packages see no change
    config.CACHE_DIR = chosen or cache_folder()
    try:
        compiled = njit(parallel=True, cache=True, **FLAGS)(function)
        _name_by_process(compiled)
    except RuntimeError:  # no folder can be written: each process compiles for itself
        compiled = njit(parallel=True, **FLAGS)(function)
    finally:
        config.CACHE_DIR = chosen
    KERNELS.append(compiled)
    return compiled


def _name_by_process(compiled: Any) -> None:
    """Make cache file names unique per process.

    Numba numbers the files of a kernel by an index that it reads and writes without a lock. Two
    processes that compile one kernel for float32 and float64 at once would choose one name, and the
    next one load the other's code.
    """
    with suppress(AttributeError):  # a Numba that names its files in another way
        file = compiled._cache._cache_file
        pattern = file._data_name_pattern
        file._data_name_pattern = pattern.replace("{number", f"{token_hex(4)}-{{number")


def inline(function: Callable) -> Any:
    """Compile a helper that is inlined into every kernel that calls it."""
    return njit(forceinline=True, **FLAGS)(function)


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
    """How many kernels this process compiled, and how many it found on disk."""
    stats = [kernel.stats for kernel in KERNELS]
    return {
        "compiled": sum(sum(s.cache_misses.values()) for s in stats),
        "loaded": sum(sum(s.cache_hits.values()) for s in stats),
    }
