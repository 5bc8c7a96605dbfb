"""Call a solution once, and describe what it returned or raised, in the form of a message.

The child process does this, and so does `check` for a function of the running program.
"""

from __future__ import annotations

import builtins
import contextlib
import inspect
import io
import linecache
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minires.school.wire import pack, unpack

KEPT = 2000  # bytes of what is printed in a case, and characters of an exception's message
MOST = 1 << 20  # bytes that a case may print

shares_memory = np.shares_memory


class OutputLimit(BaseException):
    """A solution printed more than it may; no `except Exception` should hide it."""


class Output(io.RawIOBase):
    """Keep the beginning of what is printed; raise `OutputLimit` beyond a limit."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self.start = b""

    def writable(self) -> bool:  # noqa: D102
        return True

    def write(self, data: Any) -> int:  # noqa: D102
        self.size += len(data)
        if len(self.start) < KEPT:
            self.start += bytes(data[: KEPT - len(self.start)])
        if self.size > MOST:
            raise OutputLimit(f"more than {MOST >> 20} MB printed")
        return len(data)

    @property
    def text(self) -> str:
        """The beginning of the output, and a remark if there was more."""
        more = f"\n... and {self.size - KEPT} more bytes" if self.size > KEPT else ""
        return self.start.decode("utf-8", "replace") + more


def _refuse_input(*_: Any) -> str:
    raise EOFError("a solution is graded without a keyboard: input() has nothing to read")


@contextlib.contextmanager
def quiet() -> Iterator[Output]:
    """Capture what is printed, give `input` nothing to read, and keep NumPy from warning."""
    output = Output()
    raw: Any = output
    stream = io.TextIOWrapper(raw, "utf-8", errors="replace", write_through=True)
    before = sys.stdin, builtins.input
    sys.stdin, builtins.input = io.StringIO(), _refuse_input
    try:
        with (
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
            np.errstate(all="ignore"),
        ):
            yield output
    finally:
        sys.stdin, builtins.input = before


# ------------------------------------------------------------------------------------ one call


def perform(
    function: Callable[..., Any],
    message: bytes,
    previous: list[np.ndarray],
    passing: tuple[type[BaseException], ...] = (),
) -> bytes:
    """Call the function with the arguments in a message; return a message with the outcome.

    Parameters
    ----------
    function : callable
    message : bytes
        A pair: positional arguments, named arguments.
    previous : list of ndarray
        The arrays that the last call returned; replaced by those of this call.
    passing : tuple of exceptions
        These are raised, not described.
    """
    (args, named), things = unpack(message, make=True)
    shapes = [thing.shape if isinstance(thing, np.ndarray) else None for thing in things]
    with quiet() as output:
        try:
            result = function(*args, **named)
            answer = {"result": result, "arguments": [args, named]}
            answer |= _memory(result, things, previous)
            answer["reshaped"] = _undo_reshaping(things, shapes)
            message, _ = pack(answer | {"printed": output.text}, known=things)
        except passing:
            raise
        except BaseException as e:
            raised = {"raised": describe(e, file_of(function)), "printed": output.text}
            message, _ = pack(raised)
    return message


def _undo_reshaping(things: list[Any], shapes: list[Any]) -> bool:
    """Restore the shapes of the arguments; return whether any had changed."""
    changed = False
    for thing, shape in zip(things, shapes, strict=True):
        if shape is not None and thing.shape != shape:
            thing.shape = shape
            changed = True
    return changed


def _memory(result: Any, things: list[Any], previous: list[np.ndarray]) -> dict[str, Any]:
    """Say which results are read-only, and which share memory, and whether with an argument."""
    results = list(result) if isinstance(result, tuple) else [result]
    arrays = [(i, a) for i, a in enumerate(results) if isinstance(a, np.ndarray)]
    given = [thing for thing in things if isinstance(thing, np.ndarray)]

    def shared(a: np.ndarray, others: list[np.ndarray]) -> bool:
        return any(shares_memory(a, other) for other in others)

    notes = {
        "views": [i for i, a in arrays if shared(a, given)],
        "fixed": [i for i, a in arrays if not a.flags.writeable],
        "reused": [i for i, a in arrays if shared(a, previous)],
        "twins": [i for i, a in arrays if shared(a, [b for j, b in arrays if j < i])],
        "overlapping": [i for i, a in arrays if 0 in _steps(a)],
    }
    previous[:] = [a for _, a in arrays]
    return notes


def _steps(a: np.ndarray) -> list[int]:
    """Bytes from an element to its neighbour, along every axis that has a neighbour."""
    return [step for step, n in zip(a.strides, a.shape, strict=True) if n > 1 and a.size]


# ------------------------------------------------------------------------------- exceptions


def file_of(function: Any) -> str:
    """File that a function was written in; "" for functions without Python code."""
    function = getattr(function, "py_func", function)  # compiled by Numba
    return getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", "")


def describe(e: BaseException, filename: str) -> dict[str, Any]:
    """Describe an exception, and the last line of the student's file that it passed."""
    try:
        text = str(e)
    except Exception as error:
        text = f"<its str raises {type(error).__name__}>"
    line = 0
    source = ""
    if isinstance(e, SyntaxError) and e.filename == filename:
        line = e.lineno or 0
        source = e.text or ""
        text = e.msg or ""
    else:
        frames = [f for f in traceback.extract_tb(e.__traceback__) if f.filename == filename]
        if frames:
            line = frames[-1].lineno or 0
            source = frames[-1].line or linecache.getline(filename, line)
    return {
        "type": type(e).__name__,
        "text": text[:KEPT],
        "line": line,
        "source": source.strip()[:KEPT],
        "to be written": isinstance(e, NotImplementedError),
        "memory": isinstance(e, MemoryError),
    }


def refusal(function: Any, wanted: list[str], by_name: bool) -> str:
    """Arguments of a function that cannot be called with those of its exercise; "" if it can."""
    try:
        signature = inspect.signature(getattr(function, "py_func", function))
    except (TypeError, ValueError):  # a ufunc, or compiled code
        return ""
    try:
        if by_name:
            signature.bind(**dict.fromkeys(wanted))
        else:
            signature.bind(*wanted)
    except TypeError:
        return str(signature)
    return ""
