"""Call a function of the running program, as a notebook's `check` does.

The function stays where it is, with its helpers and variables. What it prints is captured, input is
refused, a loop in Python is stopped at the limit, and changes to NumPy are undone and reported. It
can still end the whole program; `minires exercise check FILE` uses a process of its own.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from minires.school import bugs, cases, expected, judge, perform, wire
from minires.school.sandbox import Limits, Stopped

# modules that a solution could change, by mistake or in order to pass
GUARDED: tuple[ModuleType, ...] = (np, np.random, bugs, cases, expected, judge, perform, wire)


class TimeLimit(BaseException):
    """A call took too long."""


class Running:
    """Calls of a function in this process."""

    def __init__(self, function: Callable[..., Any], limits: Limits) -> None:
        self.function = function
        self.limits = limits
        self.previous: list[np.ndarray] = []
        self.before = [dict(vars(module)) for module in GUARDED]

    def call(self, args: tuple, named: dict[str, Any]) -> dict[str, Any]:
        """Call the function; its changes to the arguments are copied back into them."""
        message, things = wire.pack([list(args), named])
        watch = Watch(self.limits.seconds)
        try:
            with watch:
                answer = perform.perform(
                    self.function, message, self.previous, (KeyboardInterrupt, TimeLimit)
                )
        except TimeLimit as e:
            words = f"It takes longer than {self.limits.seconds:g} seconds"
            raise Stopped(f"{words}{self._line(e)}.", too_long=True) from None
        except KeyboardInterrupt as e:
            raise Stopped(f"You stopped it{self._line(e)}.", interrupted=True) from None
        finally:
            changed = self._restore()
        if changed:
            raise Stopped(f"It changed {changed}. A solution must leave the libraries alone.")
        value, _ = wire.unpack(answer, things)
        return value

    def _line(self, e: BaseException) -> str:
        """The line of the function that an exception passed."""
        told = perform.describe(e, perform.file_of(self.function))
        return f", in line {told['line']}: {told['source']}" if told["line"] else ""

    def _restore(self) -> str:
        """Undo changes to the guarded modules; return the name of one that was changed."""
        changed = ""
        for module, before in zip(GUARDED, self.before, strict=True):
            now = vars(module)
            names = [n for n, value in before.items() if now.get(n, None) is not value]
            for name in names:
                changed = f"{module.__name__}.{name}"
                setattr(module, name, before[name])
        return changed


class Watch:
    """Raise `TimeLimit` in this thread after some seconds, between two steps of Python code."""

    def __init__(self, seconds: float) -> None:
        self.thread = threading.get_ident()
        self.lock = threading.Lock()
        self.active = True
        self.timer = threading.Timer(seconds, self._fire)
        self.timer.daemon = True

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.active = False
        self.timer.cancel()

    def _fire(self) -> None:
        with self.lock:
            if self.active:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self.thread), ctypes.py_object(TimeLimit)
                )
