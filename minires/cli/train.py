"""Commands that train one network: train, resume, export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minires import plugins
from minires.cli import experiment, names, teams
from minires.cli.options import (
    RUNS,
    DataOption,
    DatasetOption,
    FoldersArgument,
    JsonOption,
    NetArgument,
    Output,
    QuietOption,
    choose,
    compile_kernels,
    expanded,
    load,
    path_option,
    training_options,
)
from minires.errors import quoted
from minires.runs.config import Config
from minires.train.stopping import Interrupted

if TYPE_CHECKING:
    from minires.cli.start import State
    from minires.data import Dataset
    from minires.runs.record import Record
    from minires.runs.run_folder import RunFolder
    from minires.train.ranks import Ranks


WeightsOption = Annotated[Path | None, path_option("Start from the weights in this file.")]
OutOption = Annotated[Path | None, path_option("[default: runs/NET-DATA-ITERATIONS-seedN]", "DIR")]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        help="cifar10 or imagenet (section 3.4) [default: the net's].",
        metavar="NAME",
        show_default=False,
        autocompletion=names.completing(names.RECIPES),
    ),
]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        help="Table of a folder's class names: folder, space, name.",
        metavar="FILE",
        parser=expanded,
        hidden=True,
    ),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse damaged pictures; those in deeper folders of a class count. Hidden files, and "
        "files whose names are not those of pictures, never count.",
        hidden=True,
    ),
]
HeadOption = Annotated[
    str,
    typer.Option(help="Last layer: from --weights, or new.", metavar="keep|new"),
]


@training_options(
    {
        "iterations": "",
        "batch_size": "128",
        "lr": "0.1",
        "eval_every": "a quarter",
        "eval_images": "2000, or all",
        "milestones": "",
        "init": "",
        "shards": "",
    }
)
def train_command(
    asked: dict[str, Any],
    context: typer.Context,
    net: Annotated[str, NetArgument],
    seed: Annotated[
        int, typer.Option(help="For weights, order, crops and flips.", min=0, metavar="N")
    ] = 0,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    recipe: RecipeOption = None,
    weights: WeightsOption = None,
    head: HeadOption = "keep",
    labels: LabelsOption = None,
    strict: StrictOption = False,
    out: OutOption = None,
    ranks: teams.RanksOption = 1,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train one net by the paper's recipe. If you stop it, run it again to resume.

    The learning rate drops tenfold at 1/2 and 3/4 of 2,000 or more iterations.

    Example: minires train resnet20 --iterations 2000
    """
    from minires.cli import start
    from minires.lab import presets, recipes

    facts = names.network(net)
    recipe = recipes.recipe_of(facts, recipe)
    is_folder = dataset == "folder" or names.looks_like_folder(dataset)
    side = facts.input_shape[0]
    some = experiment.any_images(asked.get("image_size", side) if is_folder else 32)
    experiment.check_recipes([facts], "quick", recipes.filled_in(recipe, asked, some), seed, some)
    output = Output(json_output)
    backend = choose(asked.pop("backend", None), output.say)
    trained = start.from_weights(facts.name, weights, head, asked)
    found = load(dataset, data, output.say, labels, strict)
    found = _with_images(found, trained.asked, side if is_folder else None)
    asked = recipes.filled_in(recipe, trained.asked, found)
    _say_few_images(recipe, trained.asked, asked["eval_images"], output)
    config = presets.base_config(found, net=facts.name, seed=seed, **asked, backend=backend)
    config = presets.with_warmup(config, facts) if recipe == "cifar10" else config
    folder = out or RUNS / f"{facts.name}-{found.slug}-{config.iterations}-seed{seed}"
    team = teams.together(context.obj, ranks)
    _run_and_show(config, folder, found, quiet, trained.state, team, ranks, output)


def _say_few_images(recipe: str, typed: dict[str, Any], images: int, output: Output) -> None:
    """Say on how many images errors are measured, where the data have fewer than the recipe."""
    from minires.lab import recipes

    if "eval_images" not in typed and images < recipes.EVALUATED[recipe]:
        output.say(f"Errors are measured on {images:,} training and test images.")


def _with_images(found: Dataset, asked: dict[str, Any], side: int | None) -> Dataset:
    """The data with images of the size, and with the mean, that a recipe asks for.

    If it asks for no size, pictures on disk get `side`, which is added to the recipe.
    """
    if side:
        asked.setdefault("image_size", side)
    named = {name: asked[name] for name in ("image_size", "normalise") if name in asked}
    return found.with_images(**named)


def _run_and_show(
    config: Config,
    folder: Path,
    found: Dataset,
    quiet: bool,
    weights: State | None,
    team: Ranks,
    ranks: int,
    output: Output,
) -> None:
    """Train a run and show it; of pictures on disk, also how long its steps waited for them."""
    from minires.runs.run import has_ended

    finished = team.leads and has_ended(folder)
    try:
        waited = run_one(config, folder, found, quiet, weights, team, ranks)
    except KeyboardInterrupt:
        raise Interrupted(_cut_short(folder)) from None
    if not team.leads:
        return
    if finished:
        output.say(f"The run in {folder} is finished already; nothing was left to train.")
    shown = experiment.show([folder], folder / "errors.png", output)
    if waited is not None:
        output.show(f"Steps waited for pictures {100 * waited:.1f} % of the time.")
        shown |= {"waited_share": waited}
    output.result(shown)


def _cut_short(folder: Path) -> str:
    """The message after a Ctrl-C that left no time to save."""
    from minires.runs.run_folder import RunFolder

    run_folder = RunFolder(folder)
    if not run_folder.has_checkpoint():
        return "stopped before a step was saved; nothing is lost: the same command starts the run"
    return (
        f"stopped; {quoted(folder)} is saved at iteration {run_folder.position()}: the same "
        "command resumes the run from there"
    )


def resume(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A run folder.", metavar="DIR", parser=expanded)],
    data: DataOption = None,
    ranks: teams.ResumedRanksOption = 1,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Resume a run that was stopped, with its own recipe.

    Example: minires resume runs/resnet20-cifar-10-2000-seed0
    """
    from minires import data as images
    from minires.runs.record import read_record

    output = Output(json_output)
    record = read_record(folder)
    plugins.require(record.provenance.get("plugins", []), f"resume {quoted(folder)}")
    backend = choose(record.config.backend, output.say)
    found = images.load(images.key(record.data["name"]), data)
    team = teams.together(context.obj, ranks)
    config = replace(record.config, backend=backend)
    _run_and_show(config, folder, found, quiet, None, team, ranks, output)


def run_one(
    config: Config,
    folder: Path,
    found: Dataset,
    quiet: bool,
    weights: State | None,
    team: Ranks,
    ranks: int,
) -> float | None:
    """Train one run with a bar; its folder is acquired before anything is compiled.

    Parameters
    ----------
    config, folder, found, quiet, weights
    team : Ranks
        The processes of mpiexec that train this run together.
    ranks : int
        Or the number of processes to start.

    Returns
    -------
    waited : float or None
        The share of the time that steps waited for pictures; None if none are on the disk.
    """
    from minires.cli import start
    from minires.runs.run_folder import RunFolder
    from minires.train import loop, parallel, progress
    from minires.train.shards import check_number

    run_folder = RunFolder(folder)
    found = found.with_images(config.image_size, config.normalise)
    check_number(config.shards, max(team.size, ranks), config.batch_size)
    if team.leads:
        with run_folder.locked():
            facts = loop.fitted_facts(config.net, found)
            start.check_parts(config, facts, weights)
            loop.acquire(run_folder, replace(config, net=facts.name), facts, found)
    compile_kernels(config.backend, quiet)
    with progress.bar(config.iterations, quiet) as bar:
        title = f"{config.net} seed {config.seed}"
        report = progress.follower(bar, title, 1)
        if ranks > 1:
            parallel.train_in_processes(
                config, folder, found, ranks, report=report, weights=weights
            )
        else:
            loop.train(config, folder, found, report, weights=weights, ranks=team)
    return _waited(run_folder) if team.leads else None


def _waited(folder: RunFolder) -> float | None:
    """The share of the time that the steps of a run waited for pictures on the disk."""
    lines = folder.read().train
    if not lines or "waited" not in lines[-1]:
        return None
    return lines[-1]["waited"] / max(lines[-1]["seconds"], 1e-9)


def export(folders: FoldersArgument, json_output: JsonOption = False) -> None:
    """Write the weights of trained nets, without the optimizer's state, to weights.safetensors.

    The file says how pictures are normalised; of a run on a folder of pictures, also their size,
    mean and labels.

    Example: minires export runs/degradation-shapes10-280/resnet20-seed0
    """
    import json

    from minires.exchange.weights import METADATA
    from minires.runs import checkpoint
    from minires.runs.record import read_record
    from minires.runs.run import trained_folders

    output = Output(json_output)
    written = []
    for folder in trained_folders(folders):
        record = read_record(folder)
        about = {"net": record.facts.name, "zeros": "end", **_pictures(record)}
        path = checkpoint.export_weights(folder, {METADATA: json.dumps(about)})
        size = path.stat().st_size
        output.show(f"{path}: {size / 1e6:.2f} MB")
        written.append({"weights": path, "bytes": size})
    output.result(written)


def _pictures(record: Record) -> dict[str, Any]:
    """The normalisation of a run's pictures; without a mean, the mean is 0 and has no name."""
    config = record.config
    found = {"normalise": config.normalise, **record.data.get("pictures", {})}
    if config.subtract_mean:
        return found
    from minires.data.normalisation import IMAGENET_DEVIATION

    deviation = [1.0, 1.0, 1.0]
    if found.pop("normalise") == "imagenet":
        deviation = list(IMAGENET_DEVIATION)
    return {"mean": [0.0, 0.0, 0.0], "deviation": deviation, **found}
