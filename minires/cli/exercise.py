"""The commands of minires exercise."""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from minires.cli import grades
from minires.cli.lessons import home
from minires.cli.names import completing
from minires.cli.options import Command, expanded
from minires.errors import InputError, quoted
from minires.school import exercises, quiz
from minires.school.hunt import choose_bug, hidden_bug_file
from minires.school.sandbox import Limits

NAMES = list(exercises.EXERCISES)

app = typer.Typer(
    help="Write an op yourself, or find a bug. Example: minires exercise start relu_forward",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list", cls=Command)
def list_exercises() -> None:
    """List the exercises.

    Example: minires exercise list
    """
    width = max(map(len, NAMES)) + 2
    for chosen in exercises.exercises():
        typer.echo(f"{chosen.name:{width}}{chosen.summary}")


@app.command("start", cls=Command)
def start(
    name: Annotated[
        str,
        typer.Argument(help="As in: minires exercise list.", autocompletion=completing(NAMES)),
    ],
    folder: Annotated[
        Path, typer.Argument(help="Folder for NAME.py.", metavar="[DIR]", parser=expanded)
    ] = Path(),
) -> None:
    """Write NAME.py: the signature, a description and hints.

    Example: minires exercise start conv2d_backward
    """
    file = exercises.write(exercises.stub(name), folder / f"{name}.py")
    typer.echo(f"Write the function in {file}, then: minires exercise check {quoted(file)}")


@app.command("hint", cls=Command)
def hint(
    name: Annotated[
        str,
        typer.Argument(help="As in: minires exercise list.", autocompletion=completing(NAMES)),
    ],
    number: Annotated[int, typer.Argument(help="Which hint; the last says most.", min=1)] = 1,
) -> None:
    """Print a hint for an exercise; the last one is the formula.

    Example: minires exercise hint conv2d_backward 2
    """
    hints = exercises.exercise(name).hints
    if number > len(hints):
        raise InputError(f"expected a hint from 1 to {len(hints)} for {name}, got {number}")
    typer.echo(f"Hint {number} of {len(hints)}: {hints[number - 1]}")


@app.command("check", cls=Command, short_help="Grade a solution, or those of a class.")
def check(
    file: grades.SolutionArgument,
    table: grades.TableOption = None,
    names: grades.ExerciseOption = None,
    total: grades.TotalOption = Limits.total,
    seconds: grades.CaseOption = Limits.seconds,
    jobs: grades.JobsOption = 0,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the smallest case in which a solution is wrong, and the bug that explains it.

    A solution runs in a process of its own, with limits of time and memory. For a FILE, the exit
    code is 0 if it passed, 1 if not. For a DIR, it is 0 when all are graded; an interrupted grading
    resumes when the same command is run again.

    Example: minires exercise check conv2d_backward.py

    Example: minires exercise check submissions --csv grades.csv
    """
    limits = Limits(seconds, total)
    if file.is_dir():
        grades.grade_folder(file, table, names or [], limits, jobs, json_output)
        return
    if table is not None or len(names or []) > 1:
        raise InputError(
            f"expected a folder of submissions with --csv or several --exercise, got {file}; "
            "name the folder"
        )
    from minires.school import grading  # hypothesis takes a moment to import

    report = grading.check_file(file, limits, names[0] if names else None)
    record = asdict(report) | {"verdict": report.verdict}
    interrupted = record.pop("interrupted")
    del record["cause"]
    typer.echo(json.dumps(record) if json_output else f"File: {file.resolve()}\n{report}")
    if not report.passed:
        raise typer.Exit(130 if interrupted else 1)


@app.command("hunt", cls=Command, short_help="Write a file with one wrong line.")
def hunt(
    name: Annotated[str | None, typer.Argument(help="An op's backward [default: any].")] = None,
    seed: Annotated[int, typer.Option(help="Which bug.", min=0)] = 0,
    folder: Annotated[
        Path, typer.Option("--into", help="Folder for the file.", metavar="DIR", parser=expanded)
    ] = Path(),
    reveal: Annotated[bool, typer.Option("--reveal", help="Say which bug it is.")] = False,
) -> None:
    """Write a file in which one line is wrong. Find it with the gradient checker.

    Example: minires exercise hunt batchnorm_backward --seed 2
    """
    chosen, bug = choose_bug(name, seed)
    if reveal:
        typer.echo(
            f"{chosen.name}, {bug.name}: right, but {bug.says}.\n"
            f"  right: {bug.old}\n"
            f"  wrong: {bug.new}"
        )
        return
    text = hidden_bug_file(chosen, bug)
    file = exercises.write(text, folder / f"hunt_{chosen.name}_{seed}.py")
    typer.echo(f"One line of {file} is wrong; its top says how to find it. Stuck? {bug.hint}")


@app.command("quiz", cls=Command, short_help="Five questions on a lesson.")
def ask_quiz(
    lesson: Annotated[str, typer.Argument(help="Such as 03.", metavar="NN")],
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the replies as JSON, and the questions to stderr.")
    ] = False,
) -> None:
    """Ask five questions on a lesson, each with the reason for the answer.

    Without a terminal, the answers are read from standard input, one a line.

    Example: minires exercise quiz 03
    """
    folder = home()
    name = quiz.name_of(folder, lesson)
    asked = quiz.questions(folder, name)

    def write(text: str) -> None:
        lines = [textwrap.wrap(part, 78, subsequent_indent=" " * 3) for part in text.split("\n")]
        typer.echo("\n".join("\n".join(part) for part in lines), err=json_output)

    replies = list(quiz.ask(asked, lambda: sys.stdin.readline() or None, write))
    right = sum(reply.right for reply in replies)
    if json_output:
        rows = [
            {"question": r.question.question, "given": r.given, "right": r.right} for r in replies
        ]
        typer.echo(json.dumps({"lesson": name, "right": right, "replies": rows}))
        return
    missing = sum(reply.given is None for reply in replies)
    unanswered = f" The input ended; {missing} have no answer." if missing else ""
    typer.echo(f"\n{right} of {len(asked)} right.{unanswered}")
