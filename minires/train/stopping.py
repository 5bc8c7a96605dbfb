"""Ends of a run before its last iteration: on request, or because the loss is not finite."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any

from minires.errors import InputError


class Interrupted(BaseException):
    """The user stopped the run, and it was saved; the message says how to go on.

    As a `BaseException`, it is not caught by `except Exception`.
    """


class DivergenceError(InputError):
    """The loss is no longer finite; the message names the first layer concerned, and remedies."""


class Remember:
    """A handler of Ctrl-C and SIGTERM: raise KeyboardInterrupt, and remember it in `pressed`."""

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, number: int, frame: Any) -> None:
        """Handle the signal."""
        self.pressed = True
        raise KeyboardInterrupt


@contextlib.contextmanager
def interrupts_remembered() -> Iterator[None]:
    """Remember each Ctrl-C in this block, so that `check_interrupt` finds one that was dropped.

    Python drops an exception that is raised in a callback from C. While LLVM compiles a kernel, no
    Python runs but such callbacks, so that is where Ctrl-C arrives. SIGTERM does the same as
    Ctrl-C, so that it does not end the process without a word.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    show = sys.unraisablehook

    def show_others(dropped: Any) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            show(dropped)

    remember = Remember()
    before = {n: signal.signal(n, remember) for n in (signal.SIGINT, signal.SIGTERM)}
    sys.unraisablehook = show_others
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = show


def check_interrupt() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed and Python dropped it."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, Remember) and handler.pressed:
        raise KeyboardInterrupt


@contextlib.contextmanager
def interrupts_held_back(signals: Sequence[int] = (signal.SIGINT,)) -> Iterator[None]:
    """Start threads and processes that never see a Ctrl-C; this one sees it after the block.

    A terminal sends Ctrl-C to all processes. A blocked signal stays blocked in a process that is
    started meanwhile, even while it imports modules, and in its threads and processes.

    Parameters
    ----------
    signals : list of int
        Those to block.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # its start, at the latest with the process, unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def stop_requests(
    signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM),
) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C (or SIGTERM) into a request to save and stop.

    The second Ctrl-C interrupts at once. One that was dropped before, see `interrupts_remembered`,
    interrupts here.

    Parameters
    ----------
    signals : list of int
        Those that are requests.
    """
    check_interrupt()
    stop = threading.Event()
    before: dict[int, Any] = {}

    def ask(number: int, frame: Any) -> None:
        stop.set()
        if signal.SIGINT in signals:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, ask) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
