"""How the compiled backend's threads wait, and how its memory is kept."""

from __future__ import annotations

import ctypes
import os

import numba


def start_threads() -> None:
    """Load Numba's threads so that they spin for a moment when they wait, then sleep, unless the user said otherwise.

    A step has hundreds of parallel loops, and to wake a sleeping thread takes long in a virtual machine: measured on
    two cores, a step of 64 images took 0.65 to 0.9 of its time with GOMP_SPINCOUNT=3000 instead of 0; one of 128
    images, with 20,000, a tenth less again. But beside another busy program loops wait for a spinning thread to lose
    its turn: 1.2 to 1.4 times the time with 3,000, and 1.5 to 2.2 times with 8,000 and more. GNU's own value is
    300,000.
    """
    ours = {
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "3000",
    }  # of GNU's OpenMP; others sleep at once
    if ours.keys() & os.environ.keys():
        return
    os.environ.update(ours)  # read once, when OpenMP is loaded; nobody else sees it
    try:
        numba.get_num_threads()
    finally:
        for name in ours:
            del os.environ[name]


def threads_to_share() -> int:
    """How many threads kernels use that are called from here; 0 if two Python threads may not call kernels at once."""
    threads = numba.get_num_threads()
    return (
        threads if numba.threading_layer() in ("omp", "tbb") else 0
    )  # "workqueue" ends the process


def keep_freed_memory() -> None:
    """Ask the C library to keep what arrays free for the arrays of the next step, rather than return it to the system.

    Memory that is fetched anew is cleared page by page: measured about 8,000 page faults in a ResNet-20 step, 3-7 ms,
    and none after this, at the same peak. One heap serves all threads: those that glibc makes for further threads give
    back what is freed. Only glibc knows the call; MALLOC_* variables of the user win.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None and not any(name.startswith("MALLOC_") for name in os.environ):
        # M_MMAP_THRESHOLD: below 1 GiB an array lies in the heap; glibc up to 2.34 takes 32 MiB at most
        mallopt(ctypes.c_int(-3), ctypes.c_int(1 << 30)) or mallopt(
            ctypes.c_int(-3), ctypes.c_int(1 << 25)
        )
        mallopt(
            ctypes.c_int(-1), ctypes.c_int((1 << 31) - 1)
        )  # M_TRIM_THRESHOLD: and the heap does not shrink
        mallopt(ctypes.c_int(-8), ctypes.c_int(1))  # M_ARENA_MAX
