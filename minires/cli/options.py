"""Options that several commands have, and what every command does first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from tqdm.auto import tqdm

from minires import data as images
from minires.data import Dataset
from minires.lab.presets import TIERS
from minires.ops import default_backend, get_ops, prepare

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
LrOption = Annotated[float, typer.Option(help="Learning rate.")]
BatchOption = Annotated[int, typer.Option(help="Images a step.")]
EvalOption = Annotated[
    int, typer.Option(help="Training and test images on which errors are measured.")
]
BackendOption = Annotated[
    str | None, typer.Option(help="numba (compiled, the default where installed) or numpy.")
]
EveryOption = Annotated[
    int | None, typer.Option(help="Iterations between evaluations [default: a quarter of all].")
]
WarmupOption = Annotated[
    float | None, typer.Option(help="Learning rate until the training error is below 80 %.")
]
MovingOption = Annotated[
    bool, typer.Option("--moving-average", help="Evaluate with batch norm's moving averages.")
]
AugmentOption = Annotated[
    bool | None, typer.Option("--augment/--no-augment", help="Crop and flip the images.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


def say(text: str) -> None:
    """Print a line at once."""
    typer.echo(text)


def load(dataset: str, folder: Path | None) -> Dataset:
    """Images to train on; says which, and how to get CIFAR-10 where it was not found."""
    found = images.load(dataset, folder)
    say(f"Data: {found.name} ({found.source})")
    if not found.name.startswith("CIFAR-10") and dataset == "auto":
        say(
            "CIFAR-10 was not found, so this runs on shapes10, drawn by the program itself. To get CIFAR-10 (170 MB):\n"
            "  minires data cifar10              (add --from FILE if you have it)\n"
            "or name its folder with --data DIR or MINIRES_DATA."
        )
    return found


def choose(backend: str | None) -> str:
    """Backend to use, compiled and ready; says what is compiled, and when the compiled one is missing."""
    if backend is None and default_backend() == "numpy":
        say(
            "Numba is not installed, so this runs on plain NumPy, several times slower: pip install numba"
        )
    chosen = backend or default_backend()
    get_ops(chosen)
    with tqdm(
        desc="compiling for this machine, once", unit=" kernels", delay=1, leave=False
    ) as progress:
        prepare(chosen, lambda name: progress.update())
    return chosen
