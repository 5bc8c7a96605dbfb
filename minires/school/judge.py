"""One case: run an attempt beside the reference, and say what is wrong with its results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minires.school.bugs import copy_of, reference_module, replace_function
from minires.school.cases import Run, fresh, returned
from minires.school.draw import Case
from minires.school.exercises import Exercise, cache_line
from minires.school.expected import Expected, expected_results
from minires.school.sandbox import Stopped
from minires.school.wire import Foreign
from minires.school.words import plain, raised_text, show_both

Call = Callable[[tuple, dict[str, Any]], dict[str, Any]]  # what is called in the sandbox


class Wrong(Exception):  # noqa: N818 - it is the student's error, and caught here
    """One wrong result; `output` names it if its values are wrong.

    `unwritten` is true if the function raised NotImplementedError, as the file to start from does.
    """

    def __init__(self, message: str, output: str = "", unwritten: bool = False) -> None:
        self.output = output
        self.unwritten = unwritten
        super().__init__(message)


@dataclass
class Attempt:
    """A student's function in a copy of the reference's module.

    Attributes
    ----------
    exercise : Exercise
    run : callable
        Runs a case on a module.
    call : callable
        Calls the student's function where it lives; returns its answer as data.
    printed : str
        What the last call printed.
    arguments : list of str
        Names of the arguments of the student's function.
    fixed : set of str
        Results of the last call that are read-only.
    """

    exercise: Exercise
    run: Run
    call: Call
    printed: str = ""
    arguments: list[str] = field(default_factory=list)
    fixed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.names = returned(self.exercise.reference)
        self.module = copy_of(self.exercise.where)
        replace_function(self.module, self.exercise.function, lambda *a, **k: self._called(a, k))

    def expected(self, case: Case) -> dict[str, Expected]:
        """The right results of a case."""
        return right_results(self.exercise, self.run, case)

    def results(self, case: Case) -> dict[str, Any] | Wrong:
        """The results of the attempt, or an error that shows before values are compared."""
        self.printed = ""
        try:
            return self.run(self.module, fresh(case))
        except Wrong as e:
            return e
        except Stopped:
            raise
        except Exception as e:  # in the reference, which uses what the attempt returned
            return Wrong(_misfit(self.exercise, e))

    def judge(self, case: Case) -> Wrong | None:
        """Return the first wrong result of the attempt at this case, None if there is none."""
        got = self.results(case)
        if isinstance(got, Wrong):
            return got
        for output, expected in self.expected(case).items():
            if output not in got:
                return Wrong(f"{output}: expected it among the results, it is missing")
            if output in self.fixed and expected.value.flags.writeable:
                return Wrong(f"{output} is read-only, as from np.broadcast_to; return a copy.")
            wrong, by_value = _compare(output, expected, got[output])
            if wrong:
                blame = _blame_cache(self.exercise, self.names, output)
                return Wrong(blame + wrong, output if by_value else "")
        return None

    def _called(self, args: tuple, named: dict[str, Any]) -> Any:
        """Call the function; check what it did with its arguments and how much it returned."""
        given = dict(
            zip([*self.arguments[: len(args)], *named], [*args, *named.values()], strict=True)
        )
        before = {label: [a.tobytes() for a in _arrays([v])] for label, v in given.items()}
        answer = self.call(args, named)
        self.printed = answer.get("printed", "")
        if "reference" in answer:
            raise Wrong(
                f"It calls minires.{self.exercise.where.replace(':', '.')}, the function that it "
                "is to replace. Write the function yourself."
            )
        if "raised" in answer:
            raised = answer["raised"]
            raise Wrong(_raised(self.exercise, raised), unwritten=raised["to be written"])
        positional, by_name = answer["arguments"]
        now = [*positional, *by_name.values()]
        for (label, value), new in zip(given.items(), now, strict=True):
            bytes_now = [a.tobytes() for a in _arrays([value])]
            if answer["reshaped"] or bytes_now != before[label] or not _same(value, new):
                raise Wrong(
                    f"An argument was changed in place ({label}). Work on a copy: the caller "
                    "still needs it."
                )
        result = answer["result"]
        _refuse_wrong_count(result, self.names)
        _refuse_shared(answer, self.names)
        self.fixed = {self.names[i] for i in answer["fixed"] if i < len(self.names)}
        return result


def right_results(chosen: Exercise, run: Run, case: Case) -> dict[str, Expected]:
    """Results of the reference in a case."""
    return expected_results(
        run, reference_module(chosen.where), case, ties="max_pool" in chosen.name
    )


def _raised(chosen: Exercise, raised: dict[str, Any]) -> str:
    if raised["to be written"]:
        return f"{chosen.name} is not written yet.\n{raised_text(raised)}"
    text = raised_text(raised)
    if "read-only" in raised["text"]:
        text += "\nAn argument must not be changed in place. Work on a copy."
    return text


def _misfit(chosen: Exercise, e: Exception) -> str:
    """Say that the backward cannot use the cache, or that results do not fit the caller."""
    error = plain(f"{type(e).__name__}: {e}")
    if not cache_line(chosen):
        return f"What it returned or changed does not fit: {error}"
    backward = chosen.name.replace("_forward", "_backward")
    return f"{backward} cannot use this cache: {error}\nIt begins with   {cache_line(chosen)}"


def _blame_cache(chosen: Exercise, names: list[str], output: str) -> str:
    """Say that the cache is to blame, if the output is not one that the function returns."""
    if output in names or not cache_line(chosen):
        return ""
    return "What is returned is right, but the backward makes a wrong gradient of this cache.\n"


# ------------------------------------------------------------------------------------- its results


def _compare(output: str, expected: Expected, got: Any) -> tuple[str, bool]:
    """Describe the first difference, or return ""; also say whether only values differ."""
    right = expected.value
    value = as_numbers(got)
    if value is None or (expected.is_array and not isinstance(got, np.ndarray)):
        kind = f"an array of shape {right.shape}" if expected.is_array else "a number"
        text = plain(repr(got))[:200]
        return f"{output}: expected {kind}, got {_kind(got)}: {text}", False
    if value.shape != right.shape:
        shapes = f"{output}: expected shape {right.shape}, got {value.shape}"
        return f"{shapes}\n{show_both(right, value)}".rstrip("\n"), False
    if expected.is_array and value.dtype != right.dtype:
        return f"{output}: expected {right.dtype}, as the arguments are, got {value.dtype}", False
    different = np.argwhere(~expected.agrees(value))
    if not len(different):
        return "", False
    index = tuple(map(int, different[0]))
    where = f"[{', '.join(map(str, index))}]" if index else ""
    first = f"{output}{where}: expected {_both_numbers(right[index], value[index])}"
    several = f" ({len(different)} of {right.size} elements are wrong)"
    count = several if right.size > 1 else ""
    return f"{first}{count}\n{show_both(right, value)}".rstrip("\n"), True


def _both_numbers(expected: Any, got: Any) -> str:
    """Print two numbers with as many digits as it takes to see the difference."""
    for digits in (6, 9, 17):
        texts = [f"{value:.{digits}g}" for value in (expected, got)]
        if texts[0] != texts[1]:
            break
    return f"{texts[0]}, got {texts[1]}"


def _kind(value: Any) -> str:
    return value.kind if isinstance(value, Foreign) else type(value).__name__


def as_numbers(a: Any) -> np.ndarray | None:
    """`a` as an array of numbers; None if it is anything else."""
    try:
        array = np.asarray(a)
    except (ValueError, OverflowError):  # ragged lists
        return None
    return array if array.dtype.kind in "biufc" else None


# ----------------------------------------------------------------------------------- its behaviour


def _arrays(values: Iterable[Any]) -> Iterator[np.ndarray]:
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, tuple | list | dict):
            yield from _arrays(value.values() if isinstance(value, dict) else value)


def _same(old: Any, new: Any) -> bool:
    """Whether lists and dicts hold the same things, and numbers are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        return list(old) == list(new) and all(_same(old[key], new[key]) for key in old)
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, int | float | str | np.generic):
        return bool(old == new)
    return old is new


def _refuse_wrong_count(result: Any, names: list[str]) -> None:
    """Refuse a cache that is not a tuple, and too few or too many results."""
    is_tuple = isinstance(result, tuple)
    if "cache" in names and is_tuple and result and not isinstance(result[-1], tuple):
        kind = _kind(result[-1])
        raise Wrong(f"The cache, last of what is returned, must be a tuple, got {kind}.")
    if result is None and "the result" not in names:
        raise Wrong(f"Expected {', '.join(names)}, got None: is there a return?")
    count = len(result) if is_tuple else 1
    if count != len(names):
        raise Wrong(f"Expected {len(names)} results ({', '.join(names)}), got {count}.")


SHARED = {
    "views": "is a view of an argument: changing one changes the other; return a copy.",
    "overlapping": "has elements that share memory, as from np.broadcast_to; return a copy.",
    "twins": "shares its memory with another result; return a copy.",
    "reused": "shares its memory with a result of the call before; make a new array in each call.",
}


def _refuse_shared(answer: dict[str, Any], names: list[str]) -> None:
    """Refuse results that are read-only or share memory; the cache may do both."""
    for note, words in SHARED.items():
        for name in [names[i] for i in answer[note] if i < len(names)]:
            if name != "cache":
                raise Wrong(f"{name} {words}")
