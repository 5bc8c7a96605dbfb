"""How long a rank waits for a silent one: a rank that hangs must not hold the others forever."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

LEAST_SECONDS = 300.0
TIMES = 10  # that another rank may be slower than this one
LOOK_SECONDS = 1.0


class Patience:
    """The time for which another rank may be silent.

    That is five minutes, or ten times the longest time that this rank has computed between two
    messages: all ranks have about the same work. Rank 0 knows which rank it waits for, so the
    others wait twice as long and let it speak.

    Parameters
    ----------
    rank : int
        The rank that waits.
    clock : callable
        Seconds of a monotonic clock.
    """

    def __init__(self, rank: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._least = LEAST_SECONDS
        self._factor = 2 if rank else 1
        self._clock = clock
        self._longest = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """The limit."""
        return self._factor * max(self._least, TIMES * self._longest)

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """Surround an exchange of messages: between two of them, this rank computes."""
        if self._since is not None:
            self._longest = max(self._longest, self._clock() - self._since)
        try:
            yield
        finally:
            self._since = self._clock()

    def lasts(self, arrived: Callable[[], bool]) -> bool:
        """Call `arrived` until it is true; False if the limit ends first.

        `arrived` returns within `LOOK_SECONDS`. If a call takes longer, this process itself was
        stopped, and that time does not count.
        """
        waited = 0.0
        before = self._clock()
        while not arrived():
            now = self._clock()
            waited += min(now - before, LOOK_SECONDS)
            before = now
            if waited >= self.seconds:
                return False
        return True
