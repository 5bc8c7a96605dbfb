"""The command line: reads arguments, calls the library, turns each mistake into one line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

import minires
from minires import plugins
from minires.cli import classify as classifying
from minires.cli import (
    data,
    exercise,
    experiment,
    inspect,
    lessons,
    mistakes,
    race,
    streams,
    sweep,
    teams,
)
from minires.cli import train as training
from minires.cli import weights as trained
from minires.cli.options import Command, expanded
from minires.errors import InputError
from minires.text import did_you_mean
from minires.train.stopping import Interrupted, interrupts_remembered

INTERRUPTED = 130  # exit code after Ctrl-C
STOPPED = "stopped; nothing that was saved is lost: give the same command again"
UsageError: Any = typer.BadParameter.__base__  # typer does not export it

app = typer.Typer(
    name="minires",
    help="Deep residual learning in NumPy: train plain and residual nets on a CPU, and see that "
    "plain nets get worse when they get deeper.\n\nExample: minires degradation",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"minires {minires.__version__}")
        raise typer.Exit


def before_all(
    context: typer.Context,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            help="A Python file that registers your own nets, data sets, tasks or ops.",
            metavar="FILE",
            parser=expanded,
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Import users' own files before the command runs."""
    teams.check_command(context.obj, context.invoked_subcommand)
    for path in plugin or []:
        if not path.is_file():
            beside = sorted(file.name for file in path.parent.glob("*.py"))
            near = did_you_mean(path.name, beside)
            raise InputError(f"--plugin: expected a Python file, found none at {path}{near}")
        plugins.load(path)


# Short enough to stand in one line of `minires --help` on a screen of 80 columns.
commands: dict[str, tuple[Callable[..., Any], str]] = {
    "degradation": (experiment.degradation_command, "Train plain and residual nets and compare."),
    "race": (race.race_command, "Race ReLU against tanh, as AlexNet did."),
    "claims": (experiment.claims_command, "Check the claims about an experiment."),
    "train": (training.train_command, "Train one net by the paper's recipe."),
    "sweep": (sweep.sweep_command, "Train many runs, shared by workers."),
    "resume": (training.resume, "Resume a run that was stopped."),
    "plot": (experiment.plot, "Draw recorded runs and print their table."),
    "report": (experiment.report_command, "Report on recorded runs in one HTML page."),
    "classify": (classifying.classify, "Name the classes of pictures."),
    "evaluate": (trained.evaluate, "Errors of trained weights on test images."),
    "export": (training.export, "Write the weights of trained nets to files."),
    "info": (inspect.info, "Audit a network, or show what is installed."),
    "bench": (inspect.bench, "Time training and inference."),
}
for name, (command, short_help) in commands.items():
    app.command(name, cls=Command, short_help=short_help)(command)
app.callback()(before_all)
app.add_typer(data.data_app, name="data")
app.add_typer(trained.weights_app, name="weights")
app.add_typer(exercise.app, name="exercise")
app.add_typer(lessons.app, name="lessons")


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2."""
    streams.prepare()
    # Pillow's, which names no file: `minires.data.pictures` has a note of its own
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit of .* pixels")
    warnings.showwarning = lambda message, *_: typer.echo(f"note: {message}", err=True)
    code = _run()
    lost = streams.lost(sys.stdout)
    if lost:
        typer.echo(f"note: standard output could not be written: {lost}", err=True)
    if code:
        sys.exit(code)


@cache
def _command() -> Callable[..., Any]:
    """All commands with their options."""
    return typer.main.get_command(app)


def _stopped() -> int:
    """Say that Ctrl-C ended the command; returns the exit code."""
    typer.echo(f"\n{STOPPED}", err=True)
    return INTERRUPTED


def _run() -> int:
    """Run the command; returns the exit code."""
    try:
        with interrupts_remembered(), teams.launched() as ranks:
            code = _command()(prog_name="minires", standalone_mode=False, obj=ranks) or 0
            return _stopped() if code == INTERRUPTED else code  # typer's answer to Ctrl-C
        return 0  # of a rank that leaves the error to rank 0
    except typer.Abort as e:  # an end of input, and in some versions of typer Ctrl-C
        if not isinstance(e.__cause__, EOFError):
            return _stopped()
        typer.echo(f"error: {mistakes.one_line(e.__cause__)}", err=True)
    except KeyboardInterrupt:
        return _stopped()
    except Interrupted as e:
        typer.echo(f"\n{e}", err=True)
        return INTERRUPTED
    except UsageError as e:
        if type(e).__name__ == "NoArgsIsHelpError":
            typer.echo(e.ctx.get_help(), err=True)
        else:
            typer.echo(f"error: {mistakes.usage(e)}", err=True)
    except (InputError, MemoryError, OSError) as e:
        typer.echo(f"error: {mistakes.one_line(e)}", err=True)
    return 2
