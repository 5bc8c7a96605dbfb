"""Speed of training and inference with several numbers of threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np

from minires.bench import nets
from minires.bench.nets import Timing, rate
from minires.errors import InputError
from minires.runs.provenance import provenance
from minires.text import columns

VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def counts(listed: str) -> list[int]:
    """Numbers of threads, from a text such as "1,2,4".

    Raises
    ------
    InputError
        If one is no whole number of at least 1.
    """
    words = [word.strip() for word in listed.split(",")]
    if not all(word.isdecimal() and 1 <= int(word) <= 1024 for word in words):
        raise InputError(f"--threads: expected numbers from 1 to 1024, got {listed!r}; write 1,2,4")
    return [int(word) for word in words]


def bench(
    names: Sequence[str],
    contenders: Sequence[str],
    threads: Sequence[int],
    rounds: int,
    batch_size: int | None,
    report: Callable[[str], None],
) -> dict[int, list[Timing]]:
    """Time every contender with every network and number of threads, each in its own process."""
    found = {}
    for count in threads:
        report(f"threads: {count}")
        with _environment(count):
            found[count] = nets.bench(names, contenders, rounds, batch_size, report)
    return found


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Let processes that start here have that many threads, whatever library asks."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(dict.fromkeys(VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def table(found: dict[int, list[Timing]]) -> str:
    """Images per second, and efficiency: speed over that of the first number, for each thread."""
    head = ["net", "contender", "threads"]
    head += ["train images/s", "efficiency", "inference images/s", "efficiency"]
    lines = [head]
    first = min(found)
    for i, base in enumerate(found[first]):
        for threads, timings in sorted(found.items()):
            cells = [base.net, base.contender, str(threads)]
            for step in ("train", "inference"):
                cells += _cells(timings[i], base, step, threads / first)
            lines.append(cells)
    return columns(lines, left=2)


def _cells(timing: Timing, base: Timing, step: str, times: float) -> list[str]:
    seconds = getattr(timing, step)
    if not seconds:
        return ["-", "-"]
    speedup = np.median(getattr(base, step)) / np.median(seconds)
    return [rate(timing.batch_size / np.median(seconds)), f"{100 * speedup / times:.0f} %"]


def record(found: dict[int, list[Timing]]) -> dict[str, Any]:
    """Everything measured, with machine and versions, as JSON values."""
    return {
        "provenance": provenance(),
        "threads": {str(n): [asdict(t) for t in timings] for n, timings in found.items()},
    }
