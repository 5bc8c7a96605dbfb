"""The command that copies the lessons, for those who installed minires without its repository."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

import minires
from minires.cli.options import Command, expanded
from minires.errors import InputError, quoted

INSTALLED = Path(minires.__file__).parent / "_lessons"  # where a wheel has them
CHECKOUT = Path(minires.__file__).parents[1] / "lessons"
# not for students, or only for the repository: answers, sources of the notebooks, leftovers
LEFT_OUT = shutil.ignore_patterns(
    "[0-9]*.py",
    "build.py",
    "slides.py",
    "pages.py",
    "terminal.py",
    "answers",
    "quiz",
    "teachers",
    "site",
    "__pycache__",
    ".*",
)


def home() -> Path:
    """Folder of the lessons: in the wheel, or in the checkout.

    Raises
    ------
    InputError
        If neither has them.
    """
    source = INSTALLED if INSTALLED.is_dir() else CHECKOUT
    if not (source / "style.py").is_file():
        raise InputError(
            f"expected the lessons in {source}, found none; get them from the repository of minires"
        )
    return source


app = typer.Typer(
    help="Get a copy of the lessons.\n\nExample: minires lessons copy my-lessons",
    short_help="Get a copy of the lessons.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def lessons() -> None:
    """Get a copy of the lessons.

    Example: minires lessons copy my-lessons
    """


@app.command("copy", cls=Command)
def copy(
    folder: Annotated[
        Path, typer.Argument(help="A new or empty folder.", metavar="DIR", parser=expanded)
    ],
) -> None:
    """Copy the notebooks, with all they read, into a new folder.

    Example: minires lessons copy my-lessons
    """
    source = home()
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"expected a new or empty folder, got {folder}, which has files; they could be your "
            "work, so nothing was copied: name another folder"
        )
    shutil.copytree(source, folder, ignore=LEFT_OUT, dirs_exist_ok=True)
    typer.echo(f"The lessons are in {folder}. Open them with: jupyter lab {quoted(folder)}")
