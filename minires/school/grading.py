"""Is this function right? If not: the smallest case that shows it, and the bug that explains it."""

from __future__ import annotations

import contextlib
import html
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.school.cases import problems
from minires.school.diagnosis import diagnose
from minires.school.draw import SMALL, Case
from minires.school.exercises import EXERCISES, Exercise, arguments, exercise
from minires.school.judge import Attempt, Call, Wrong
from minires.school.perform import refusal
from minires.school.running import Running
from minires.school.sandbox import Child, Clock, Limits, Stopped
from minires.school.search import Enough, FlakyError, smallest_case
from minires.school.words import plain, raised_text, show_case


@dataclass(frozen=True, repr=False)
class Report:
    """The grade of a solution: passed or not, after how many cases, why, and the bug it has.

    `interrupted` is true if the user stopped the check. `cause` says why the cases could not be
    judged: "error" (the file cannot be imported, or its process ended), "timeout" or "missing" (the
    file does not define the function); it is "" if they were.
    """

    name: str
    passed: bool
    examples: int
    message: str
    diagnosis: str = ""
    interrupted: bool = False
    cause: str = ""

    @property
    def verdict(self) -> str:
        """One of "passed", "failed", "error", "timeout" and "missing"."""
        return "passed" if self.passed else self.cause or "failed"

    @property
    def _verdict(self) -> str:
        return "passed" if self.passed else "not passed"

    def __repr__(self) -> str:
        lines = [f"{self.name}: {self._verdict}", self.message, self.diagnosis]
        return "\n".join(filter(None, lines))

    def _repr_html_(self) -> str:
        colour = "#2a7f3f" if self.passed else "#b3261e"
        verdict = f'<span style="color:{colour}">{self._verdict}</span>'
        return (
            f"<div><b>{html.escape(self.name)}: {verdict}</b>"
            f"<pre>{html.escape(self.message)}</pre><p>{html.escape(self.diagnosis)}</p></div>"
        )


def check_file(file: Path, limits: Limits | None = None, name: str | None = None) -> Report:
    """Grade the solution in a file, in a process of its own.

    Parameters
    ----------
    file : Path
        Imported by its path and by nothing else; it may import helpers beside it.
    limits : Limits, optional
    name : str, optional
        The exercise; by default the one that the file defines.

    Raises
    ------
    InputError
        If there is no such file, or no exercise in it.
    """
    if not file.is_file():
        raise InputError(
            f"expected a Python file, found none at {file}; minires exercise start NAME makes one"
        )
    file = file.resolve()
    limits = limits or Limits()
    references = [chosen.where for chosen in EXERCISES.values()]
    shown = exercise(name).name if name else file.stem
    try:
        with Child(file, references, limits) as child:
            answer = child.request("load", str(file), list(EXERCISES))
            if "raised" in answer:
                reason = raised_text(answer["raised"])
                message = f"The file cannot be imported.\n{reason}"
                return Report(shown, False, 0, message, cause="error")
            if name and name not in answer["found"]:
                message = f"The file does not define {name}."
                return Report(name, False, 0, message, cause="missing")
            chosen = exercise(name or _exercise_in(answer["found"], file))
            names, by_name = arguments(chosen)
            choice = child.request("choose", chosen.name, chosen.where, names, by_name)
            if choice["refused"]:
                return _misfit(chosen, choice["refused"])
            return _grade(chosen, child.call, limits)
    except Stopped as e:
        cause = "timeout" if e.too_long else "error"
        message = f"The file cannot be imported.\n{e}"
        return Report(shown, False, 0, message, interrupted=e.interrupted, cause=cause)


def _exercise_in(found: list[str], file: Path) -> str:
    """Name of the exercise that a file solves."""
    if len(found) > 1 and file.stem in found:  # the others are helpers
        return file.stem
    if len(found) != 1 or found[0] not in EXERCISES:
        raise InputError(
            f"{file}: expected the function of one exercise, found {', '.join(found) or 'none'}"
        )
    return found[0]


def check(
    function: Callable[..., Any], name: str | None = None, limits: Limits | None = None
) -> Report:
    """Grade a function of the running program, in place: see `minires.school.running`.

    Parameters
    ----------
    function : callable
    name : str, optional
        The exercise; by default the name of the function.
    limits : Limits, optional

    Returns
    -------
    report : Report
    """
    if not callable(function) or isinstance(function, type):
        raise InputError(
            f"expected a function to grade, got {function!r}; give the function itself"
        )
    chosen = exercise(name or str(getattr(function, "__name__", "?")))
    refused = refusal(function, *arguments(chosen))
    if refused:
        return _misfit(chosen, refused)
    limits = limits or Limits()
    return _grade(chosen, Running(function, limits).call, limits)


def _misfit(chosen: Exercise, got: str) -> Report:
    names, _ = arguments(chosen)
    message = f"{chosen.name} must take ({', '.join(names)}), yours takes {plain(got)}."
    return Report(chosen.name, False, 0, message, cause="error")


class _Search:
    """A search for the smallest case that fails, within the limits."""

    def __init__(self, attempt: Attempt, limits: Limits) -> None:
        self.attempt = attempt
        self.limits = limits
        self.clock = Clock(limits.total)
        self.tried = 0
        self.failed: tuple[Case, Wrong] | None = None  # the last one, which is the smallest so far
        self.stopped = ""  # why the solution can no longer be called
        self.cause = ""
        self.interrupted = False

    def fails_or_ends(self, case: Case) -> bool:
        """Whether a case fails; ends the search as soon as it has stopped."""
        failed = self.fails(case)
        if self.stopped:
            raise Enough
        return failed

    def fails(self, case: Case) -> bool:
        """Whether a case fails; False if the search stops at it."""
        if self.clock.is_over:
            self.stopped = f"All cases together take longer than {self.limits.total:g} seconds."
            self.cause = "timeout"
            return False
        self.tried += 1
        try:
            wrong = self.attempt.judge(case)
        except Stopped as e:
            self.stopped = str(e)
            self.cause = "timeout" if e.too_long else "error"
            self.interrupted = e.interrupted
            self.failed = self.failed or (case, Wrong(self.stopped))
            return False
        if wrong and wrong.unwritten and self.tried == 1:  # a case to look at would say no more
            self.stopped = str(wrong)
            return False
        if wrong:
            self.failed = case, wrong
        return wrong is not None


def _grade(chosen: Exercise, call: Call, limits: Limits) -> Report:
    """Search for a case that fails, and explain it."""
    _, run = problems(SMALL)[chosen.name]
    attempt = Attempt(chosen, run, call, arguments=arguments(chosen)[0])
    search = _Search(attempt, limits)
    flaky = False
    try:
        smallest = smallest_case(chosen.name, search.fails_or_ends)
    except FlakyError:
        smallest = None
        flaky = True
    if search.failed is None:
        passed = not search.stopped
        message = search.stopped or f"{search.tried} cases agree with the reference."
        return Report(chosen.name, passed, search.tried, message, cause=search.cause)
    if not search.stopped:
        flaky = flaky or smallest is None or not search.fails(smallest)
    if flaky and not search.stopped:
        message = (
            "The same arguments gave different answers: "
            "the result must depend on nothing but the arguments."
        )
        return Report(chosen.name, False, search.tried, message)
    return _explained(search, *search.failed)


def _explained(search: _Search, case: Case, wrong: Wrong) -> Report:
    """Report a failing case, what it printed, and the bug that explains it."""
    attempt = search.attempt
    name = attempt.exercise.name
    what = "This case" if search.stopped else "The smallest case that fails"
    message = f"{what}, of {search.tried} tried:\n\n{show_case(case)}\n\n{wrong}"
    if attempt.printed:
        message += (
            f"\n\nIn this case it printed:\n{textwrap.indent(plain(attempt.printed), '    ')}"
        )
    diagnosis = ""
    if wrong.output and not search.stopped:
        with contextlib.suppress(Stopped):
            diagnosis = diagnose(attempt, case, wrong.output, search.clock)
    # a wrong result counts even if the time ran out while a smaller case was sought
    cause = search.cause if str(wrong) == search.stopped else ""
    return Report(name, False, search.tried, message, diagnosis, search.interrupted, cause)
