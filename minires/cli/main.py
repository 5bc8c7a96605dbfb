"""The command line: reads arguments, calls the library, turns each mistake into one line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from minires import plugins
from minires.cli import data, exercise, experiment, inspect
from minires.cli import train as training
from minires.errors import InputError
from minires.train.stopping import Interrupted

app = typer.Typer(
    name="minires",
    help="Deep residual learning in NumPy: train plain and residual nets on a CPU and see the "
    "degradation problem.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def before_all(
    plugin: Annotated[
        list[Path] | None,
        typer.Option(help="A Python file that registers nets, data sets or tasks of your own."),
    ] = None,
) -> None:
    """Import users' own files before the command runs."""
    for path in plugin or []:
        plugins.load(path)


commands: dict[str, Callable[..., Any]] = {
    "degradation": experiment.degradation_command,
    "claims": experiment.claims_command,
    "train": training.train_command,
    "resume": training.resume,
    "plot": experiment.plot,
    "report": experiment.report_command,
    "export": training.export,
    "info": inspect.info,
    "bench": inspect.bench,
}
for name, command in commands.items():
    app.command(name)(command)
app.callback()(before_all)
app.add_typer(data.data_app, name="data")
app.add_typer(exercise.app, name="exercise")


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2."""
    warnings.showwarning = lambda message, *_: typer.echo(f"note: {message}", err=True)
    try:
        app()
    except (InputError, MemoryError, OSError) as e:
        more = (
            "; ask for less, such as a smaller --batch-size" if isinstance(e, MemoryError) else ""
        )
        typer.echo(f"error: {e}{more}", err=True)
        sys.exit(2)
    except Interrupted as e:
        typer.echo(f"\n{e}", err=True)
        sys.exit(130)
