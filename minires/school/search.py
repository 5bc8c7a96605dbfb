"""Search an exercise's cases with hypothesis, the same ones at every call."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import HealthCheck, find, settings
from hypothesis.errors import Flaky, NoSuchExample

from minires.school.cases import Case, problems

SIZES = (2, 4)  # largest rows and columns: small images first, as their failures are easy to read
EXAMPLES = 60  # cases of each size


class FlakyError(Exception):
    """The condition gave different answers for the same case."""


def smallest_case(name: str, condition: Callable[[Case], bool]) -> Case | None:
    """Find the smallest case of an exercise that meets the condition.

    Raises
    ------
    FlakyError
        If the condition gives different answers for the same case.
    """
    found = (_find(problems(size)[name][0], condition) for size in SIZES)
    return next(filter(None, found), None)


def sample(name: str) -> list[Case]:
    """Draw many cases of an exercise, of the larger size."""
    drawn: list[Case] = []

    def note(case: Case) -> bool:
        drawn.append(case)
        return False

    _find(problems(SIZES[-1])[name][0], note)
    return drawn


def _find(cases: Any, condition: Callable[[Case], bool]) -> Case | None:
    quiet = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    try:
        return find(cases, condition, settings=quiet, random=Random(0))
    except NoSuchExample:
        return None
    except Flaky as e:
        raise FlakyError from e
