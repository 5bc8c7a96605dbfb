"""The submissions of a class: which exercises each of them has to solve, and in which file.

A folder holds one subfolder for each student, or one file for each student, or both.
"""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minires.errors import InputError
from minires.school.exercises import EXERCISES, exercise
from minires.text import shown

LARGEST = 1 << 20  # bytes of a file that is read to see what it defines


@dataclass(frozen=True)
class Job:
    """One exercise of one submission.

    Attributes
    ----------
    submission : str
        Name of the student's folder, or of the file without ".py".
    exercise : str
    file : Path or None
        None if there is nothing to grade.
    problem, verdict : str
        Why there is nothing to grade, and the verdict then: "missing" or "error".
    """

    submission: str
    exercise: str
    file: Path | None
    problem: str = ""
    verdict: str = "missing"


def find(folder: Path, wanted: Sequence[str] = ()) -> list[Job]:
    """Find the solutions in a folder of submissions, without importing any of them.

    Parameters
    ----------
    folder : Path
        Names that begin with "." or "_" are left out, and so are files outside the submission that
        a link leads to.
    wanted : sequence of str, optional
        The exercises that every submission must solve; by default, all that any of them solves.

    Returns
    -------
    jobs : list of Job
        One for each submission and exercise, ordered by submission.

    Raises
    ------
    InputError
        If the folder has no submissions, two of them have the same name, an exercise is unknown, or
        no file solves any.
    """
    for name in wanted:
        exercise(name)
    solved = {name: _solutions(entry) for name, entry in _entries(folder).items()}
    found = {name for files in solved.values() for name in files}
    names = [name for name in EXERCISES if name in (wanted or found)]
    if not names:
        raise InputError(
            f"expected solutions of exercises in {folder}, found none in {len(solved)} "
            "submissions; name what they had to solve: --exercise NAME"
        )
    return [
        _job(student, name, solved[student].get(name, [])) for student in solved for name in names
    ]


def find_one(folder: Path, wanted: Sequence[str]) -> list[Job]:
    """Find the solutions in the folder of a single submission, see `find`."""
    for name in wanted:
        exercise(name)
    solved = _solutions(folder)
    return [_job(folder.name, name, solved.get(name, [])) for name in wanted]


def _entries(folder: Path) -> dict[str, Path]:
    """Folder or file of each submission, by its name."""
    entries: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")) or not (path.is_dir() or path.suffix == ".py"):
            continue
        name = shown(path.name if path.is_dir() else path.stem)
        if name in entries:
            raise InputError(
                f"{folder}: expected different names, got {entries[name].name} and {path.name}; "
                "rename one of them"
            )
        entries[name] = path
    if not entries:
        raise InputError(
            f"expected a subfolder or a Python file for each student in {folder}, found none; "
            "unpack the submissions there"
        )
    return entries


def _solutions(entry: Path) -> dict[str, list[Path]]:
    """Files of a submission by the exercises that they define."""
    files: dict[str, list[Path]] = {}
    for file in [entry] if entry.is_file() else sorted(_python_files(entry)):
        for name in _defined(file):
            files.setdefault(name, []).append(file)
    return files


def _python_files(folder: Path) -> Iterator[Path]:
    """Python files in a folder and below it; links are not followed out of it."""
    home = folder.resolve()
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith((".", "_"))]
        for name in names:
            file = Path(place, name)
            hidden = name.startswith(".") or file.suffix != ".py"
            if not hidden and file.is_file() and file.resolve().is_relative_to(home):
                yield file


def _defined(file: Path) -> set[str]:
    """Exercises that a file defines at its top level, or is named after."""
    named = {file.stem} & set(EXERCISES)
    try:
        if file.stat().st_size > LARGEST:
            return named
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return named  # importing it will say what is wrong
    return named | (set(_bound(body)) & set(EXERCISES))


def _bound(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Names that statements define or assign."""
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _job(student: str, name: str, files: list[Path]) -> Job:
    """Choose the file to grade: the only one, or the only one with the exercise's name."""
    chosen = [file for file in files if file.stem == name] or files
    if not chosen:
        return Job(student, name, None, f"No file defines {name}.")
    if len(chosen) > 1:
        several = ", ".join(sorted({file.name for file in chosen}))
        problem = f"{len(chosen)} files define {name} ({several}); leave one."
        return Job(student, name, None, problem, "error")
    return Job(student, name, chosen[0])
