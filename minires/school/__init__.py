"""For students and teachers: exercises, a grader that names the bug, and a zoo of bugs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minires.school.grading import Report
    from minires.school.sandbox import Limits

__all__ = ["check"]


def check(
    function: Callable[..., Any], name: str | None = None, limits: Limits | None = None
) -> Report:
    """Grade a function that solves an exercise, see `minires.school.grading.check`."""
    from minires.school import grading  # hypothesis takes a moment to import

    return grading.check(function, name, limits)
