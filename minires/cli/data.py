"""Commands for data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minires.cli.options import say
from minires.data import cifar10, cifar10_install, shapes10
from minires.lab import plots

data_app = typer.Typer(
    help="Get CIFAR-10, or look at shapes10.", no_args_is_help=True, rich_markup_mode=None
)


@data_app.command("cifar10")
def data_cifar10(
    source: Annotated[
        Path | None, typer.Option("--from", help="A tarball or folder you have.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Folder to put it in [default: the cache folder].")
    ] = None,
    trust: Annotated[
        bool, typer.Option(help="Take --from even if its hash is not the official one.")
    ] = False,
) -> None:
    """Download CIFAR-10 (170 MB, checked by SHA-256), or take a copy that you have.

    Example: minires data cifar10 --from ~/Downloads/cifar-10-binary.tar.gz
    """
    folder = (
        cifar10_install.install(source, into, trust) if source else cifar10_install.download(into)
    )
    found = cifar10.read(folder, trust)
    say(
        f"{found.name} is in {folder}: "
        f"{len(found.train):,} training and {len(found.test):,} test images"
    )


@data_app.command("shapes10")
def data_shapes10(
    out: Annotated[Path, typer.Option(help="File; .png, .svg or .pdf.")] = Path("shapes10.png"),
    seed: Annotated[int, typer.Option(help="Which images.")] = 0,
) -> None:
    """Draw a contact sheet of shapes10, a column for each class.

    Example: minires data shapes10 --out sheet.png
    """
    plots.save(plots.sheet(shapes10.sheet(seed=seed), shapes10.CLASSES), out)
    say(f"{', '.join(shapes10.CLASSES)}: {out}")
