"""Processes that execute steps on request and time them."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from minires import plugins
from minires.errors import InputError

Steps = dict[str, Callable[[], Any]]
# A contender's turn takes about this long: its steps are repeated to fill their shares.
ROUND_SECONDS = 1.0
ASIDE = ("kinds", "in kernels")  # steps that are not timed themselves


@contextmanager
def worker(make: Callable[..., Steps], *arguments: Any) -> Iterator[Any]:
    """Start a process that calls `make` and answers questions; yields the pipe for `ask`."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads that do not run
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(theirs, plugins.LOADED, make, arguments), daemon=True
    )
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(10)
        process.kill()


def ask(pipe: Any, question: str) -> Any:
    """Ask a worker, and return its answer.

    Parameters
    ----------
    pipe : Connection
        From `worker`.
    question : str
        "start" (seconds of the first step), the name of a step (seconds), one of `ASIDE`, or
        "memory".

    Raises
    ------
    InputError
        If the worker could not start, or ended.
    """
    try:
        with suppress(BrokenPipeError):  # a worker that could not start has sent the reason
            pipe.send(question)
        answer = pipe.recv()
    except (EOFError, ConnectionResetError):
        raise InputError(
            f"the process that answers {question!r} ended; run it alone to see why"
        ) from None
    if isinstance(answer, str):
        raise InputError(answer)
    return answer


def _serve(pipe: Any, files: Sequence[Path], make: Callable[..., Steps], arguments: tuple) -> None:
    """Load the user's plugins, then answer questions until the pipe is closed.

    Ctrl-C reaches every process of a terminal; the one that asks ends this one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for file in files:
            plugins.load(file)
        steps = make(*arguments)
        repeats: dict[str, int] = {}
        while True:
            question = pipe.recv()
            if question == "start":
                answer: Any = _start(steps, repeats)
            elif question == "memory":
                answer = peak_megabytes()
            elif question in ASIDE:
                answer = steps[question]() if question in steps else {}
            else:
                # not counted: threads and caches are still those of the previous contender
                steps[question]()
                answer = time_of(steps[question], repeats[question])
            pipe.send(answer)
    except EOFError:
        return
    except MemoryError as e:
        pipe.send(f"not enough memory ({e}); give fewer images with --batch-size")
    except InputError as e:
        pipe.send(str(e))


def _start(steps: Steps, repeats: dict[str, int]) -> float:
    """Fill in how often each step is repeated in a round; return the seconds of the first step."""
    timed = [name for name in steps if name not in ASIDE]
    seconds = time_of(steps[timed[0]], 1)
    for name in timed:
        steps[name]()  # the first call of each is slower
        share = ROUND_SECONDS / len(timed)
        repeats[name] = max(1, round(share / time_of(steps[name], 1)))
    return seconds


def time_of(step: Callable[[], Any], repeats: int) -> float:
    """Mean seconds of a step over `repeats` of them."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def peak_megabytes() -> float:
    """Peak memory of this process; 0 if the system does not report it."""
    if sys.platform == "win32":
        return 0.0
    if sys.platform == "linux":
        # getrusage would include the process that started this one
        with open("/proc/self/status", encoding="utf-8") as status:
            peak = next(line for line in status if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / (1 << 10)  # kB
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # bytes on a Mac
