"""Commands of the experiment: degradation, claims, plot, report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from minires.cli.options import (
    RUNS,
    SIZES,
    DataOption,
    DatasetOption,
    FoldersArgument,
    QuietOption,
    choose,
    load,
    say,
    training_options,
)
from minires.errors import InputError
from minires.lab import claims, degradation, plots, presets, report, tables
from minires.lab.recorded import all_done, begun, find_runs
from minires.nets.registry import facts
from minires.runs import files
from minires.runs.config import in_words

WATCH_SECONDS = 5.0
TIER_OPTIONS = (
    "iterations",
    "batch_size",
    "lr",
    "warmup_lr",
    "augment",
    "eval_every",
    "eval_images",
)


@training_options(dict.fromkeys(TIER_OPTIONS, "the tier's"))
def degradation_command(
    asked: dict[str, Any],
    tier: Annotated[str, typer.Option(help=f"Size: {SIZES}.")] = "quick",
    depths: Annotated[str | None, typer.Option(help="Depths of the nets [default: 20,56].")] = None,
    shortcut: Annotated[
        str | None, typer.Option(help="Their shortcuts: A, B or C [default: A].")
    ] = None,
    nets: Annotated[
        str | None, typer.Option(help="Nets by name instead, such as plain20,resnet32B.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Repeat with seeds 0 .. K-1.", metavar="K")] = 1,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder [default: runs/degradation-DATA-ITERATIONS].")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Train plain and residual nets side by side, draw their errors, and check the claims.

    All tiers but the quick one crop and flip, and divide the learning rate by 10 at half and at
    three quarters of the way; the lesson tier warms up before. If you stop it, run it
    again to resume; what is finished is only drawn. Claims read from the runs are printed; one that
    does not hold makes the exit code 1. Claims that take computing: minires claims.

    Example: minires degradation --tier lesson --seeds 3
    """
    names = _names(nets, depths, shortcut)
    if seeds < 1 or not names:
        raise InputError(
            f"expected at least one net and one seed, got --nets {nets!r} --seeds {seeds}"
        )
    found = load(dataset, data)
    backend = choose(asked.pop("backend", None))
    base = presets.base_config(found, tier, **asked, backend=backend)
    folder = out or RUNS / f"degradation-{found.slug}-{base.iterations}"
    say(f"Recipe: {in_words(base)}")
    folders = degradation.run(names, seeds, base, folder, found, quiet, say)
    show(folders, folder / "degradation.png")
    print_claims(folders)


def _names(nets: str | None, depths: str | None, shortcut: str | None) -> list[str]:
    """Names of the nets that were asked for, each of which exists."""
    if nets is None:
        asked = depths.split(",") if depths else degradation.DEPTHS
        names = degradation.nets(asked, shortcut or "A")
    elif depths or shortcut:
        raise InputError(
            f"expected either --nets or --depths and --shortcut, got both: --nets {nets}"
        )
    else:
        names = [name for name in nets.split(",") if name.strip()]
    for name in names:
        facts(name)
    return names


def print_claims(folders: list[Path], compute: bool = False, data: Path | None = None) -> None:
    """Verdict and numbers of every claim; exit code 1 if one does not hold."""
    verdicts = claims.judge(find_runs(folders), compute, data)
    say("\n" + claims.text(verdicts))
    if any(verdict.held is False for rows in verdicts.values() for _, verdict in rows):
        raise typer.Exit(1)


def claims_command(
    folders: FoldersArgument,
    compute: Annotated[
        bool, typer.Option("--all", help="Compute (v) and (vi) too; about a minute.")
    ] = False,
    data: DataOption = None,
) -> None:
    """Check what the program claims of an experiment; exit code 1 if a claim does not hold.

    Claims (i) to (iv) are read from recorded runs: deeper is worse, shortcuts mend it, it is
    neither overfitting nor vanishing gradients. With --all, (v) a deeper net as good as the
    shallow one is constructed, and (vi) the growth of a rounding error is measured; their verdicts
    are kept beside the runs.

    Example: minires claims runs/degradation-shapes10-280 --all
    """
    print_claims(folders, compute, data)


def show(folders: list[Path], figure: Path) -> None:
    """Table to the terminal, figure to a file."""
    runs = find_runs(folders)
    say("\n" + tables.table(runs))
    plots.save(plots.errors(runs), figure)
    say(f"\n{tables.message(runs)}.\nFigure: {figure}")


def plot(
    folders: FoldersArgument,
    kind: Annotated[
        str, typer.Option(help="errors (by iteration), depth (errors by it) or layers.")
    ] = "errors",
    out: Annotated[
        Path | None, typer.Option(help="File; .png, .svg or .pdf [default: KIND.png].")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Draw again every 5 seconds until the runs are done.")
    ] = False,
) -> None:
    """Draw recorded runs and print their table.

    The kind "layers" shows gradient norms and responses layer by layer, as the paper's figure 7.

    Example: minires plot runs/degradation-shapes10-280 --kind depth --out figure.svg
    """
    if kind not in plots.FIGURES:
        raise InputError(f"--kind must be one of {', '.join(plots.FIGURES)}, got {kind!r}")
    figure = out or Path(f"{kind}.png")
    plots.check_format(figure)
    try:
        while watch and not all_done(folders):
            if runs := plots.drawable(kind, begun(folders)):
                plots.save(plots.FIGURES[kind](runs), figure)
                say(f"drawn {time.strftime('%H:%M:%S')}: {figure}")
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        say("stopped watching")
    runs = find_runs(folders)
    plots.save(plots.FIGURES[kind](runs), figure)
    say(f"\n{tables.table(runs)}\n\n{tables.message(runs)}.\nFigure: {figure}")


def report_command(
    folders: FoldersArgument,
    out: Annotated[
        Path | None, typer.Option(help="File [default: report.html in the first folder].")
    ] = None,
) -> None:
    """Report on recorded runs: one HTML page with figures, tables, claims and provenance.

    Example: minires report runs/degradation-shapes10-280
    """
    runs = find_runs(folders)
    path = out or folders[0] / "report.html"
    files.write_whole(path, report.page(runs, claims.judge(runs)).encode())
    say(f"Report: {path}")
