"""Options that several commands have, and how they are checked, shown and made into a recipe."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from minires.cli import names
from minires.errors import InputError, quoted
from minires.ops import default_backend, get_ops, numba_installed, prepare
from minires.runs.config import OPTIONS, Config
from minires.runs.options import UNSET, Entry
from minires.runs.options import names as parse_names
from minires.text import did_you_mean

if TYPE_CHECKING:
    from minires.data import Dataset

# Imports of matplotlib, Numba and the like stand in the functions that need them, so that --help
# and completion answer at once.

RUNS = Path("runs")
METAVARS = {int: "N", float: "X"}
WIDEST_METAVAR = 10


class Command(TyperCommand):
    """A command whose --help has a narrow column of options, so that it fits a small screen."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options; a long one has its help in the next line."""
        write = formatter.write_dl
        formatter.write_dl = lambda rows: write(rows, col_max=17)
        super().format_options(ctx, formatter)


def expanded(text: str | Path) -> Path:
    """Return a typed path: "~" is the home folder, and an empty text is refused."""
    if not str(text):
        raise typer.BadParameter("expected a path, got an empty text; is a shell variable unset?")
    return Path(os.path.expanduser(text))


def _data_folder(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Path | None:
    """The folder of --data; MINIRES_DATA is left to `minires.data`, which names it in errors."""
    source = ctx.get_parameter_source(str(param.name))
    return None if source is not None and source.name == "ENVIRONMENT" else value


DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of CIFAR-10.",
        metavar="DIR",
        parser=expanded,
        envvar="MINIRES_DATA",
        callback=_data_folder,
    ),
]
DatasetOption = Annotated[
    str,
    typer.Option(
        help="auto, cifar10, shapes10, shapes10-fresh, or a folder.",
        metavar="NAME",
        show_default=False,
        callback=names.data_set,
        autocompletion=names.completing(names.data_sets),
    ),
]
FoldersArgument = Annotated[
    list[Path],
    typer.Argument(help="Run folders, or folders that hold some.", metavar="DIR", parser=expanded),
]
NetArgument = typer.Argument(
    help="Such as resnet20, plain56, resnet32B.",
    metavar="NET",
    autocompletion=names.completing(names.NETS),
)
BatchOption = Annotated[int, typer.Option(help="Images per step.", metavar="N")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, and notes to stderr.")
]


def new_file(text: str | Path) -> Path:
    """Return the typed path of a file to write; a folder and the like are refused before any work.

    The file may exist: it is replaced as a whole, which a device or a pipe must not be.
    """
    path = expanded(text)
    if path.is_dir() or not path.name:
        raise typer.BadParameter(f"expected a file to write, got the folder {path}; add a name")
    if path.exists() and not path.is_file():
        raise typer.BadParameter(f"expected a file to write, and {path} is a device or a pipe")
    return path


def new_file_here(text: str | Path) -> Path:
    """As `new_file`, in a folder that exists."""
    path = new_file(text)
    if not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent} for {path.name}; make it first")
    return path


def out_option(meaning: str, parser: Callable[[str | Path], Path] = new_file_here) -> Any:
    """The option --out of a command that writes one file."""
    return typer.Option(help=meaning, metavar="FILE", parser=parser)


def path_option(meaning: str, metavar: str = "FILE", *flags: str) -> Any:
    """An option that names a file or a folder."""
    return typer.Option(*flags, help=meaning, metavar=metavar, parser=expanded)


def training_options(shown: Mapping[str, str], **defaults: Any) -> Callable[[Callable], Callable]:
    """Give a command every option of the table of `Config`.

    The command has a parameter `asked`, which receives a dict of the options that were typed, and
    of those that have a default, by the names of the fields.

    Parameters
    ----------
    shown : dict of str to str
        Text that --help shows as the default of an option, where the command works the default out;
        "" where the text of the command says it. --help lists these, even if they are rare.
    **defaults
        Other defaults than those of `Config`, by the names of the fields.
    """
    rows = {name: row for name, row in OPTIONS.items() if row.option.help}

    def decorate(command: Callable) -> Callable:
        @wraps(command)
        def run(**given: Any) -> Any:
            given.pop("help_all")
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
            _parameter(row, defaults.get(row.name), shown.get(row.name)) for row in rows.values()
        ]
        added.append(_help_all())
        run.__signature__ = inspect.Signature(parameters + added)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters + added}
        return run

    return decorate


def _help_all() -> inspect.Parameter:
    """The option --help-all, which lists rare options, too."""

    def show(ctx: typer.Context, asked: bool) -> None:
        if asked:
            for parameter in ctx.command.params:
                parameter.hidden = False  # type: ignore[attr-defined]  # arguments ignore it
            typer.echo(ctx.get_help())
            raise typer.Exit

    text = "List more options: for pictures and fine-tuning."
    option = typer.Option("--help-all", help=text, is_eager=True, callback=show)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter("help_all", keyword, default=False, annotation=Annotated[bool, option])


def _parameter(row: Entry, default: Any, shown: str | None) -> inspect.Parameter:
    """One row of the table as a parameter that typer understands."""
    explained, _, _ = row.option.help.partition(" [default")
    option: dict[str, Any] = {"help": row.option.help if shown is None else explained}
    option["hidden"] = row.option.rare and shown is None
    kind: Any = str if row.option.parse else get_type_hints(Config)[row.name]
    if row.option.switch is not UNSET:
        kind, default = bool, False
    elif shown is not None or "default" in row.option.help:  # the text says what is chosen
        option["show_default"] = shown or False
    elif row.option.parse:
        option["show_default"] = False
    elif default is None:
        default = row.default
    if default is None:
        kind = kind | None
    if kind not in (bool, bool | None):
        option |= _values(row, kind)
    annotation = Annotated[kind, typer.Option(row.flag, **option)]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(row.name, keyword, default=default, annotation=annotation)


def _values(row: Entry, kind: Any) -> dict[str, Any]:
    """How --help names the values of an option, and how the shell completes them."""
    if row.option.choices:
        choices = row.option.choices
        listed = "|".join(choices)
        metavar = listed if len(listed) <= WIDEST_METAVAR else "NAME"  # then the help names them
        return {"metavar": metavar, "autocompletion": names.completing(choices)}
    if row.option.parse:
        return {"metavar": "NAMES" if row.option.parse is parse_names else "N,N"}
    plain = {
        number: metavar for number, metavar in METAVARS.items() if kind in (number, number | None)
    }
    return {"metavar": next(iter(plain.values()), "NAME")}


def _value(row: Entry, typed: Any) -> Any:
    """Convert what was typed to the value of the field; None if nothing was typed."""
    if row.option.switch is not UNSET:
        return row.option.switch if typed else None
    if row.option.parse and typed is not None:
        return row.option.parse(typed)
    choices = row.option.choices
    if choices and typed is not None and typed not in choices:
        near = did_you_mean(typed, choices)
        raise InputError(f"{row.flag} must be one of {', '.join(choices)}, got {typed!r}{near}")
    return typed


class Output:
    """Where the output of a command goes: its result as text or JSON, and notes about its work."""

    def __init__(self, json_output: bool = False) -> None:
        self.json = json_output

    def say(self, note: str) -> None:
        """Print a note at once; to standard error where standard output is for JSON."""
        typer.echo(note, err=self.json)

    def show(self, result: str) -> None:
        """Print the result as text, unless it was asked for as JSON."""
        if not self.json:
            typer.echo(result)

    def result(self, values: Any) -> None:
        """Print the result as JSON, if that was asked for."""
        if self.json:
            typer.echo(json.dumps(values, default=str))


def load(
    dataset: str,
    folder: Path | None,
    say: Callable[[str], None] = typer.echo,
    labels: Path | None = None,
    strict: bool = False,
) -> Dataset:
    """Images to train on; says which, and how to get CIFAR-10 where it was not found.

    `labels` and `strict` are for a folder of pictures, see `minires.data.image_folder`.
    """
    from minires import data as images

    if images.looks_like_folder(dataset) or dataset == "folder":
        return _load_folder(dataset, folder, say, labels, strict)
    if labels or strict:
        raise InputError(
            f"--labels and --strict are for a folder of pictures, and --dataset is {dataset}; "
            "name a folder, or drop them"
        )
    if folder and folder.is_file() and dataset in ("auto", "cifar10"):
        raise InputError(
            f"--data expects a folder, got the file {folder}; if this is CIFAR-10, install it "
            f"with: minires data cifar10 --from {quoted(folder)}"
        )
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


def _load_folder(
    dataset: str, folder: Path | None, say: Callable[[str], None], labels: Path | None, strict: bool
) -> Dataset:
    """Pictures in the folder that --dataset or --data names."""
    from minires.data import image_folder

    if dataset != "folder":
        if folder:
            raise InputError(
                f"--dataset {dataset} and --data {folder} both name a folder; drop one"
            )
        folder = expanded(dataset)
    found = image_folder.load(folder, labels, strict)
    sizes = f"{len(found.train):,} and {len(found.test):,} pictures, {len(found.classes)} classes"
    say(f"Data: {found.name}, {sizes} ({found.source})")
    return found


def choose(backend: str | None, say: Callable[[str], None] = typer.echo) -> str:
    """Backend to use; says so if Numba is missing. Nothing is compiled yet."""
    if backend is None and not numba_installed():
        say(
            "Numba is not installed, so this runs on plain NumPy, several times slower: "
            "pip install numba"
        )
    chosen = backend or default_backend()
    get_ops(chosen)
    return chosen


def compile_kernels(backend: str, quiet: bool = False) -> None:
    """Compile what a backend needs, or load it from the disk, with a progress bar."""
    from minires.train.progress import compile_bar
    from minires.train.stopping import check_interrupt

    with compile_bar(quiet) as report:

        def show(name: str, ready: int, total: int) -> None:
            check_interrupt()
            report(name, ready, total)

        prepare(backend, show)
    check_interrupt()
