"""Find the mistake that explains a wrong answer.

A mistake is named only if it gives the same wrong values in the smallest case and in many others,
and differs from the reference in some of them. A wrong dtype, type or shape is never explained: the
message says it already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from minires.school.bugs import copy_of, reference_module, replace_function
from minires.school.cases import fresh
from minires.school.draw import Case
from minires.school.expected import TIMES, Expected
from minires.school.judge import Attempt, Wrong
from minires.school.mistakes import MISTAKES, RELATIONS
from minires.school.search import sample
from minires.school.zoo import ZOO

Candidate = Callable[[Case], Any]  # what a mistake would give as the output


def diagnose(attempt: Attempt, smallest: Case, output: str) -> str:
    """Find the mistake that gives the same wrong `output` in this case and in many others."""
    cases = [smallest, *sample(attempt.exercise.name)]
    seen = []
    for case in cases:
        got = attempt.results(case)
        right = attempt.expected(case).get(output)
        if right is None:  # another number of steps
            continue
        if isinstance(got, Wrong) or not _comparable(right, got.get(output)):
            return ""
        seen.append((case, right, np.asarray(got[output])))
    with np.errstate(all="ignore"):
        for says, candidate in _candidates(attempt, output):
            if _explains(candidate, seen):
                return f"Your {output.removeprefix('the ')} equals the true one, but {says}."
    return ""


def _comparable(right: Expected, got: Any) -> bool:
    """Whether a value has the type, dtype and shape of the right one."""
    value = np.asarray(got)
    return (
        isinstance(got, np.ndarray) == right.is_array
        and value.dtype.kind == "f"
        and (value.dtype == right.value.dtype or not right.is_array)
        and value.shape == right.value.shape
    )


def _candidates(attempt: Attempt, output: str) -> Iterator[tuple[str, Candidate]]:
    """The mistakes of this exercise, the function's own bugs first."""
    where = attempt.exercise.where
    module = reference_module(where)

    def results(copy: ModuleType) -> Candidate:
        return lambda case: attempt.run(copy, fresh(case)).get(output)

    bugs = [bug for bug in ZOO if reference_module(bug.where) is module]
    for bug in sorted(bugs, key=lambda bug: bug.where != where):
        yield bug.says, results(bug.plant())
    copy = copy_of(where)
    for says, function in MISTAKES.get(attempt.exercise.name, {}).items():
        replace_function(copy, attempt.exercise.function, function)
        yield says, results(copy)
    for says, relation in RELATIONS.items():
        yield says, _related(relation, attempt, module, output)


def _related(relation: Any, attempt: Attempt, module: ModuleType, output: str) -> Candidate:
    return lambda case: relation(np.asarray(attempt.run(module, fresh(case))[output]), case)


def _explains(candidate: Candidate, seen: list[tuple[Case, Expected, np.ndarray]]) -> bool:
    """Whether a mistake gives what was seen in every case, and something wrong in one."""
    differs = False
    for case, right, got in seen:
        try:
            value = candidate(case)
        except Exception:
            return False
        value = np.asarray(value)
        if value.dtype.kind not in "biuf" or value.shape != got.shape:
            return False
        if not Expected(got, right.is_array, _allowed(right, got)).agrees(value).all():
            return False
        differs = differs or not right.agrees(value).all()
    return differs


def _allowed(right: Expected, got: np.ndarray) -> float:
    """Rounding errors grow with the wrong values, where these are larger than the right ones."""
    large = float(np.abs(got[np.isfinite(got)]).max(initial=0))
    usual = float(np.abs(right.value[np.isfinite(right.value)]).max(initial=0))
    ratio = large / usual if usual else 0.0
    return max(
        right.allowed * max(1.0, ratio), TIMES * float(np.finfo(right.value.dtype).eps) * large
    )
