"""Commands that train one network: train, resume, export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minires import plugins
from minires.cli import experiment, names
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

if TYPE_CHECKING:
    from minires.data import Dataset


@training_options(
    {"eval_every": "a quarter", "iterations": "", "milestones": "", "init": ""},
    iterations=64_000,
    eval_images=2000,
)
def train_command(
    asked: dict[str, Any],
    net: Annotated[str, NetArgument],
    seed: Annotated[
        int, typer.Option(help="For weights, order, crops and flips.", min=0, metavar="N")
    ] = 0,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    out: Annotated[
        Path | None, path_option("[default: runs/NET-DATA-ITERATIONS-seedN]", "DIR")
    ] = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train one net by the paper's recipe. If you stop it, run it again to resume.

    The learning rate drops tenfold at 1/2 and 3/4 of 2,000 or more iterations.

    Example: minires train resnet20 --iterations 2000
    """
    from minires.lab import presets

    facts = names.network(net)
    iterations = asked["iterations"]
    asked.setdefault("eval_every", max(1, iterations // 4))
    experiment.check_recipes([facts], "quick", asked, seed)
    output = Output(json_output)
    backend = choose(asked.pop("backend", None), output.say)
    found = load(dataset, data, output.say)
    config = presets.base_config(found, net=facts.name, seed=seed, **asked, backend=backend)
    folder = out or RUNS / f"{facts.name}-{found.slug}-{iterations}-seed{seed}"
    run_one(presets.with_warmup(config, facts), folder, found, quiet)
    output.result(experiment.show([folder], folder / "errors.png", output))


def resume(
    folder: Annotated[Path, typer.Argument(help="A run folder.", metavar="DIR", parser=expanded)],
    data: DataOption = None,
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
    run_one(replace(record.config, backend=backend), folder, found, quiet)
    output.result(experiment.show([folder], folder / "errors.png", output))


def run_one(config: Config, folder: Path, found: Dataset, quiet: bool) -> None:
    """Train one run with a bar; its folder is acquired before anything is compiled."""
    from minires.runs.run_folder import RunFolder
    from minires.train import loop, progress

    run_folder = RunFolder(folder)
    with run_folder.locked():
        facts = loop.fitted_facts(config.net, found)
        loop.acquire(run_folder, replace(config, net=facts.name), facts, found)
    compile_kernels(config.backend, quiet)
    with progress.bar(config.iterations, quiet) as bar:
        title = f"{config.net} seed {config.seed}"
        loop.train(config, folder, found, progress.follower(bar, title, 1))


def export(folders: FoldersArgument, json_output: JsonOption = False) -> None:
    """Write the weights of trained nets, without the optimizer's state, to weights.safetensors.

    Example: minires export runs/degradation-shapes10-280/resnet20-seed0
    """
    from minires.runs import checkpoint
    from minires.runs.run import trained_folders

    output = Output(json_output)
    written = []
    for folder in trained_folders(folders):
        path = checkpoint.export_weights(folder)
        size = path.stat().st_size
        output.show(f"{path}: {size / 1e6:.2f} MB")
        written.append({"weights": path, "bytes": size})
    output.result(written)
