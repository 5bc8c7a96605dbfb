"""Commands that train one network: train, resume, export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from minires import data as images
from minires.cli.experiment import show
from minires.cli.options import (
    RUNS,
    AugmentOption,
    BackendOption,
    BatchOption,
    DataOption,
    DatasetOption,
    EvalOption,
    EveryOption,
    FoldersArgument,
    LrOption,
    MovingOption,
    QuietOption,
    WarmupOption,
    choose,
    load,
    say,
)
from minires.data import Dataset
from minires.lab import presets
from minires.nets.registry import by_name
from minires.runs import checkpoint
from minires.runs.config import Config, read_record
from minires.runs.run_folder import trained_folders
from minires.train.loop import train
from minires.train.progress import bar, follower


def train_command(
    net: Annotated[str, typer.Argument(help="Such as resnet20, plain56, resnet32B.")],
    iterations: Annotated[int, typer.Option(help="Steps; the paper's is 64000.")] = 64_000,
    seed: Annotated[int, typer.Option(help="Decides weights, order, crops and flips.")] = 0,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder [default: runs/NET-DATA-ITERATIONS-seedK].")
    ] = None,
    lr: LrOption = 0.1,
    warmup_lr: WarmupOption = None,
    batch_size: BatchOption = 128,
    augment: AugmentOption = True,
    eval_images: EvalOption = 2000,
    eval_every: EveryOption = None,
    moving_average: MovingOption = False,
    backend: BackendOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train one net by the paper's recipe; the same command goes on where it was stopped.

    From 2,000 iterations on, the learning rate is divided by 10 at half and at three quarters of the way.

    Example: minires train resnet20 --iterations 2000
    """
    name = by_name(net).title
    found = load(dataset, data)
    config = presets.base_config(
        found,
        net=name,
        iterations=iterations,
        lr=lr,
        eval_images=eval_images,
        eval_every=max(1, iterations // 4) if eval_every is None else eval_every,
        moving_average=moving_average,
        warmup_lr=warmup_lr,
        batch_size=batch_size,
        augment=augment,
        seed=seed,
        backend=choose(backend),
    )
    folder = out or RUNS / f"{name}-{found.slug}-{iterations}-seed{seed}"
    run_one(presets.recipe(config), folder, found, quiet)


def resume(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    data: DataOption = None,
    quiet: QuietOption = False,
) -> None:
    """Go on with a run that was stopped, by its own recipe.

    Example: minires resume runs/resnet20-cifar-10-2000-seed0
    """
    record = read_record(folder)
    config = Config.from_json(record["config"])
    found = images.load(images.key(record["data"]["name"]), data)
    run_one(replace(config, backend=choose(config.backend)), folder, found, quiet)


def run_one(config: Config, folder: Path, found: Dataset, quiet: bool) -> None:
    """Train one run with a bar, then show it."""
    with bar(config.iterations, quiet) as progress:
        train(config, folder, found, follower(progress, f"{config.net} seed {config.seed}", 1))
    show([folder], folder / "errors.png")


def export(folders: FoldersArgument) -> None:
    """Write the weights of trained nets alone to weights.safetensors in their folders, to be kept or given away.

    Example: minires export runs/degradation-shapes10-280/resnet20-seed0
    """
    for folder in trained_folders(folders):
        path = checkpoint.export_weights(folder)
        say(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
