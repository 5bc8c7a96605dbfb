"""Find the mistake that explains a wrong answer.

A mistake is named only if it gives the same wrong values in the smallest case and in many others,
and differs from the reference in some of them. A wrong dtype, type or shape is never diagnosed,
because the message already states it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from minires.school.bugs import Bug, copy_of, reference_module, replace_function
from minires.school.cases import fresh, problems, with_arrays
from minires.school.draw import SMALL, Case
from minires.school.exercises import exercise
from minires.school.expected import TIMES, Expected
from minires.school.judge import Attempt, Wrong, right_results
from minires.school.mistakes import MISTAKES, RELATIONS, UNSTABLE
from minires.school.sandbox import Clock
from minires.school.search import sample
from minires.school.zoo import ZOO

# from a case, the name of an output and its right value: what a mistake would give
Candidate = Callable[[Case, str, Expected], Any]
Seen = list[tuple[Case, str, Expected, np.ndarray]]


def diagnose(attempt: Attempt, smallest: Case, output: str, clock: Clock) -> str:
    """Find the mistake that gives the same wrong `output` in this case and in many others.

    No mistake is named when the time is up.
    """
    stem = output.partition(" after ")[0]  # every step of one parameter
    seen: Seen = []
    for case, expected in [
        (smallest, attempt.expected(smallest)),
        *_examined(attempt.exercise.name),
    ]:
        if clock.is_over:
            return ""
        got = attempt.results(case)
        for name in [name for name in expected if name.partition(" after ")[0] == stem]:
            if isinstance(got, Wrong) or not _comparable(expected[name], got.get(name)):
                return ""
            seen.append((case, name, expected[name], np.asarray(got[name])))
    with np.errstate(all="ignore"):
        for says, candidate in _candidates(attempt):
            if _explains(candidate, seen, unstable=says in UNSTABLE):
                return f"Your {output.removeprefix('the ')} equals the true one, but {says}."
    return ""


@cache
def _examined(name: str) -> tuple[tuple[Case, dict[str, Expected]], ...]:
    """Many cases of an exercise and their right results."""
    chosen = exercise(name)
    run = problems(SMALL)[name][1]
    return tuple((case, right_results(chosen, run, case)) for case in sample(name))


def _comparable(right: Expected, got: Any) -> bool:
    """Whether a value has the type, dtype and shape of the right one."""
    value = np.asarray(got)
    return (
        isinstance(got, np.ndarray) == right.is_array
        and value.dtype.kind == "f"
        and (value.dtype == right.value.dtype or not right.is_array)
        and value.shape == right.value.shape
    )


def _candidates(attempt: Attempt) -> Iterator[tuple[str, Candidate]]:
    """The mistakes of this exercise, the function's own bugs first."""
    where = attempt.exercise.where
    module = reference_module(where)

    def results(copy: ModuleType) -> Candidate:
        return lambda case, name, right: attempt.run(copy, fresh(case)).get(name)

    bugs = [bug for bug in ZOO if reference_module(bug.where) is module]
    for bug in sorted(bugs, key=lambda bug: bug.where != where):
        yield bug.says, results(_planted(bug))
    copy = copy_of(where)
    for says, function in MISTAKES.get(attempt.exercise.name, {}).items():
        replace_function(copy, attempt.exercise.function, function)
        yield says, results(copy)
    for says, relation in RELATIONS.items():
        yield says, _related(relation)


def _related(relation: Callable[[np.ndarray, Case], Any]) -> Candidate:
    return lambda case, name, right: relation(right.value, case)


@cache
def _planted(bug: Bug) -> ModuleType:
    return bug.plant()


def _explains(candidate: Candidate, seen: Seen, unstable: bool) -> bool:
    """Whether a mistake gives what was seen in every case, and something wrong in one.

    The result of an unstable mistake is compared only to within that mistake's rounding error.
    """
    differs = False
    for case, name, right, got in seen:
        try:
            value = candidate(case, name, right)
        except Exception:
            return False
        value = np.asarray(value)
        if value.dtype.kind not in "biuf" or value.shape != got.shape:
            return False
        allowed = _allowed(right, got)
        if unstable:
            changed = np.asarray(candidate(with_arrays(case, _next), name, right))
            noise = TIMES * np.abs(changed - value).max(initial=0)
            allowed = np.fmax(allowed, noise if np.isfinite(noise) else np.inf)
        if not _agree(value, got, allowed, unstable):
            return False
        differs = differs or not right.agrees(value).all()
    return differs


def _agree(value: np.ndarray, got: np.ndarray, allowed: Any, unstable: bool) -> bool:
    if unstable:  # infinite, or close
        return not np.isfinite(allowed).all() or bool((np.abs(value - got) <= allowed).all())
    return bool(Expected(got, True, allowed).agrees(value).all())


def _next(a: np.ndarray) -> np.ndarray:
    """The array with a rounding error in every other element."""
    changed = np.nextafter(a, np.inf, dtype=a.dtype)
    return np.where(np.arange(a.size).reshape(a.shape) % 2, a, changed)


def _allowed(right: Expected, got: np.ndarray) -> Any:
    """Rounding error to allow; it grows with the wrong values if they exceed the right ones."""
    rounding = TIMES * float(np.finfo(right.value.dtype).eps)
    if np.ndim(right.allowed):
        return rounding * np.abs(got)
    large = float(np.abs(got[np.isfinite(got)]).max(initial=0))
    usual = float(np.abs(right.value[np.isfinite(right.value)]).max(initial=0))
    ratio = large / usual if usual else 0.0
    return max(right.allowed * max(1.0, ratio), rounding * large)
