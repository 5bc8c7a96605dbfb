"""minires classify: which classes a trained network sees in pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minires.cli import names, normalising
from minires.cli.options import JsonOption, NetArgument, Output, expanded, path_option
from minires.errors import InputError
from minires.text import columns

TOP = 5
BAR = 30  # columns of a bar for probability 1

NormaliseOption = Annotated[
    str | None,
    typer.Option(help="imagenet, where the file does not say it.", metavar="HOW"),
]
SizeOption = Annotated[
    int | None,
    typer.Option(help="Side of the square in pixels [default: the file's].", metavar="N"),
]
TableOption = Annotated[
    Path | None, path_option("Table of names: folder, space, name [default: the file's].")
]
BackendOption = Annotated[
    str, typer.Option(help="numpy, or numba for many pictures.", metavar="NAME")
]


def classify(
    net: Annotated[str, NetArgument],
    files: Annotated[
        list[Path], typer.Argument(help="Files of pictures.", metavar="PICTURE", parser=expanded)
    ],
    weights: Annotated[Path, path_option("Trained weights: safetensors, or a file of PyTorch.")],
    normalise: NormaliseOption = None,
    image_size: SizeOption = None,
    labels: TableOption = None,
    backend: BackendOption = "numpy",
    json_output: JsonOption = False,
) -> None:
    """Name the five likeliest classes of each picture.

    The shorter side of a picture becomes 256 pixels, and the network sees the 224 in the centre;
    with another --image-size in proportion.

    Example: minires classify imagenet-resnet50 --weights resnet50.pth cat.jpg
    """
    from minires.exchange import weights as exchange
    from minires.train import testing

    trained, about = exchange.load_network(names.network(net).name, weights)
    size = _side(image_size, about.get("image_size") or trained.facts.input_shape[0])
    known = _labels(labels, about.get("labels"), trained.facts.classes)
    normalisation = normalising.numbers(about, normalise, weights)
    predict = testing.centre_crop(trained.use(backend), normalisation, size)
    output = Output(json_output)
    found = []
    for file in files:
        (probabilities,) = predict([file])
        best = probabilities.argsort()[::-1][:TOP]
        top = [(known[k], float(probabilities[k])) for k in best]
        found.append({"file": str(file), "top": top})
        output.show(f"{file}\n{bars(top)}")
    output.result(found)


def _side(asked: int | None, usual: int) -> int:
    """Side of the square that the network sees."""
    if asked is not None and not 8 <= asked <= 4096:
        raise InputError(f"--image-size must be from 8 to 4096 pixels, got {asked}")
    return asked or usual


def _labels(path: Path | None, of_file: list[str] | None, classes: int) -> list[str]:
    """Names of the classes: of the table, of the file of weights, or their numbers."""
    if path is None:
        return of_file or [f"class {k}" for k in range(classes)]
    from minires.data.image_folder import read_table

    table = list(read_table(path).values())
    if len(table) != classes:
        raise InputError(
            f"--labels {path} names {len(table)} classes, and the network has {classes}; give the "
            "table of its classes, in their order"
        )
    return table


def bars(top: list[tuple[str, float]]) -> str:
    """A line for each class, with a bar as long as its probability."""
    lines = [(f"  {name}", "#" * round(BAR * p), f"{100 * p:.1f} %") for name, p in top]
    widest = max(len(bar) for _, bar, _ in lines)
    return columns([(name, bar.ljust(widest), p) for name, bar, p in lines], left=2)
