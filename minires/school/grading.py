"""Is this function right? If not: the smallest case that shows it, and the bug that explains it."""

from __future__ import annotations

import contextlib
import html
import importlib.util
import io
import linecache
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.school.cases import Case, problems
from minires.school.diagnosis import diagnose
from minires.school.exercises import EXERCISES, exercise
from minires.school.judge import Attempt, Wrong
from minires.school.search import SIZES, FlakyError, smallest_case
from minires.school.words import error_with_line, show_case


@dataclass(frozen=True, repr=False)
class Report:
    """The grade of a solution: passed or not, after how many cases, why, and the bug it has."""

    name: str
    passed: bool
    examples: int
    message: str
    diagnosis: str = ""

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


def check_file(file: Path) -> Report:
    """Grade the solution in a file, which is imported by its path and by nothing else.

    Raises
    ------
    InputError
        If there is no such file, or no exercise in it.
    """
    path = str(file.resolve())
    spec = importlib.util.spec_from_file_location(f"solution_{file.stem}", path)
    if not file.is_file() or spec is None:
        raise InputError(
            f"expected a Python file, found none at {file}; minires exercise start NAME makes one"
        )
    module = importlib.util.module_from_spec(spec)
    linecache.checkcache(path)
    try:  # compiled here: a loader would leave a __pycache__ beside the file
        with contextlib.redirect_stdout(sys.stderr):  # the file's own output is not the answer
            exec(compile(file.read_bytes(), path, "exec"), vars(module))
    except (Exception, SystemExit) as e:
        reason = error_with_line(e, path) or f"{type(e).__name__}: {e}"
        return Report(file.stem, False, 0, f"The file cannot be imported.\n{reason}")
    name = _exercise_in(module, file)
    return check(vars(module)[name], name)


def _exercise_in(module: ModuleType, file: Path) -> str:
    """Name of the exercise that a file solves."""
    names = vars(module)
    origin = {name: getattr(names.get(name), "__module__", "") for name in EXERCISES}
    found = [name for name in EXERCISES if origin[name] == module.__name__]
    if len(found) > 1 and file.stem in found:  # the others are helpers
        return file.stem
    if len(found) != 1:
        raise InputError(
            f"{file}: expected the function of one exercise, found {', '.join(found) or 'none'}"
        )
    return found[0]


def check(function: Callable[..., Any], name: str | None = None) -> Report:
    """Grade a function.

    Parameters
    ----------
    function : callable
    name : str, optional
        The exercise; by default the name of the function.

    Returns
    -------
    report : Report
    """
    if not callable(function) or isinstance(function, type):
        raise InputError(
            f"expected a function to grade, got {function!r}; give the function itself"
        )
    chosen = exercise(name or str(getattr(function, "__name__", "?")))
    _, run = problems(SIZES[0])[chosen.name]
    attempt = Attempt.of(chosen, run, function)
    printed = io.StringIO()
    with np.errstate(all="ignore"), contextlib.redirect_stdout(printed):
        return _grade(attempt, printed)


def _grade(attempt: Attempt, printed: io.StringIO) -> Report:
    """Search for a case that fails, and explain it; `printed` holds what the attempt prints."""
    name = attempt.exercise.name
    tried = 0

    def judge(case: Case) -> Wrong | None:
        printed.seek(0)
        printed.truncate()
        return attempt.judge(case)

    def fails(case: Case) -> bool:
        nonlocal tried
        tried += 1
        return judge(case) is not None

    smallest = wrong = None
    with contextlib.suppress(FlakyError):
        smallest = smallest_case(name, fails)
        if smallest is None:
            return Report(name, True, tried, f"{tried} cases agree with the reference.")
        wrong = judge(smallest)
    if smallest is None or wrong is None:
        flaky = (
            "The same arguments gave different answers: "
            "the result must depend on nothing but the arguments."
        )
        return Report(name, False, tried, flaky)
    output = printed.getvalue()
    message = f"The smallest case that fails, of {tried} tried:\n\n{show_case(smallest)}\n\n{wrong}"
    if output:
        message += f"\n\nIn this case it printed:\n{textwrap.indent(output, '    ')}"
    diagnosis = diagnose(attempt, smallest, wrong.output) if wrong.output else ""
    return Report(name, False, tried, message, diagnosis)
