"""Exercises: write an op yourself.

The file that a student starts from is made from the reference. It shows shapes and, for a backward
pass, the forward pass; the formula of the reference is the last hint.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.ops.own import OPTIONS
from minires.school.bugs import reference_module
from minires.school.tables import read_tables
from minires.text import did_you_mean


@dataclass(frozen=True)
class Exercise:
    """A function of the library that a student writes.

    Attributes
    ----------
    name : str
    where : str
        "module:function" of the reference, below minires.
    first_hints : tuple of str
        Each gives away more than the one before.
    """

    name: str
    where: str
    first_hints: tuple[str, ...]

    @property
    def function(self) -> str:
        """Name of the reference in its module, such as "conv2d_backward" or "SGD.step"."""
        return self.where.partition(":")[2]

    @property
    def reference(self) -> Any:
        """The function that the student writes."""
        return attrgetter(self.function)(reference_module(self.where))

    @property
    def summary(self) -> str:
        """First line of its description."""
        return _shown(self).splitlines()[0]

    @property
    def hints(self) -> tuple[str, ...]:
        """All hints: the first ones, then the formula, where the reference states it."""
        formula = _formula(self)
        return (*self.first_hints, formula) if formula else self.first_hints


def _name(where: str) -> str:
    """Return the name of the function; for a method, the class in lower case comes first."""
    owner, _, function = where.partition(":")[2].rpartition(".")
    return "_".join(filter(None, [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", owner).lower(), function]))


def _exercises() -> dict[str, Exercise]:
    """Read every exercise, by its name."""
    rows = read_tables("hints.toml", "exercise", {"where": str, "hints": list}, unique="where")
    found = (Exercise(_name(row["where"]), row["where"], tuple(row["hints"])) for row in rows)
    return {exercise.name: exercise for exercise in found}


EXERCISES = _exercises()


def exercises() -> list[Exercise]:
    """Return every exercise, in the order of the list.

    Raises
    ------
    InputError
        If Python runs without docstrings: exercises are made from them.
    """
    if exercise.__doc__ is None:
        raise InputError(
            "exercises are made from docstrings, which python -OO and PYTHONOPTIMIZE=2 remove; "
            "run the command again without them"
        )
    return list(EXERCISES.values())


def exercise(name: str) -> Exercise:
    """Return the exercise of that name.

    Raises
    ------
    InputError
        If there is none.
    """
    exercises()
    if name not in EXERCISES:
        raise InputError(
            f"unknown exercise {name!r}: expected one of {', '.join(EXERCISES)}"
            f"{did_you_mean(name, EXERCISES)}"
        )
    return EXERCISES[name]


# ------------------------------------------------------------------------- the file to start from


def _tree(function: Any) -> ast.FunctionDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


def _doc(chosen: Exercise) -> str:
    """Docstring of the reference; for a method, first that of its class.

    Errors and `OPTIONS` are left out.
    """
    owner = chosen.function.rpartition(".")[0]
    docs = [inspect.getdoc(getattr(reference_module(chosen.where), owner))] if owner else []
    text = "\n\n".join(doc for doc in [*docs, inspect.getdoc(chosen.reference)] if doc)
    text = re.sub(r"\n\nRaises\n-+\n.*?(?=\n\n|$)", "", text, flags=re.S)
    return re.sub(rf"\n({'|'.join(OPTIONS)}) : .*(\n +.*)*", "", text)


# the forward pass of a backward pass whose name does not say it
FORWARDS = {"col2im": "im2col"}


def _forward_of(chosen: Exercise) -> str:
    """Name of the forward pass, if the exercise is the backward pass of an op; else ""."""
    if chosen.name in FORWARDS:
        return FORWARDS[chosen.name]
    name = chosen.name.removesuffix("_backward") + "_forward"
    module = reference_module(chosen.where)
    return name if chosen.name.endswith("_backward") and hasattr(module, name) else ""


def _parts(chosen: Exercise) -> tuple[str, str]:
    """Description of a reference in two parts: arguments and results, and all the rest.

    The rest of a backward pass gives away the formula.
    """
    paragraphs = _doc(chosen).split("\n\n")
    at = next(i for i, text in enumerate(paragraphs) if "->" in text)
    rest, colon, contract = paragraphs[at].rpartition(": ")
    paragraphs[at] = f"{rest}." if colon else ""
    return contract.removesuffix("."), "\n\n".join(filter(None, paragraphs))


def _shown(chosen: Exercise) -> str:
    """The description in the student's file, without the formula of a gradient."""
    forward = _forward_of(chosen)
    if not forward:
        return re.sub(r"\s+Its derivative\b.*", "", _doc(chosen), flags=re.S)
    contract, _ = _parts(chosen)
    given, _, results = contract.partition(" -> ")
    names = re.findall(r"\w+", re.sub(r"\(.*?\)|,? all of.*", "", results))
    first = re.match(r"\w+", given)
    assert first is not None
    original = next((e for e in EXERCISES.values() if e.name == forward), None)
    words = _doc(original) if original else forward
    return (
        f"Backward of {forward}: from {first[0]} to {', '.join(names)}.\n\n{contract}\n\n"
        f"The forward, {forward}:\n\n{words}"
    )


def _formula(chosen: Exercise) -> str:
    """The part of the description that the file leaves out, and equations in the code."""
    if not _forward_of(chosen):
        left_out = re.search(r"Its derivative\b.*", _doc(chosen), flags=re.S)
        return left_out[0] if left_out else ""
    _, rest = _parts(chosen)
    equations = re.findall(r"# (d\w+\[.*?\] = .*)", inspect.getsource(chosen.reference))
    return "\n".join([rest, *equations])


def _signature(chosen: Exercise) -> str:
    """Arguments of the reference without their types, which are in the docstring."""
    arguments = _tree(chosen.reference).args
    for argument in arguments.args:
        argument.annotation = None
    while arguments.args[-1].arg in OPTIONS:
        arguments.args.pop()
        arguments.defaults.pop()
    return ast.unparse(arguments)


def arguments(chosen: Exercise) -> tuple[list[str], bool]:
    """Names of the arguments, and whether the grader gives them by name."""
    names = [argument.arg for argument in _tree(chosen.reference).args.args]
    by_name = not chosen.name.endswith("_backward") and "." not in chosen.function
    return [name for name in names if name not in OPTIONS], by_name


def cache_line(chosen: Exercise) -> str:
    """Line in which the op's backward unpacks the cache; "" if there is no cache."""
    module = reference_module(chosen.where)
    backward = getattr(module, chosen.name.replace("_forward", "_backward"), None)
    lines = inspect.getsource(backward).splitlines() if backward else []
    return next((line.strip() for line in lines if line.endswith(" = cache")), "")


def _cache_notes(chosen: Exercise) -> list[str]:
    """Lines of the forward that computed the contents of the cache; its arguments need none."""
    forward = getattr(reference_module(chosen.where), chosen.name.replace("_backward", "_forward"))
    tree = _tree(forward)
    lines = inspect.getsource(forward).splitlines()
    computed = {
        ast.unparse(n.targets[0]): " ".join(map(str.strip, lines[n.lineno - 1 : n.end_lineno]))
        for n in tree.body
        if isinstance(n, ast.Assign)
    }
    given = {argument.arg for argument in tree.args.args}
    targets = ast.parse(cache_line(chosen)).body[0].targets[0].elts  # type: ignore[attr-defined]
    # the forward ends in: return y, ..., (a, b, c)
    kept = tree.body[-1].value.elts[-1].elts  # type: ignore[attr-defined]
    pairs = [(ast.unparse(a), ast.unparse(b)) for a, b in zip(targets, kept, strict=True)]
    return [
        computed.get(value, f"{target} = {value}") for target, value in pairs if value not in given
    ]


def _body(chosen: Exercise) -> list[str]:
    """Comments and code about the cache, or about self."""
    owner = chosen.function.rpartition(".")[0]
    line = cache_line(chosen)
    if owner:
        return [f"# this becomes the method {chosen.function}"]
    if not line:
        return []
    if chosen.name.endswith("_forward"):
        return [f"# the backward will unpack your cache by   {line}"]
    notes = _cache_notes(chosen)
    head = "# from the forward" + (", which had computed" if notes else "")
    return [head, *(f"#     {note}" for note in notes), line]


def stub(name: str) -> str:
    """Text of the file that a student starts from."""
    chosen = exercise(name)
    doc = _shown(chosen)
    hidden = len(chosen.hints) > len(chosen.first_hints)
    last = len(chosen.hints)
    body = [
        f'"""{doc}' + ('\n"""' if "\n" in doc else '"""'),
        *_body(chosen),
        f'raise NotImplementedError("{name}")',
    ]
    lines = [
        f'"""Exercise: write {name}, then type   minires exercise check {name}.py"""',
        "",
        "import numpy as np",
        "",
        "",
        f"def {name}({_signature(chosen)}):",
        textwrap.indent("\n".join(body), " " * 4),
        "",
        "",
        "# Hints: each gives away more than the one before.",
        *(f"#\n# {i}. {hint}" for i, hint in enumerate(chosen.first_hints, start=1)),
        *([f"#\n# {last}. The formula: minires exercise hint {name} {last}"] if hidden else []),
    ]
    return "\n".join(lines) + "\n"


def write(text: str, file: Path) -> Path:
    """Write a new file.

    Raises
    ------
    InputError
        If it exists already, or its folder cannot be made.
    """
    try:
        if file.parent.is_file():
            raise NotADirectoryError(0, f"{file.parent} is a file")
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as f:
            f.write(text)
    except FileExistsError:
        raise InputError(
            f"{file} is there already and was not changed; name another folder, or move the file"
        ) from None
    except OSError as e:
        raise InputError(f"cannot write {file}: {e.strerror}; name another folder") from None
    return file
