"""Commands for data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minires.cli.options import Command, JsonOption, Output, QuietOption, out_option, path_option
from minires.errors import quoted

data_app = typer.Typer(
    help="Get CIFAR-10, look at shapes10, or draw scenes.\n\nExample: minires data cifar10",
    short_help="Get CIFAR-10, look at shapes10, or draw scenes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@data_app.command("cifar10", cls=Command, short_help="Download CIFAR-10, or install your copy.")
def data_cifar10(
    source: Annotated[
        Path | None, path_option("A tarball or folder that you have.", "PATH", "--from")
    ] = None,
    into: Annotated[
        Path | None, path_option("Where to put it [default: the cache folder].", "DIR")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Accept a --from whose hash is not the official one.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Download CIFAR-10 (170 MB, checked by SHA-256), or install a copy that you have.

    Example: minires data cifar10 --from ~/Downloads/cifar-10-binary.tar.gz
    """
    from minires.data import cifar10, cifar10_install

    folder = (
        cifar10_install.install(source, into, trust) if source else cifar10_install.download(into)
    )
    found = cifar10.read(folder, trust)
    out = Output(json_output)
    out.show(
        f"{found.name} is in {folder}: "
        f"{len(found.train):,} training and {len(found.test):,} test images"
    )
    sizes = {"train": len(found.train), "test": len(found.test)}
    out.result({"folder": folder, "name": found.name, **sizes})


@data_app.command("shapes10", cls=Command, short_help="Draw a contact sheet of shapes10.")
def data_shapes10(
    out: Annotated[Path, out_option("File: .png, .svg or .pdf.")] = Path("shapes10.png"),
    seed: Annotated[int, typer.Option(help="Which images.", min=0, metavar="N")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Draw a contact sheet of shapes10, with a column for each class.

    Example: minires data shapes10 --out sheet.png
    """
    from minires.data import shapes10
    from minires.lab import plots

    plots.check_format(out)
    plots.save(plots.sheet(shapes10.sheet(seed=seed), shapes10.CLASSES), out)
    output = Output(json_output)
    output.show(f"{', '.join(shapes10.CLASSES)}: {out}")
    output.result({"figure": out, "classes": shapes10.CLASSES})


@data_app.command("scenes", cls=Command, short_help="Draw a folder of pictures.")
def data_scenes(
    out: Annotated[Path, path_option("A new or an empty folder.", "DIR")],
    classes: Annotated[int, typer.Option(help="Kinds of scenes, from 2 to 10.", metavar="N")] = 10,
    per_class: Annotated[
        int,
        typer.Option(help="Pictures of each class, 10 to 10000; a tenth goes to val.", metavar="N"),
    ] = 200,
    size: Annotated[
        int, typer.Option(help="Shorter side in pixels, 16 to 2048.", metavar="N")
    ] = 256,
    seed: Annotated[int, typer.Option(help="Which pictures.", metavar="N")] = 0,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw landscapes and write them as JPEG files, in a folder for each class as ImageNet.

    Example: minires data scenes --out scenes
    """
    from minires.data import scenes
    from minires.train.progress import bar

    written = 0
    with bar(classes * per_class, quiet) as progress:
        for _ in scenes.write(out, classes, per_class, size, seed):
            written += 1
            progress.update()
    output = Output(json_output)
    output.show(
        f"{written:,} pictures are in {out}; train on them, such as: minires train "
        f"imagenet-resnet18 --dataset {quoted(out)} --image-size 64 --iterations 100"
    )
    output.result({"folder": out, "classes": scenes.CLASSES[:classes], "pictures": written})
