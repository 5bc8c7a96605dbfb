"""Set up threads and memory for the compiled backend.

Nothing here runs at import: `minires.ops` calls it when the compiled backend is first used.
"""

from __future__ import annotations

import ctypes
import os
import sys

import numba

from minires.ops.compiled.jit import forbid_kernels
from minires.ops.compiled.processors import usable_cores

# read by GNU OpenMP; waiting threads of other libraries sleep at once
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "3000"}

# parameters of glibc's mallopt
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_THRESHOLD = -3

LAYERS = {"omp": "OpenMP", "tbb": "TBB", "workqueue": "Numba's workqueue"}
SLOW_LAYER = (
    "OpenMP and TBB are faster, and let two runs train at a time; install one of them: "
    "pip install tbb, or on macOS: brew install libomp"
)

FORKED = (
    "kernels cannot run in a forked process, because GNU OpenMP's threads do not survive a fork; "
    'start processes with multiprocessing.get_context("spawn"), or choose the numpy backend'
)


def start_threads() -> None:
    """Start Numba's threads so that they spin briefly when they wait, then sleep.

    There is one thread for each core that this process may use, unless NUMBA_NUM_THREADS is set.

    A step has hundreds of parallel loops, and waking a sleeping thread takes long in a virtual
    machine; a thread that spins for long holds up other busy programs. See LOG.md. If the user has
    set one of the variables of `WAITING`, threads wait as that says.
    """
    _choose_number()
    if WAITING.keys() & os.environ.keys():
        return
    os.environ.update(WAITING)  # read once, when OpenMP is loaded
    try:
        numba.get_num_threads()
    finally:
        for name in WAITING:
            del os.environ[name]


def _choose_number() -> None:
    """Set the number of threads that Numba will start, before it starts them."""
    if "NUMBA_NUM_THREADS" not in os.environ:
        cores, _ = usable_cores()
        numba.config.NUMBA_NUM_THREADS = min(cores, numba.config.NUMBA_DEFAULT_NUM_THREADS)


def describe() -> str:
    """How many threads run the kernels, in which library, and why that many."""
    threads = numba.get_num_threads()
    layer = numba.threading_layer()
    why = usable_cores()[1]
    if "NUMBA_NUM_THREADS" in os.environ:
        why = "NUMBA_NUM_THREADS"
    text = f"{threads} by {LAYERS.get(layer, layer)} ({why})"
    return f"{text}; {SLOW_LAYER}" if layer == "workqueue" else text


def forbid_kernels_after_fork() -> None:
    """Let kernels raise an error in forked processes, where GNU OpenMP would end the process."""
    numba.get_num_threads()  # chooses the threading layer
    if sys.platform == "linux" and numba.threading_layer() == "omp":
        os.register_at_fork(after_in_child=lambda: forbid_kernels(FORKED))


def threads_to_share() -> int:
    """Number of threads of the kernels that are called from here.

    0 if two Python threads may not call kernels at the same time.
    """
    threads = numba.get_num_threads()
    safe = numba.threading_layer() in ("omp", "tbb")  # "workqueue" ends the process
    return threads if safe else 0


def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the arrays of the next step.

    Otherwise the system clears each new page of memory, which takes longer than many kernels; see
    LOG.md. Each thread has a heap of its own: kernels ask for scratch memory so often that threads
    with a common heap would wait for each other. Other C libraries lack the call. If the user has
    set a variable MALLOC_*, nothing happens here.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return

    def choose(parameter: int, value: int) -> bool:
        return bool(mallopt(ctypes.c_int(parameter), ctypes.c_int(value)))

    # below 1 GiB an array lies in the heap; glibc up to 2.34 takes 32 MiB at most
    if not choose(M_MMAP_THRESHOLD, 1 << 30):
        choose(M_MMAP_THRESHOLD, 1 << 25)
    choose(M_TRIM_THRESHOLD, (1 << 31) - 1)  # no heap shrinks
    choose(M_TOP_PAD, 1 << 26)  # 64 MiB, the size of a thread's heap: an empty one stays
