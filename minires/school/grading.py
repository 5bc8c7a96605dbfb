"""Is this function right? If not: the smallest case that shows it, the first wrong number, the bug that explains it."""

from __future__ import annotations

import contextlib
import copy
import html
import importlib.util
import inspect
import io
import itertools
import linecache
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.school.bugs import copy_of, home, swap
from minires.school.exercises import EXERCISES, Exercise, cache_line, exercise
from minires.school.zoo import ZOO

try:
    from hypothesis import HealthCheck, find, settings
    from hypothesis.errors import Flaky, NoSuchExample

    from minires.school.cases import Case, Run, problems, returned
except ImportError as e:
    raise InputError(
        "exercises are checked with hypothesis, which is not installed: pip install hypothesis"
    ) from e

SIZES, EXAMPLES = (
    (2, 4),
    60,
)  # the smallest images first, as their failures are easiest to read; cases of each size
TOLERANCE = {
    "float32": 1e-3,
    "float64": 1e-8,
}  # cases are small whole numbers: a bug is off by far more
SHOWN = 40  # elements of an array that are printed


@dataclass(frozen=True, repr=False)
class Report:
    """The answer to one solution: passed or not, after how many cases, why, and the bug of the zoo that explains it."""

    name: str
    passed: bool
    examples: int
    message: str
    diagnosis: str = ""

    def __repr__(self) -> str:
        verdict = "passed" if self.passed else "not passed"
        return "\n".join(filter(None, [f"{self.name}: {verdict}", self.message, self.diagnosis]))

    def _repr_html_(self) -> str:
        colour = "#2a7f3f" if self.passed else "#b3261e"
        verdict, diagnosis = "passed" if self.passed else "not passed", html.escape(self.diagnosis)
        return (
            f'<div><b>{html.escape(self.name)}: <span style="color:{colour}">{verdict}</span></b>'
            f"<pre>{html.escape(self.message)}</pre><p>{diagnosis}</p></div>"
        )


class Wrong(Exception):  # noqa: N818 - it is the student's error, and caught here
    """What is wrong with one result; `output` names it if the fault lies in its values."""

    def __init__(self, message: str, output: str = "") -> None:
        self.output = output
        super().__init__(message)


# --------------------------------------------------------------------------------------------- a file, a function


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
        with contextlib.redirect_stdout(
            sys.stderr
        ):  # what the file prints is no part of the answer
            exec(compile(file.read_bytes(), path, "exec"), vars(module))
    except (Exception, SystemExit) as e:
        reason = _own_line(e, path) or f"{type(e).__name__}: {e}"
        return Report(file.stem, False, 0, f"The file cannot be imported.\n{reason}")
    found = [
        name
        for name in EXERCISES
        if getattr(vars(module).get(name), "__module__", "") == module.__name__
    ]
    if len(found) > 1 and file.stem in found:  # the others help
        found = [file.stem]
    if len(found) != 1:
        raise InputError(
            f"{file}: expected the function of one exercise, found {', '.join(found) or 'none'}"
        )
    return check(vars(module)[found[0]], found[0])


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
            f"expected a function to grade, came {function!r}; give the function itself"
        )
    chosen = exercise(name or str(getattr(function, "__name__", "?")))
    _, run = problems(SIZES[0])[chosen.name]
    attempt = copy_of(chosen.where)
    swap(attempt, chosen.function, _watched(function, chosen))
    tried, printed = itertools.count(), io.StringIO()

    def judge(case: Case) -> Wrong | None:
        printed.seek(0)
        printed.truncate()
        return _judge(chosen, run, attempt, function, case)

    def fails(case: Case) -> bool:
        next(tried)
        return judge(case) is not None

    with np.errstate(all="ignore"), contextlib.redirect_stdout(printed):
        try:
            found = (_search(problems(size)[chosen.name][0], fails) for size in SIZES)
            smallest = next(filter(None, found), None)
            if smallest is None:
                examples = next(tried)
                return Report(
                    chosen.name, True, examples, f"{examples} cases agree with the reference."
                )
            wrong = judge(smallest)
        except Flaky:
            smallest = wrong = None
        if smallest is None or wrong is None:
            again = "The same arguments gave different answers: the result must depend on nothing but the arguments."
            return Report(chosen.name, False, next(tried), again)
        output = printed.getvalue()
        diagnosis = _diagnose(chosen, run, attempt, smallest, wrong.output) if wrong.output else ""
    message = (
        f"The smallest case that fails, of {next(tried)} tried:\n\n{_show(smallest)}\n\n{wrong}"
    )
    if output:
        message += f"\n\nIn this case it printed:\n{textwrap.indent(output, '    ')}"
    return Report(chosen.name, False, next(tried) - 1, message, diagnosis)


def _search(cases: Any, condition: Callable[[Case], bool]) -> Case | None:
    """Smallest case that meets the condition, the same one at every call."""
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


def _sample(cases: Any) -> list[Case]:
    drawn: list[Case] = []

    def note(case: Case) -> bool:
        drawn.append(case)
        return False

    _search(cases, note)
    return drawn


# ------------------------------------------------------------------------------------------------- one case


def _judge(
    chosen: Exercise, run: Run, attempt: ModuleType, function: Any, case: Case
) -> Wrong | None:
    """What is wrong with the attempt at this case, if anything."""
    expected, names = run(home(chosen.where), copy.deepcopy(case)), returned(chosen.reference)
    try:
        got = run(attempt, copy.deepcopy(case))
    except Wrong as e:
        return e
    except NotImplementedError as e:
        return Wrong(f"{chosen.name} is still to be written.\n{_own_line(e, _file(function))}")
    except (Exception, SystemExit) as e:
        return Wrong(_raised(chosen, e, _file(function)))
    for output, value in expected.items():
        wrong = _compare(output, np.asarray(value), got[output], isinstance(value, np.ndarray))
        if wrong and output not in names and cache_line(chosen):
            wrong = f"What is returned is right, but the backward makes a wrong gradient of this cache.\n{wrong}"
        if wrong:
            return Wrong(wrong, output)
    return None


def _compare(output: str, expected: np.ndarray, got: Any, is_array: bool) -> str:
    """Say the first difference; "" if there is none."""
    if is_array and not isinstance(got, np.ndarray):
        return f"{output}: expected an array of shape {expected.shape}, got {type(got).__name__}: {got!r}"
    try:
        value = np.asarray(got)
    except ValueError:
        return f"{output}: expected {'an array' if is_array else 'a number'}, got {type(got).__name__}: {got!r}"
    if value.dtype.kind not in "biufc":
        return f"{output}: expected {'an array' if is_array else 'a number'}, got {type(got).__name__}: {got!r}"
    if value.shape != expected.shape:
        return f"{output}: expected shape {expected.shape}, got {value.shape}\n{_both(expected, value)}"
    if is_array and value.dtype != expected.dtype:
        return f"{output}: expected {expected.dtype}, as the arguments are, got {value.dtype}"
    different = np.argwhere(~_close(expected, value))
    if not len(different):
        return ""
    index = tuple(map(int, different[0]))
    where = f"[{', '.join(map(str, index))}]" if index else ""
    first = f"{output}{where}: expected {expected[index]:.6g}, got {value[index]:.6g}"
    count = (
        f" ({len(different)} of {expected.size} elements are wrong)" if expected.size > 1 else ""
    )
    return f"{first}{count}\n{_both(expected, value)}"


def _close(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Which elements agree; two arrays of different shape have none in common."""
    if expected.shape != got.shape:
        return np.zeros(1, bool)
    finite = expected[np.isfinite(expected)]
    allowed = TOLERANCE.get(expected.dtype.name, 1e-8) * max(
        1.0, float(np.abs(finite).max(initial=0))
    )
    return np.isclose(got, expected, rtol=0, atol=allowed, equal_nan=True)


def _watched(function: Callable[..., Any], chosen: Exercise) -> Callable[..., Any]:
    """Call the function, and see that it returns what it should and leaves its arguments alone."""
    names = returned(chosen.reference)

    def call(*args: Any, **kwargs: Any) -> Any:
        given = list(_arrays([*args, *kwargs.values()]))
        before = [a.copy() for a in given]
        result = function(*args, **kwargs)
        if any(
            not np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
            for a, b in zip(given, before, strict=True)
        ):
            raise Wrong(
                "An argument was changed in place; work on a copy, the caller still needs it."
            )
        if (
            "cache" in names
            and isinstance(result, tuple)
            and result
            and not isinstance(result[-1], tuple)
        ):
            raise Wrong(
                f"The cache, last of what is returned, must be a tuple, got {type(result[-1]).__name__}."
            )
        came = len(result) if isinstance(result, tuple) else 1
        if result is None and "the result" not in names:
            raise Wrong(f"Expected {', '.join(names)}, got None: is there a return?")
        if came != len(names):
            raise Wrong(f"Expected {len(names)} results ({', '.join(names)}), got {came}.")
        for name, value in zip(names, result if len(names) > 1 else [result], strict=True):
            if name != "cache" and any(
                np.shares_memory(value, a) for a in given if isinstance(value, np.ndarray)
            ):
                raise Wrong(
                    f"{name} is a view of an argument: whoever changes one would change the other; copy it."
                )
        return result

    return call


def _file(function: Any) -> str:
    """File that a function was written in; "" for those of another kind, such as NumPy's own."""
    return getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", "")


def _arrays(values: Iterable[Any]) -> Iterator[np.ndarray]:
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, (tuple, list, dict)):
            yield from _arrays(value.values() if isinstance(value, dict) else value)


def _raised(chosen: Exercise, e: BaseException, filename: str) -> str:
    """Say where the student's code failed, or that the backward could not use the cache."""
    own = _own_line(e, filename)
    if own or not cache_line(chosen):
        return own or f"{type(e).__name__}: {e}"
    backward = chosen.name.replace("_forward", "_backward")
    return f"{backward} cannot use this cache: {type(e).__name__}: {e}\nIt begins with   {cache_line(chosen)}"


def _own_line(e: BaseException, filename: str) -> str:
    """Exception with the last line of the student's own file that it passed; "" if it passed none."""
    if isinstance(e, SyntaxError) and e.filename == filename:
        return f"  line {e.lineno}: {(e.text or '').strip()}\n{type(e).__name__}: {e.msg}"
    frames = [
        frame for frame in traceback.extract_tb(e.__traceback__) if frame.filename == filename
    ]
    return (
        f"  line {frames[-1].lineno}: {frames[-1].line}\n{type(e).__name__}: {e}" if frames else ""
    )


# ---------------------------------------------------------------------------------------------------- the diagnosis


def _diagnose(chosen: Exercise, run: Run, attempt: ModuleType, smallest: Case, output: str) -> str:
    """Find the bug of the zoo that gives the same wrong `output` in this case and in many others."""
    module, cases = home(chosen.where), [smallest, *_sample(problems(SIZES[-1])[chosen.name][0])]
    got = [_output(run, attempt, case, output) for case in cases]
    bugs = [bug for bug in ZOO if home(bug.where) is module]
    for bug in sorted(bugs, key=lambda bug: bug.where != chosen.where):  # the op's own bugs first
        planted = bug.plant()
        if all(
            _same(_output(run, planted, case, output), seen)
            for case, seen in zip(cases, got, strict=True)
        ):
            return f"Your {output} equals the true one, but {bug.says}."
    return ""


def _output(run: Run, module: ModuleType, case: Case, output: str) -> Any:
    try:
        return run(module, copy.deepcopy(case)).get(output)
    except (Exception, SystemExit) as e:
        return type(e)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, type) or isinstance(b, type) or a is None or b is None:
        return a is b
    try:
        one, other = np.asarray(a), np.asarray(b)
    except ValueError:  # ragged lists
        return False
    return {one.dtype.kind, other.dtype.kind} <= set("biufc") and bool(_close(one, other).all())


# ------------------------------------------------------------------------------------------------------- in words


def _show(case: Case) -> str:
    """Print the case as Python that can be pasted."""
    lines = []
    for name, value in case.items():
        if isinstance(value, np.ndarray):
            dtype = (
                ""
                if value.dtype.kind == "i" or value.dtype == np.float64
                else f", np.{value.dtype}"
            )
            value = f"np.array({_text(value)}{dtype})  # shape {value.shape}"
        elif isinstance(value, list) and value and isinstance(value[0], np.ndarray):
            value = f"[{', '.join(f'np.array({_text(a)})' for a in value)}]"
        lines.append(f"    {name} = {value}")
    return "\n".join(lines)


def _text(a: np.ndarray) -> str:
    text = np.array2string(a, separator=",", max_line_width=10**6, threshold=10**6, precision=6)
    return re.sub(r",\s*", ", ", re.sub(r"\[\s+", "[", text))


def _both(expected: np.ndarray, got: np.ndarray) -> str:
    if max(expected.size, got.size) > SHOWN or expected.ndim == 0:
        return ""
    return f"    expected {_text(expected)}\n    got      {_text(got)}"
