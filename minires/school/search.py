"""Search an exercise's cases with hypothesis, the same ones at every call."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, configuration, find, settings
from hypothesis.errors import Flaky, NoSuchExample

from minires.school.cases import problems
from minires.school.draw import LARGE, MEDIUM, SMALL, Case

# size and number of cases: small ones first, as their failures are easy to read
SEARCHES = ((SMALL, 40), (MEDIUM, 60), (LARGE, 30))
PHASES = (Phase.generate, Phase.shrink)
SAMPLES = ((MEDIUM, 40), (LARGE, 20))  # that a diagnosis must explain


class FlakyError(Exception):
    """The condition gave different answers for the same case."""


class Enough(BaseException):
    """Raised by a condition to end the search. Hypothesis takes an Exception for a result."""


def smallest_case(name: str, condition: Callable[[Case], bool]) -> Case | None:
    """Find the smallest case of an exercise that meets the condition.

    None if there is none, or if the condition ended the search.

    Raises
    ------
    FlakyError
        If the condition gives different answers for the same case.
    """
    found = (_find(problems(size)[name][0], condition, most) for size, most in SEARCHES)
    try:
        return next((case for case in found if case is not None), None)
    except Enough:
        return None


@cache
def sample(name: str) -> tuple[Case, ...]:
    """Draw many cases of an exercise; do not change them."""
    drawn: list[Case] = []

    def note(case: Case) -> bool:
        drawn.append(case)
        return False

    for size, most in SAMPLES:
        _find(problems(size)[name][0], note, most)
    return tuple(drawn)


def _find(cases: Any, condition: Callable[[Case], bool], most: int) -> Case | None:
    quiet = settings(
        max_examples=most,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=PHASES,
    )
    try:
        with _elsewhere():
            return find(cases, condition, settings=quiet, random=Random(0))
    except NoSuchExample:
        return None
    except Flaky as e:
        raise FlakyError from e


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Let hypothesis store its notes in a temporary folder, not in the student's."""
    before: Any = configuration.storage_directory(intent_to_write=False)
    before = getattr(before, "path", before)  # other versions return the path itself
    with tempfile.TemporaryDirectory(prefix="minires-", ignore_cleanup_errors=True) as folder:
        configuration.set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            configuration.set_hypothesis_home_dir(before)
