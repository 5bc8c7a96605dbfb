"""The hunt: one line of an op is wrong. The student finds it with the gradient checker."""

from __future__ import annotations

import ast
import inspect

import numpy as np

from minires.errors import InputError
from minires.school.bugs import Bug, reference_module
from minires.school.exercises import EXERCISES, OPTIONS, Exercise
from minires.school.zoo import ZOO
from minires.text import did_you_mean

FIRST = "no-mean-path"  # the bug of seed 0: with it the loss falls, so only a check shows it


def choose_bug(op: str | None = None, seed: int = 0) -> tuple[Exercise, Bug]:
    """Choose a bug that the gradient checker can find, in the backward pass `op` or in any.

    Seed 0 without `op` chooses `FIRST`.

    Raises
    ------
    InputError
        If there is no bug in that op.
    """
    by_where = {e.where: e for e in EXERCISES.values() if _is_backward(e)}
    bugs = [bug for bug in ZOO if bug.where in by_where]
    chosen = [bug for bug in bugs if op in (None, bug.function)]
    if not chosen:
        known = sorted({bug.function for bug in bugs})
        raise InputError(
            f"no bug hides in {op!r}: expected one of {', '.join(known)}"
            f"{did_you_mean(op or '', known)}"
        )
    bug = chosen[int(np.random.default_rng(seed).integers(len(chosen)))]
    if op is None and seed == 0:
        bug = next(bug for bug in chosen if bug.name == FIRST)
    return by_where[bug.where], bug


def _is_backward(exercise: Exercise) -> bool:
    """Whether this is the backward pass of an op."""
    return exercise.where.startswith("ops.numpy_ops:") and exercise.name.endswith("_backward")


def hidden_bug_file(chosen: Exercise, bug: Bug) -> str:
    """Text of a file with the whole op and the bug, which it does not name."""
    source = bug.source()
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    module = reference_module(chosen.where)
    names = sorted(name for name in used & set(vars(module)) if name != "np")
    op = chosen.name.removesuffix("_backward")
    forward = inspect.signature(getattr(module, f"{op}_forward"))
    inputs = ", ".join(name for name in forward.parameters if name not in OPTIONS)
    return f'''"""One line of {chosen.name} below is wrong. Find it with the gradient checker:

    from minires import get_ops, gradcheck
    gradcheck.check_op(get_ops("numpy").{op}_forward, {chosen.name}, {inputs})

with arrays of your choice. Which gradient is wrong, at which elements, for which strides, batches
and cotangents? Correct the line, then check the file: minires exercise check FILE
"""

import numpy as np

from minires.{chosen.where.partition(":")[0]} import {", ".join(names)}


{source}'''
