"""Grade the submissions of a class, several at a time, each in processes of its own.

A submission gets a grader of its own, and that grader runs the solution in its sandbox. Whatever a
solution does to either of them, the next submission starts with new ones, in a new folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minires.school.sandbox import STARTING, Limits
from minires.school.submissions import Job

VERDICTS = ("passed", "failed", "error", "timeout", "missing")
CODE = "import sys; sys.path.append({!r}); from minires.__main__ import main; main()"
PATIENCE = 5.0  # seconds that a stopped grader gets to end its sandbox


@dataclass(frozen=True)
class Grade:
    """One row of the grade book.

    Attributes
    ----------
    submission, exercise : str
    verdict : str
        One of `VERDICTS`.
    cases : int
        How many were tried.
    seconds : float
    message : str
        The diagnosis, and what the grader says about the smallest case that fails.
    """

    submission: str
    exercise: str
    verdict: str
    cases: int
    seconds: float
    message: str


def grade(jobs: Sequence[Job], limits: Limits, at_once: int) -> Generator[Grade, None, None]:
    """Grade all jobs, `at_once` at a time; yield each grade as soon as it is known.

    If the iteration ends early, the graders that run are stopped.
    """
    graders = _Graders(limits)
    with ThreadPoolExecutor(at_once) as pool:
        waiting = {pool.submit(graders.grade, job) for job in jobs}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            graders.stop()


class _Graders:
    """The graders that run now."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        # the grader limits the solution; this limits the grader, which has to start and explain too
        self.most = 2 * STARTING + 2 * limits.total
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def grade(self, job: Job) -> Grade:
        """Grade one job."""
        if job.file is None:
            return Grade(job.submission, job.exercise, job.verdict, 0, 0.0, job.problem)
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="minires-", ignore_cleanup_errors=True) as folder:
            answer = self._ask(job.file.resolve(), job.exercise, folder)
        seconds = time.monotonic() - start
        verdict, cases = answer["verdict"], answer["examples"]
        message = " ".join(filter(None, [answer["diagnosis"], answer["message"]]))
        return Grade(job.submission, job.exercise, verdict, cases, seconds, message)

    def _ask(self, file: Path, exercise: str, folder: str) -> dict[str, Any]:
        """Run `minires exercise check` on a file, in an empty folder; return what it prints."""
        root = str(Path(__file__).resolve().parents[2])
        words = ["exercise", "check", str(file), "--exercise", exercise, "--json"]
        words += ["--limit", str(self.limits.total), "--case-limit", str(self.limits.seconds)]
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", CODE.format(root), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            # a grader that is killed leaves its files there too
            env={**os.environ, "TMPDIR": folder, "TEMP": folder, "TMP": folder},
            start_new_session=True,  # Ctrl-C reaches it through `stop` alone
        )
        self.running.add(process)
        try:
            if self.stopped:
                self._end(process)
            out, err = process.communicate(timeout=self.most)
        except subprocess.TimeoutExpired:
            self._end(process)
            return _unjudged("timeout", f"The grader was stopped after {self.most:g} seconds.")
        finally:
            self.running.discard(process)
        return _answer(out, err)

    def stop(self) -> None:
        """End the graders that run, and with them the solutions."""
        self.stopped = True
        for process in list(self.running):
            self._end(process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Stop a grader as Ctrl-C would, so that it ends its sandbox; then kill it."""
        with contextlib.suppress(OSError):
            process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answer(out: bytes, err: bytes) -> dict[str, Any]:
    """Read what a grader printed."""
    try:
        answer = json.loads(out)
        if answer["verdict"] in VERDICTS:
            return answer
    except (ValueError, KeyError, TypeError):
        pass
    words = err.decode("utf-8", "replace").strip() or "it printed nothing"
    return _unjudged("error", f"The grader ended without a verdict: {words}")


def _unjudged(verdict: str, message: str) -> dict[str, Any]:
    return {"verdict": verdict, "examples": 0, "message": message, "diagnosis": ""}
