"""The process that runs a solution: it imports one file and calls one function of it.

It never sees an expected value. The grader sends arguments and compares what is returned.
The solution cannot read the grader's pipe by accident: standard input is empty, standard output
goes nowhere, and `print` is captured.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import importlib.util
import io
import linecache
import os
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minires.school.perform import describe, perform, quiet, refusal
from minires.school.wire import pack, receive, send, unpack

HIDDEN = (
    "minires.ops.numba_ops",
    "minires.ops.numba_fused",
    "minires.ops.numba_alexnet",
    "minires.ops.compiled",
)


class Forbidden(RuntimeError):  # noqa: N818 - it is the student's error
    """The solution called the function that it is to replace."""


class Guard:
    """Keep a solution from calling its own reference; all other functions are allowed."""

    references = frozenset(
        {
            "minires.ops.numpy_ops",
            "minires.ops.numpy_alexnet",
            "minires.nets.resnet",
            "minires.optim",
        }
    )

    def __init__(self) -> None:
        self.active = ""
        self.called = False

    def install(self, references: Sequence[str]) -> None:
        """Put a check before every reference, given as "module:function"."""
        for where in references:
            module, _, path = where.partition(":")
            owner, _, name = path.rpartition(".")
            holder: Any = importlib.import_module(f"minires.{module}")
            original = attrgetter(path)(holder)
            checked = self._checked(original, where)
            if owner:
                setattr(attrgetter(owner)(holder), name, checked)
                continue
            for other in [m for key, m in sys.modules.items() if key.startswith("minires.")]:
                if vars(other).get(name) is original:
                    setattr(other, name, checked)
        sys.meta_path.insert(0, self)
        for name in HIDDEN:
            sys.modules[name] = None  # type: ignore[assignment]

    def _checked(self, original: Callable[..., Any], where: str) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **named: Any) -> Any:
            if self.active == where:
                self.called = True
                raise Forbidden(f"minires.{where.replace(':', '.')} is what you are to write")
            return original(*args, **named)

        del call.__wrapped__
        return call

    def find_spec(self, name: str, *_: Any) -> None:
        """Refuse to import the references a second time, and the grader at all."""
        if name.startswith("minires.school.") or (
            name.startswith("minires.") and name in self.references
        ):
            raise ImportError(f"{name} is not available while a solution is graded")


class Solution:
    """The file of a student and the function that is graded."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.names: dict[str, Any] = {}
        self.function: Any = None
        self.previous: list[np.ndarray] = []

    def load(self, path: str, exercises: list[str]) -> bytes:
        """Import the file; answer with the exercises that it defines."""
        name = f"solution_{Path(path).stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        sys.path.insert(0, str(Path(path).parent))
        linecache.checkcache(path)
        with quiet() as output:
            try:  # compiled here: a loader would leave a __pycache__ beside the file
                exec(compile(Path(path).read_bytes(), path, "exec"), vars(module))
            except BaseException as e:
                return pack({"raised": describe(e, path), "printed": output.text})[0]
        self.names = vars(module)
        found = [n for n in exercises if getattr(self.names.get(n), "__module__", "") == name]
        return pack({"found": found})[0]

    def choose(self, exercise: str, where: str, wanted: list[str], by_name: bool) -> bytes:
        """Choose the function that is graded; answer with its arguments if they do not fit."""
        self.function = self.names[exercise]
        self.guard.active = where
        with quiet():
            return pack({"refused": refusal(self.function, wanted, by_name)})[0]

    def call(self, message: bytes) -> bytes:
        """Call the function; answer with the outcome."""
        self.guard.called = False
        answer = perform(self.function, message, self.previous)
        return pack({"reference": True})[0] if self.guard.called else answer


def limit_memory(megabytes: int) -> None:
    """Limit how much more memory this process may use than now, where the system allows it."""
    with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def channel() -> tuple[BinaryIO, BinaryIO]:
    """Move the pipes to the grader away from standard input and output, which become empty."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)
    sys.stdin = io.StringIO()
    return requests, answers


def main() -> None:
    """Answer requests until the pipe ends.

    The first request holds the file that receives the stack after a crash, the time and memory
    limits, and the references.
    """
    requests, answers = channel()
    first = receive(requests)
    assert first is not None
    (crash, seconds, megabytes, references), _ = unpack(first[1])
    with open(crash, "w", encoding="utf-8") as stack:
        faulthandler.enable(stack)
        guard = Guard()
        guard.install(references)
        solution = Solution(guard)
        limit_memory(megabytes)
        send(answers, first[0], pack("ready")[0])
        while request := receive(requests):
            token, message = request
            with contextlib.suppress(RuntimeError):  # no memory for its thread
                faulthandler.dump_traceback_later(seconds, exit=True, file=stack)
            if message[:1] == b"c":
                answer = solution.call(message[1:])
            else:
                (kind, *arguments), _ = unpack(message[1:])
                answer = getattr(solution, kind)(*arguments)
            faulthandler.cancel_dump_traceback_later()
            send(answers, token, answer)
    os._exit(0)  # threads of the solution must not keep the process alive


if __name__ == "__main__":
    main()
