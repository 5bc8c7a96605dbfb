"""How much of a call is spent inside compiled parallel kernels: the rest runs on one thread."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def share_in_kernels(call: Callable[[], Any], repeats: int) -> float:
    """Seconds inside kernels over seconds of all, 0 to 1, of `repeats` calls.

    Measure with one thread: with more, the kernels take a smaller part of the time, but what is
    outside of them takes as long.
    """
    with timed_kernels() as spent:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        whole = time.perf_counter() - start
    return sum(spent) / whole


@contextmanager
def timed_kernels() -> Iterator[list[float]]:
    """Collect the seconds of each call of a kernel from Python, in this process."""
    from minires.ops.compiled import jit

    spent: list[float] = []
    ours = set(map(id, jit.KERNELS))
    modules = [m for name, m in sys.modules.items() if name.startswith("minires.ops.") and m]
    replaced = [(m, k, v) for m in modules for k, v in vars(m).items() if id(v) in ours]
    try:
        for module, name, kernel in replaced:
            setattr(module, name, _timed(kernel, spent))
        yield spent
    finally:
        for module, name, kernel in replaced:
            setattr(module, name, kernel)


def _timed(kernel: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """Call the kernel, and append how long it took."""

    def call(*arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            return kernel(*arguments)
        finally:
            spent.append(time.perf_counter() - start)

    return call
