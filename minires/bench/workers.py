"""Processes that take steps when asked, and time them."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from minires.errors import InputError

Steps = dict[str, Callable[[], Any]]
ROUND_SECONDS = (
    1.0  # a contender's turn takes about this long: each of its steps is repeated to fill its part
)


# ------------------------------------------------------------------------------------------------------------ workers


@contextmanager
def worker(make: Callable[..., Steps], *arguments: Any) -> Iterator[Any]:
    """Start a process that makes its steps and answers questions; yields the pipe for `ask`."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads that do not run
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(10)
        process.kill()


def ask(pipe: Any, question: str) -> Any:
    """Put a question to a worker: "start" (seconds of the first step), a step's name (seconds), "kinds", "memory"."""
    try:
        with suppress(BrokenPipeError):  # it could not begin: why, it has sent before
            pipe.send(question)
        answer = pipe.recv()
    except (EOFError, ConnectionResetError):
        raise InputError(
            f"the process that answers {question!r} ended; run it alone to see why"
        ) from None
    if isinstance(answer, str):
        raise InputError(answer)
    return answer


def _serve(pipe: Any, make: Callable[..., Steps], arguments: tuple) -> None:
    """Answer questions until the other side hangs up."""
    try:
        steps = make(*arguments)
        timed = [name for name in steps if name != "kinds"]
        repeats: dict[str, int] = {}
        while True:
            question = pipe.recv()
            if question == "start":
                answer: Any = time_of(steps[timed[0]], 1)
                for name in timed:
                    steps[name]()  # the first one of each is slower
                    repeats[name] = max(
                        1, round(ROUND_SECONDS / len(timed) / time_of(steps[name], 1))
                    )
            elif question == "memory":
                answer = peak_megabytes()
            elif question == "kinds":
                answer = steps["kinds"]() if "kinds" in steps else {}
            else:
                steps[
                    question
                ]()  # not counted: it may pay for threads and caches of the contender before
                answer = time_of(steps[question], repeats[question])
            pipe.send(answer)
    except EOFError:
        return
    except InputError as e:
        pipe.send(str(e))


def time_of(step: Callable[[], Any], repeats: int) -> float:
    """Seconds of one of `repeats` steps."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def peak_megabytes() -> float:
    """Largest memory this process has held; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0.0
    if (
        sys.platform == "linux"
    ):  # where getrusage begins with the largest memory of the process that started this one
        with open("/proc/self/status", encoding="utf-8") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / (
                1 << 10
            )  # kB
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # bytes on a Mac
