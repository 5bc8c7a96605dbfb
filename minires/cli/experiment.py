"""Commands of the experiment: degradation, claims, plot, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from minires.cli import names, results
from minires.cli.options import (
    RUNS,
    DataOption,
    DatasetOption,
    FoldersArgument,
    JsonOption,
    Output,
    QuietOption,
    choose,
    compile_kernels,
    load,
    out_option,
    path_option,
    training_options,
)
from minires.errors import InputError
from minires.nets.network import Facts
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
    "milestones",
    "init",
)


def any_images(side: int = 32) -> Any:
    """Placeholder for a data set before one is loaded, with images of `side` pixels.

    It has more images than any option could ask for, even by mistake.
    """
    return SimpleNamespace(
        name="any",
        task="classification",
        train=range(10**9),
        test=range(10**9),
        input_shape=(side, side, 3),
    )


TierOption = Annotated[
    str,
    typer.Option(
        help=f"Size: {', '.join(names.TIERS)}.",
        metavar="NAME",
        callback=names.one_of("--tier", names.TIERS),
        autocompletion=names.completing(names.TIERS),
    ),
]
KindOption = Annotated[
    str,
    typer.Option(
        help="errors (by iteration), depth (errors by depth) or layers.",
        metavar="NAME",
        callback=names.one_of("--kind", names.FIGURES),
        autocompletion=names.completing(names.FIGURES),
    ),
]


@training_options(dict.fromkeys(TIER_OPTIONS, ""))
def degradation_command(
    asked: dict[str, Any],
    tier: TierOption = "quick",
    depths: Annotated[
        str | None, typer.Option(help="Depths of the nets [default: 20,56].", metavar="N,N")
    ] = None,
    shortcut: Annotated[
        str | None, typer.Option(help="Their shortcuts [default: A].", metavar="A|B|C")
    ] = None,
    nets: Annotated[
        str | None, typer.Option(help="Or the nets: plain20,resnet32B.", metavar="NAMES")
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="Train each net with seeds 0 .. N-1.", metavar="N", min=1)
    ] = 1,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    out: Annotated[
        Path | None, path_option("[default: runs/degradation-DATA-ITERATIONS]", "DIR")
    ] = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train plain and residual nets, compare their errors, and check the claims.

    The tiers train for 280, 2,000, 16,000 and 64,000 iterations, and set all options without
    default. Run it again to resume. Exit code 1: a claim fails.

    Example: minires degradation --tier lesson --seeds 3
    """
    from minires.lab import degradation, presets

    chosen = chosen_nets(nets, depths, shortcut)
    check_recipes([names.network(name) for name in chosen], tier, asked)
    output = Output(json_output)
    backend = choose(asked.pop("backend", None), output.say)
    found = load(dataset, data, output.say)
    base = presets.base_config(found, tier, **asked, backend=backend)
    folder = out or RUNS / f"degradation-{found.slug}-{base.iterations}"
    output.say(f"Recipe: {in_words(base)}")
    begin = partial(compile_kernels, backend, quiet)
    folders = degradation.run(chosen, seeds, base, folder, found, quiet, output.say, begin=begin)
    shown = show(folders, folder / "degradation.png", output)
    print_claims(folders, output, shown=shown, folder=folder)


def check_recipes(
    nets: Sequence[Facts],
    tier: str,
    asked: dict[str, Any],
    seed: int = 0,
    images: Any = None,
) -> None:
    """Refuse options that are wrong for any data set, before anything is loaded or compiled.

    Raises
    ------
    InputError
        If a value makes no sense, or a net or a task cannot be trained.
    """
    from minires.lab import presets

    images = images or any_images()
    for facts in nets:
        config = presets.base_config(images, tier, net=facts.name, seed=seed, **asked)
        presets.with_warmup(config, facts)


def chosen_nets(nets: str | None, depths: str | None, shortcut: str | None) -> list[str]:
    """Names of the nets that were asked for: at least one."""
    from minires.lab import degradation

    if nets is not None and (depths is not None or shortcut is not None):
        raise InputError(
            f"expected either --nets or --depths and --shortcut, got both: --nets {nets}"
        )
    if nets is None:
        asked = degradation.DEPTHS if depths is None else depths.split(",")
        chosen = degradation.nets(asked, "A" if shortcut is None else shortcut)
    else:
        chosen = [name.strip() for name in nets.split(",") if name.strip()]
    if not chosen:
        typed = f"--depths {depths!r}" if nets is None else f"--nets {nets!r}"
        such = "depths such as 20,56" if nets is None else "nets such as plain20"
        raise InputError(f"expected at least one net, got {typed}; name {such}")
    return chosen


def print_claims(
    folders: list[Path],
    output: Output,
    compute: bool = False,
    data: Path | None = None,
    shown: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> None:
    """Print the verdict and numbers of every claim; the exit code is 1 if one does not hold.

    As JSON, they follow what `show` returned. With the `folder` of an experiment, its closing words
    come last.
    """
    from minires.lab import claims
    from minires.lab.closing import closing_words
    from minires.lab.recorded import find_runs

    runs = find_runs(folders)
    verdicts = claims.judge(runs, compute, data)
    output.show("\n" + claims.text(verdicts))
    if folder:
        output.show("\n" + closing_words(runs, folder))
    output.result({**(shown or {}), "claims": results.claims(verdicts)})
    if any(verdict.held is False for rows in verdicts.values() for _, verdict in rows):
        raise typer.Exit(1)


def claims_command(
    folders: FoldersArgument,
    compute: Annotated[
        bool, typer.Option("--all", help="Also compute claims (v) and (vi): about a minute.")
    ] = False,
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Check the claims about an experiment. The exit code is 1 if one does not hold.

    Claims (i) to (iv) are read from recorded runs: a deeper plain net is worse, shortcuts mend
    it, it is not overfitting, and it does not start with vanishing gradients. With --all, two more
    are computed and recorded beside the runs: (v) a deeper net as good as the shallow one can be
    constructed, (vi) rounding errors grow faster in plain nets.

    Example: minires claims runs/degradation-shapes10-280 --all
    """
    print_claims(folders, Output(json_output), compute, data)


def show(folders: list[Path], figure: Path, output: Output) -> dict[str, Any]:
    """Print the table of runs and draw their figure; returns both as values for JSON."""
    from minires.lab import plots, tables
    from minires.lab.recorded import find_runs

    runs = find_runs(folders)
    output.show("\n" + tables.table(runs))
    plots.save(plots.errors(runs), figure)
    output.show(f"\n{tables.message(runs)}.\nFigure: {figure}")
    return {"figure": figure, "message": tables.message(runs), "runs": results.runs(runs)}


def plot(
    folders: FoldersArgument,
    kind: KindOption = "errors",
    out: Annotated[Path | None, out_option("File: .png, .svg or .pdf [default: KIND.png].")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Draw again every 5 seconds until the runs are done.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Draw recorded runs and print their table.

    The kind "layers" shows gradient norms and responses layer by layer, as the paper's figure 7.

    Example: minires plot runs/degradation-shapes10-280 --kind depth --out figure.svg
    """
    from minires.lab import plots, tables
    from minires.lab.recorded import find_runs

    output = Output(json_output)
    figure = out or Path(f"{kind}.png")
    plots.check_format(figure)
    if watch:
        _draw_until_done(folders, kind, figure, output)
    runs = find_runs(folders)
    plots.save(plots.FIGURES[kind](runs), figure)
    output.show(f"\n{tables.table(runs)}\n\n{tables.message(runs)}.\nFigure: {figure}")
    message = tables.message(runs)
    output.result({"figure": figure, "message": message, "runs": results.runs(runs)})


def _draw_until_done(folders: list[Path], kind: str, figure: Path, output: Output) -> None:
    """Draw again and again until the runs are done, or Ctrl-C."""
    from minires.lab import plots
    from minires.lab.recorded import all_done, measured_runs

    try:
        while not all_done(folders):
            if runs := plots.drawable(kind, measured_runs(folders)):
                plots.save(plots.FIGURES[kind](runs), figure)
                output.say(f"drawn {time.strftime('%H:%M:%S')}: {figure}")
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        output.say("stopped watching")


def report_command(
    folders: FoldersArgument,
    out: Annotated[Path | None, out_option("[default: report.html in the first folder]")] = None,
    json_output: JsonOption = False,
) -> None:
    """Report on recorded runs: one HTML page with figures, tables and claims.

    The page also says where each run was trained, and how to repeat it.

    Example: minires report runs/degradation-shapes10-280
    """
    from minires.lab import claims, report
    from minires.lab.recorded import find_runs
    from minires.runs import files

    output = Output(json_output)
    runs = find_runs(folders)
    path = out or folders[0] / "report.html"
    verdicts = claims.judge(runs)
    files.write_whole(path, report.page(runs, verdicts).encode())
    output.show(f"Report: {path}")
    values = {"runs": results.runs(runs), "claims": results.claims(verdicts)}
    output.result({"report": path, **values})
