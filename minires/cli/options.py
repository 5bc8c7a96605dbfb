"""Options that several commands have, and what every command does first."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from tqdm.auto import tqdm

from minires import data as images
from minires.data import Dataset
from minires.errors import InputError
from minires.lab.presets import TIERS
from minires.ops import default_backend, get_ops, prepare
from minires.runs.config import OPTIONS, Config
from minires.runs.options import UNSET, Entry

RUNS = Path("runs")
SIZES = ", ".join(
    f"{name} ({t.iterations:,} iterations of {t.batch_size} images)" for name, t in TIERS.items()
)
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of CIFAR-10 [env: MINIRES_DATA].")
]
DatasetOption = Annotated[str, typer.Option(help="cifar10, shapes10, shapes10-fresh, or auto.")]
FoldersArgument = Annotated[
    list[Path], typer.Argument(help="Run folders, or folders that hold some.")
]
BatchOption = Annotated[int, typer.Option(help="Images a step.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


def training_options(shown: Mapping[str, str], **defaults: Any) -> Callable[[Callable], Callable]:
    """Give a command every option of the table of `Config`.

    The command has a parameter `asked`, which receives a dict of the options that were typed, and
    of those that have a default, by the names of the fields.

    Parameters
    ----------
    shown : dict of str to str
        Options whose default the command works out, and what --help says of it.
    **defaults
        Other defaults than those of `Config`, by the names of the fields.
    """
    rows = {name: row for name, row in OPTIONS.items() if row.option.help}

    def decorate(command: Callable) -> Callable:
        @wraps(command)
        def run(**given: Any) -> Any:
            typed = {name: _value(row, given.pop(name)) for name, row in rows.items()}
            asked = {name: value for name, value in typed.items() if value is not None}
            return command(**given, asked=asked)

        hints = get_type_hints(command, include_extras=True)
        parameters = [
            p.replace(annotation=hints[name])
            for name, p in inspect.signature(command).parameters.items()
            if name != "asked"
        ]
        added = [
            _parameter(row, defaults.get(row.name, row.default), shown.get(row.name))
            for row in rows.values()
        ]
        run.__signature__ = inspect.Signature(parameters + added)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters + added}
        return run

    return decorate


def _parameter(row: Entry, default: Any, shown: str | None) -> inspect.Parameter:
    """One row of the table as a parameter that typer understands."""
    option: dict[str, Any] = {"help": row.option.help}
    kind: Any = str if row.option.parse else get_type_hints(Config)[row.name]
    if row.option.switch is not UNSET:
        kind, default = bool, False
    elif shown or "default" in row.option.help:  # the help itself says what is chosen
        default = None
        option["show_default"] = shown or False
    if default is None:
        kind = kind | None
    annotation = Annotated[kind, typer.Option(row.flag, **option)]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(row.name, keyword, default=default, annotation=annotation)


def _value(row: Entry, typed: Any) -> Any:
    """The field's value of what was typed, None if nothing was."""
    if row.option.switch is not UNSET:
        return row.option.switch if typed else None
    if row.option.parse and typed is not None:
        return row.option.parse(typed)
    if row.option.choices and typed is not None and typed not in row.option.choices:
        raise InputError(
            f"{row.flag} must be one of {', '.join(row.option.choices)}, got {typed!r}"
        )
    return typed


def say(text: str) -> None:
    """Print a line at once."""
    typer.echo(text)


def load(dataset: str, folder: Path | None) -> Dataset:
    """Images to train on; says which, and how to get CIFAR-10 where it was not found."""
    found = images.load(dataset, folder)
    say(f"Data: {found.name} ({found.source})")
    if images.key(found.name) != "cifar10" and dataset == "auto":
        say(
            "CIFAR-10 was not found, so this runs on shapes10, drawn by the program itself. "
            "To get CIFAR-10 (170 MB):\n"
            "  minires data cifar10              (add --from FILE if you have it)\n"
            "or name its folder with --data DIR or MINIRES_DATA."
        )
    return found


def choose(backend: str | None) -> str:
    """Backend to use, compiled and ready; says what is compiled, and if Numba is missing."""
    if backend is None and default_backend() == "numpy":
        say(
            "Numba is not installed, so this runs on plain NumPy, several times slower: "
            "pip install numba"
        )
    chosen = backend or default_backend()
    get_ops(chosen)
    title = "compiling for this machine, once"
    with tqdm(desc=title, unit=" kernels", delay=1, leave=False) as progress:
        prepare(chosen, lambda name: progress.update())
    return chosen
