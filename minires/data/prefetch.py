"""Prepare the next batches in a thread while a step computes, with bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, Full, Queue
from typing import Any

AHEAD = 2  # batches that wait in memory; one more is being prepared
POLL_SECONDS = 0.1  # how soon a thread that waits notices that it is no longer needed


class Prefetch:
    """The results of a function of the iteration, computed before they are asked for.

    The function is called in one thread, for one iteration after the other, so the results do not
    depend on how fast they are taken.

    Parameters
    ----------
    make : callable
        `make(iteration)` returns a batch; a function of the iteration alone.
    start, stop : int
        The first iteration, and the one after the last.
    ahead : int
        Results that may wait in memory.

    Attributes
    ----------
    waited : float
        Seconds that `get` has waited, all calls together.
    """

    def __init__(
        self, make: Callable[[int], Any], start: int, stop: int, ahead: int = AHEAD
    ) -> None:
        self.waited = 0.0
        self._make = make
        self._queue: Queue[tuple[int, Any, BaseException | None]] = Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(start, stop), name="prefetch", daemon=True
        )
        self._thread.start()

    def _work(self, start: int, stop: int) -> None:
        for iteration in range(start, stop):
            made: tuple[int, Any, BaseException | None]
            try:
                made = (iteration, self._make(iteration), None)
            except BaseException as error:  # raised where the batch is asked for
                made = (iteration, None, error)
            self._put(made)
            if self._closed.is_set() or made[2]:
                return

    def _put(self, made: tuple[int, Any, BaseException | None]) -> None:
        while not self._closed.is_set():
            try:
                return self._queue.put(made, timeout=POLL_SECONDS)
            except Full:
                continue
        return None

    def get(self, iteration: int) -> Any:
        """Return the result for this iteration; they are asked for in order.

        Raises
        ------
        RuntimeError
            If another iteration is next, or `close` was called.
        Exception
            What the function raised for this iteration.
        """
        start = time.monotonic()
        found, value, error = self._next()
        self.waited += time.monotonic() - start
        if error:
            self.close()
            raise error
        if found != iteration:
            raise RuntimeError(f"expected to be asked for iteration {found}, got {iteration}")
        return value

    def _next(self) -> tuple[int, Any, BaseException | None]:
        while not self._closed.is_set():
            try:
                return self._queue.get(timeout=POLL_SECONDS)
            except Empty:
                if not self._thread.is_alive() and self._queue.empty():
                    break
        raise RuntimeError("no more batches: all were taken, or prefetching was closed")

    def close(self) -> None:
        """Stop the thread and drop what it made; calling it again does nothing."""
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        while not self._queue.empty():
            self._queue.get_nowait()
