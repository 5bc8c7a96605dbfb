"""How the compiled backend's threads wait, and how its memory is kept.

Nothing here runs at import: `minires.ops` calls it when the compiled backend is first asked for.
"""

from __future__ import annotations

import ctypes
import os

import numba

# of GNU's OpenMP; waiting threads of others sleep at once
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "3000"}

# parameters of glibc's mallopt
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8


def start_threads() -> None:
    """Start Numba's threads so that they spin briefly when they wait, then sleep.

    A step has hundreds of parallel loops, and waking a sleeping thread takes long in a virtual
    machine; a thread that spins for long holds up other busy programs. See LOG.md. Variables of the
    user win.
    """
    if WAITING.keys() & os.environ.keys():
        return
    os.environ.update(WAITING)  # read once, when OpenMP is loaded; nobody else sees it
    try:
        numba.get_num_threads()
    finally:
        for name in WAITING:
            del os.environ[name]


def threads_to_share() -> int:
    """How many threads kernels use that are called from here.

    0 if two Python threads may not call kernels at once.
    """
    threads = numba.get_num_threads()
    safe = numba.threading_layer() in ("omp", "tbb")  # "workqueue" ends the process
    return threads if safe else 0


def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the arrays of the next step.

    The system clears memory that it hands out page by page, which takes longer than many kernels;
    see LOG.md. One heap serves all threads, because glibc's other heaps return what is freed. Only
    glibc knows the call; MALLOC_* variables of the user win.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return

    def choose(parameter: int, value: int) -> bool:
        return bool(mallopt(ctypes.c_int(parameter), ctypes.c_int(value)))

    # below 1 GiB an array lies in the heap; glibc up to 2.34 takes 32 MiB at most
    if not choose(M_MMAP_THRESHOLD, 1 << 30):
        choose(M_MMAP_THRESHOLD, 1 << 25)
    choose(M_TRIM_THRESHOLD, (1 << 31) - 1)  # the heap does not shrink
    choose(M_ARENA_MAX, 1)
