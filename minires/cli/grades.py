"""Grade a folder of submissions into a CSV file: the folder's part of minires exercise check."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from minires.cli.names import completing
from minires.cli.options import expanded
from minires.errors import InputError, quoted
from minires.school.exercises import EXERCISES
from minires.school.sandbox import Limits

MOST_AT_ONCE = 8  # each may use a gigabyte of memory

SolutionArgument = Annotated[
    Path,
    typer.Argument(
        help="A file with a solution, or a folder with a subfolder or file for each student.",
        metavar="FILE|DIR",
        parser=expanded,
    ),
]
TableOption = Annotated[
    Path | None, typer.Option("--csv", help="Grades of a DIR.", metavar="FILE", parser=expanded)
]
ExerciseOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exercise",
        help="What to grade [default: what is there]. May be repeated.",
        metavar="NAME",
        autocompletion=completing(list(EXERCISES)),
    ),
]
TotalOption = Annotated[
    float, typer.Option("--limit", help="Seconds for all cases.", metavar="S", min=1)
]
CaseOption = Annotated[
    float, typer.Option("--case-limit", help="Seconds for one case.", metavar="S", min=1)
]
JobsOption = Annotated[
    int,
    typer.Option(
        help="Gradings at a time [default: cores].", metavar="N", min=0, show_default=False
    ),
]


def grade_folder(
    folder: Path, table: Path | None, wanted: list[str], limits: Limits, jobs: int, as_json: bool
) -> None:
    """Grade every submission; the exit code is 0 when all have a verdict, 130 if interrupted."""
    from minires.school import classroom, submissions
    from minires.school.gradebook import Gradebook
    from minires.train import progress

    if table is None:
        raise InputError(
            f"{folder} is a folder: expected --csv FILE for its grades; type: minires exercise "
            f"check {quoted(folder)} --csv grades.csv"
        )
    found = submissions.find(folder, wanted)
    book = Gradebook(table, found)
    todo = book.todo(found)
    at_once = jobs or min(os.cpu_count() or 1, MOST_AT_ONCE)
    bar = progress.bar(len(todo), quiet=not todo, at_once=True)
    grades = classroom.grade(todo, limits, at_once)
    try:
        with contextlib.closing(bar), contextlib.closing(grades):
            for grade in grades:
                book.add(grade)
                bar.set_postfix_str(f"{grade.submission} {grade.verdict}", refresh=False)
                bar.update(1)
    except KeyboardInterrupt:
        typer.echo(
            f"Stopped. {len(book.verdicts)} of {len(found)} rows are in {table}. Run the same "
            "command again to grade the others.",
            err=True,
        )
        raise typer.Exit(130) from None
    book.finish()
    students = len({job.submission for job in found})
    counts = {verdict: book.counts()[verdict] for verdict in classroom.VERDICTS}
    if as_json:
        typer.echo(json.dumps({"csv": str(table), "submissions": students, "verdicts": counts}))
        return
    words = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
    known = "" if todo else " All had been graded before; to grade again, name another file."
    typer.echo(f"{table}: {len(found)} rows, {students} submissions: {words}.{known}")
