"""Ends of a run before its last iteration: on request, or because the loss is not finite."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from minires.errors import InputError


class Interrupted(BaseException):
    """The user stopped the run, and it was saved; the message says how to go on.

    As a `BaseException`, it is not caught by `except Exception`.
    """


class DivergenceError(InputError):
    """The loss is no longer finite; the message names the first layer concerned, and remedies."""


@contextlib.contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C (or SIGTERM) into a request to save and stop.

    The second one interrupts at once.
    """
    stop = threading.Event()
    before: dict[int, Any] = {}

    def ask(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
