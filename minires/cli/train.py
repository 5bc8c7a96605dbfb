"""Commands that train one network: train, resume, export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from minires import data as images
from minires.cli.experiment import show
from minires.cli.options import (
    RUNS,
    DataOption,
    DatasetOption,
    FoldersArgument,
    QuietOption,
    choose,
    load,
    say,
    training_options,
)
from minires.data import Dataset
from minires.lab import presets
from minires.nets import registry
from minires.runs import checkpoint
from minires.runs.config import Config
from minires.runs.record import read_record
from minires.runs.run import trained_folders
from minires.train.loop import train
from minires.train.progress import bar, follower


@training_options({"eval_every": "a quarter of all"}, iterations=64_000, eval_images=2000)
def train_command(
    asked: dict[str, Any],
    net: Annotated[str, typer.Argument(help="Such as resnet20, plain56, resnet32B.")],
    seed: Annotated[int, typer.Option(help="Decides weights, order, crops and flips.")] = 0,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder [default: runs/NET-DATA-ITERATIONS-seedK].")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Train one net by the paper's recipe; if you stop it, run it again to resume.

    From 2,000 iterations on, the learning rate is divided by 10 at half and at three quarters of
    the way.

    Example: minires train resnet20 --iterations 2000
    """
    facts = registry.facts(net)
    found = load(dataset, data)
    iterations = asked["iterations"]
    asked.setdefault("eval_every", max(1, iterations // 4))
    backend = choose(asked.pop("backend", None))
    config = presets.base_config(found, net=facts.name, seed=seed, **asked, backend=backend)
    folder = out or RUNS / f"{facts.name}-{found.slug}-{iterations}-seed{seed}"
    run_one(presets.recipe(config, facts), folder, found, quiet)


def resume(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    data: DataOption = None,
    quiet: QuietOption = False,
) -> None:
    """Go on with a run that was stopped, by its own recipe.

    Example: minires resume runs/resnet20-cifar-10-2000-seed0
    """
    record = read_record(folder)
    found = images.load(images.key(record.data["name"]), data)
    config = replace(record.config, backend=choose(record.config.backend))
    run_one(config, folder, found, quiet)


def run_one(config: Config, folder: Path, found: Dataset, quiet: bool) -> None:
    """Train one run with a bar, then show it."""
    with bar(config.iterations, quiet) as progress:
        train(config, folder, found, follower(progress, f"{config.net} seed {config.seed}", 1))
    show([folder], folder / "errors.png")


def export(folders: FoldersArgument) -> None:
    """Write the weights of trained nets alone to weights.safetensors in their folders.

    Example: minires export runs/degradation-shapes10-280/resnet20-seed0
    """
    for folder in trained_folders(folders):
        path = checkpoint.export_weights(folder)
        say(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
