"""One case: run an attempt beside the reference, and say what is wrong with its results."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from minires.school.bugs import copy_of, reference_module, replace_function
from minires.school.cases import Case, Run, returned
from minires.school.exercises import Exercise, cache_line
from minires.school.words import error_with_line, file_of, show_both

# cases are small whole numbers: a bug is off by far more
TOLERANCE = {"float32": 1e-3, "float64": 1e-8}


class Wrong(Exception):  # noqa: N818 - it is the student's error, and caught here
    """What is wrong with one result; `output` names it if the fault lies in its values."""

    def __init__(self, message: str, output: str = "") -> None:
        self.output = output
        super().__init__(message)


@dataclass(frozen=True)
class Attempt:
    """A student's function in a copy of the reference's module."""

    exercise: Exercise
    run: Run
    function: Callable[..., Any]
    module: ModuleType

    @classmethod
    def of(cls, exercise: Exercise, run: Run, function: Callable[..., Any]) -> Attempt:
        """Put the function into a copy of the reference's module."""
        module = copy_of(exercise.where)
        replace_function(
            module, exercise.function, _checked(function, returned(exercise.reference))
        )
        return cls(exercise, run, function, module)

    def judge(self, case: Case) -> Wrong | None:
        """What is wrong with the attempt at this case, if anything."""
        chosen = self.exercise
        expected = self.run(reference_module(chosen.where), copy.deepcopy(case))
        try:
            got = self.run(self.module, copy.deepcopy(case))
        except Wrong as e:
            return e
        except NotImplementedError as e:
            line = error_with_line(e, file_of(self.function))
            return Wrong(f"{chosen.name} is still to be written.\n{line}")
        except (Exception, SystemExit) as e:
            return Wrong(_raised(chosen, e, file_of(self.function)))
        for output, value in expected.items():
            wrong = _compare(output, np.asarray(value), got[output], isinstance(value, np.ndarray))
            if wrong:
                return Wrong(_blame_cache(chosen, output) + wrong, output)
        return None


def _blame_cache(chosen: Exercise, output: str) -> str:
    """Say that the cache is to blame, if the output is not one that the function returns."""
    if output in returned(chosen.reference) or not cache_line(chosen):
        return ""
    return "What is returned is right, but the backward makes a wrong gradient of this cache.\n"


def _raised(chosen: Exercise, e: BaseException, filename: str) -> str:
    """Say where the student's code failed, or that the backward could not use the cache."""
    own = error_with_line(e, filename)
    error = f"{type(e).__name__}: {e}"
    if own or not cache_line(chosen):
        return own or error
    backward = chosen.name.replace("_forward", "_backward")
    return f"{backward} cannot use this cache: {error}\nIt begins with   {cache_line(chosen)}"


# ------------------------------------------------------------------------------------- its results


def _compare(output: str, expected: np.ndarray, got: Any, is_array: bool) -> str:
    """Say the first difference; "" if there is none."""
    wrong_type = f"got {type(got).__name__}: {got!r}"
    if is_array and not isinstance(got, np.ndarray):
        return f"{output}: expected an array of shape {expected.shape}, {wrong_type}"
    value = as_numbers(got)
    if value is None:
        return f"{output}: expected {'an array' if is_array else 'a number'}, {wrong_type}"
    if value.shape != expected.shape:
        shapes = f"{output}: expected shape {expected.shape}, got {value.shape}"
        return f"{shapes}\n{show_both(expected, value)}"
    if is_array and value.dtype != expected.dtype:
        return f"{output}: expected {expected.dtype}, as the arguments are, got {value.dtype}"
    different = np.argwhere(~close(expected, value))
    if not len(different):
        return ""
    index = tuple(map(int, different[0]))
    where = f"[{', '.join(map(str, index))}]" if index else ""
    first = f"{output}{where}: expected {expected[index]:.6g}, got {value[index]:.6g}"
    several = f" ({len(different)} of {expected.size} elements are wrong)"
    count = several if expected.size > 1 else ""
    return f"{first}{count}\n{show_both(expected, value)}"


def as_numbers(a: Any) -> np.ndarray | None:
    """`a` as an array of numbers; None if it is anything else."""
    try:
        array = np.asarray(a)
    except ValueError:  # ragged lists
        return None
    return array if array.dtype.kind in "biufc" else None


def close(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Which elements agree; two arrays of different shape have none in common."""
    if expected.shape != got.shape:
        return np.zeros(1, bool)
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0))
    allowed = TOLERANCE.get(expected.dtype.name, 1e-8) * max(1.0, largest)
    return np.isclose(got, expected, rtol=0, atol=allowed, equal_nan=True)


# ----------------------------------------------------------------------------------- its behaviour


def _checked(function: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    """Call the function and check that it returns `names` and does not touch its arguments."""

    def call(*args: Any, **kwargs: Any) -> Any:
        given = list(_arrays([*args, *kwargs.values()]))
        before = [a.copy() for a in given]
        result = function(*args, **kwargs)
        _refuse_changed(given, before)
        _refuse_wrong_count(result, names)
        for name, value in zip(names, result if len(names) > 1 else [result], strict=True):
            if name != "cache":
                _refuse_view(name, value, given)
        return result

    return call


def _arrays(values: Iterable[Any]) -> Iterator[np.ndarray]:
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, (tuple, list, dict)):
            yield from _arrays(value.values() if isinstance(value, dict) else value)


def _refuse_changed(given: list[np.ndarray], before: list[np.ndarray]) -> None:
    for a, b in zip(given, before, strict=True):
        if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            raise Wrong(
                "An argument was changed in place; work on a copy, the caller still needs it."
            )


def _refuse_wrong_count(result: Any, names: list[str]) -> None:
    """Refuse a cache that is no tuple, and too few or too many results."""
    is_tuple = isinstance(result, tuple)
    if "cache" in names and is_tuple and result and not isinstance(result[-1], tuple):
        kind = type(result[-1]).__name__
        raise Wrong(f"The cache, last of what is returned, must be a tuple, got {kind}.")
    if result is None and "the result" not in names:
        raise Wrong(f"Expected {', '.join(names)}, got None: is there a return?")
    count = len(result) if is_tuple else 1
    if count != len(names):
        raise Wrong(f"Expected {len(names)} results ({', '.join(names)}), got {count}.")


def _refuse_view(name: str, value: Any, given: list[np.ndarray]) -> None:
    if isinstance(value, np.ndarray) and any(np.shares_memory(value, a) for a in given):
        raise Wrong(
            f"{name} is a view of an argument: changing one changes the other; return a copy."
        )
