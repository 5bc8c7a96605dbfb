"""Run a solution in a process of its own, with limits: the grader's side.

The grader sends arguments and gets back data. If anything happens to the process, the verdict is
made here: a solution cannot hang the grader, crash it, or answer in its place. Every request has a
fresh random token, and an answer without it is refused.

The limits guard against accidents and lazy tricks. They do not protect against a program that
attacks the machine of the same user. A solution that is wrong once in many calls can pass.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from minires.school.wire import TOKEN, BadMessageError, pack, receive, send, unpack

GRACE = 2.0  # seconds after a limit until the process is killed from outside
STARTING = 60.0  # seconds that the process may take to start
CODE = "import sys; sys.path.append({!r}); from minires.school.child import main; main()"


@dataclass(frozen=True)
class Limits:
    """Limits of a solution: time, memory and output.

    Attributes
    ----------
    seconds : float
        For one case, and for the import of the file.
    total : float
        Seconds for all cases together.
    megabytes : int
        Memory, on systems that can limit it (Linux).
    """

    seconds: float = 20.0
    total: float = 60.0
    megabytes: int = 1024


class Stopped(Exception):  # noqa: N818 - it is a verdict, and caught by the grader
    """The solution cannot be called again; the message says why and in which line."""

    def __init__(self, message: str, interrupted: bool = False, too_long: bool = False) -> None:
        super().__init__(message)
        self.interrupted = interrupted
        self.too_long = too_long


class Child:
    """The process that runs the solution in a file; a context manager that ends it."""

    def __init__(self, file: Path, references: list[str], limits: Limits) -> None:
        self.file = file
        self.limits = limits
        self.answers: queue.Queue[Any] = queue.Queue()
        handle, name = tempfile.mkstemp(prefix="minires-", suffix=".txt")
        os.close(handle)
        self.stack = Path(name)
        root = str(Path(__file__).resolve().parents[2])
        new_group: dict[str, Any] = (
            {"start_new_session": True} if os.name == "posix" else {"creationflags": 0x200}
        )
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-P", "-c", CODE.format(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"OPENBLAS_NUM_THREADS": "1", **os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            **new_group,
        )
        threading.Thread(target=self._read, daemon=True).start()
        settings = [name, limits.seconds, limits.megabytes, references]
        try:
            self._ask(pack(settings)[0], STARTING)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
        with contextlib.suppress(OSError):
            self.stack.unlink()

    def request(self, kind: str, *arguments: Any) -> dict[str, Any]:
        """Ask for something other than a call."""
        answer, _ = self._understood(self._ask(b"r" + pack([kind, *arguments])[0]), [])
        return answer

    def call(self, args: tuple, named: dict[str, Any]) -> dict[str, Any]:
        """Call the chosen function; its changes to the arguments are copied back into them."""
        message, things = pack([list(args), named])
        answer, _ = self._understood(self._ask(b"c" + message), things)
        return answer

    def _understood(self, message: bytes, things: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        try:
            answer, more = unpack(message, things)
            if not isinstance(answer, dict):
                raise BadMessageError(f"expected a dict, got {type(answer).__name__}")
        except BadMessageError as e:
            raise Stopped(f"The answer of the process cannot be read ({e}).") from None
        return answer, more

    def _ask(self, message: bytes, seconds: float = 0) -> bytes:
        """Send a request and wait for the answer that has its token."""
        token = secrets.token_bytes(TOKEN)
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # the process has ended: the answer will say so
            send(self.process.stdin, token, message)
        try:
            answer = self.answers.get(timeout=seconds or self.limits.seconds + GRACE)
        except queue.Empty:
            self._kill()
            raise Stopped(self._too_long(), too_long=True) from None
        except KeyboardInterrupt:
            line = self._line_of_running()
            raise Stopped(f"You stopped it{line}.", interrupted=True) from None
        if answer is None:
            raise self._ended()
        if isinstance(answer, str) or not secrets.compare_digest(answer[0], token):
            self._kill()
            raise Stopped("The solution wrote into the grader's pipe: nothing it says counts.")
        return answer[1]

    def _read(self) -> None:
        """Put every answer into the queue; None at the end."""
        assert self.process.stdout is not None
        try:
            while answer := receive(self.process.stdout):
                self.answers.put(answer)
        except BadMessageError as e:
            self.answers.put(str(e))
        except (OSError, ValueError, MemoryError):
            pass
        self.answers.put(None)

    # ------------------------------------------------------------------------------ why it ended

    def _kill(self) -> None:
        """End the process and what it started."""
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()

    def _too_long(self) -> str:
        return f"It takes longer than {self.limits.seconds:g} seconds{self._line()}."

    def _ended(self) -> Stopped:
        """Say why the process is gone."""
        try:
            code = self.process.wait(GRACE)
        except subprocess.TimeoutExpired:  # alive, with its pipe closed
            self._kill()
            return Stopped("The solution closed the grader's pipe.")
        stack = self._stack()
        if stack.startswith("Timeout"):
            return Stopped(self._too_long(), too_long=True)
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return Stopped(f"The process crashed or was killed ({name}){self._line()}.")
        return Stopped(
            f"The solution ended the process (exit status {code}){self._line()}. "
            "It must return, and never call os._exit or the like."
        )

    def _line_of_running(self) -> str:
        """End the process; say where it was, on systems where it can be asked."""
        if os.name == "posix":
            with contextlib.suppress(OSError):
                os.kill(self.process.pid, signal.SIGABRT)  # faulthandler writes the stack
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        self._kill()
        return self._line()

    def _stack(self) -> str:
        try:
            return self.stack.read_text("utf-8", "replace")[-100_000:]
        except OSError:
            return ""

    def _line(self) -> str:
        """The innermost line of the student's file in the stack of the process."""
        name = str(self.file).encode("ascii", "backslashreplace").decode()
        pattern = rf'File "{re.escape(name)}", line (\d+)'
        found = re.search(pattern, self._stack())
        if not found:
            return ""
        number = int(found[1])
        lines = self.file.read_bytes().decode("utf-8", "replace").splitlines()
        text = lines[number - 1].strip() if number <= len(lines) else ""
        return f", in line {number}: {text}"


class Clock:
    """The time that all cases together may take."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.end
