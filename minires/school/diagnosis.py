"""Find the bug of the zoo that explains a wrong answer."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import Any

from minires.school.bugs import reference_module
from minires.school.cases import Case, Run
from minires.school.judge import Attempt, as_numbers, close
from minires.school.search import sample
from minires.school.zoo import ZOO


def diagnose(attempt: Attempt, smallest: Case, output: str) -> str:
    """Find the bug that gives the same wrong `output` in this case and in many others."""
    where, run = attempt.exercise.where, attempt.run
    module = reference_module(where)
    cases = [smallest, *sample(attempt.exercise.name)]
    got = [_output(run, attempt.module, case, output) for case in cases]
    bugs = [bug for bug in ZOO if reference_module(bug.where) is module]
    for bug in sorted(bugs, key=lambda bug: bug.where != where):  # the op's own bugs first
        planted = bug.plant()
        pairs = zip(cases, got, strict=True)
        if all(_same(_output(run, planted, case, output), seen) for case, seen in pairs):
            return f"Your {output} equals the true one, but {bug.says}."
    return ""


def _output(run: Run, module: ModuleType, case: Case, output: str) -> Any:
    """One output of a run, or the type of the exception that it raised."""
    try:
        return run(module, copy.deepcopy(case)).get(output)
    except (Exception, SystemExit) as e:
        return type(e)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, type) or isinstance(b, type) or a is None or b is None:
        return a is b
    one, other = as_numbers(a), as_numbers(b)
    return one is not None and other is not None and bool(close(one, other).all())
