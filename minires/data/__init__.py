"""Images in: CIFAR-10 where it is found, else shapes10, drawn on the spot. This room knows no neural network."""

import contextlib
import os
from pathlib import Path

from minires.data import cifar10, shapes10
from minires.data.augment import crop_and_flip, normalise, per_pixel_mean
from minires.data.batches import batch_indices, stream, training_batch
from minires.data.dataset import Dataset
from minires.errors import InputError, quoted

__all__ = [
    "Dataset",
    "batch_indices",
    "cifar10",
    "crop_and_flip",
    "find_cifar10",
    "load",
    "normalise",
    "option",
    "per_pixel_mean",
    "shapes10",
    "stream",
    "training_batch",
]

NAMES = ("auto", "cifar10", "shapes10", "shapes10-fresh")


def find_cifar10(folder: str | Path | None = None) -> Path | None:
    """
    Find CIFAR-10 on this machine.

    Searched in this order: `folder`, the environment variable MINIRES_DATA, the cache folder. Each may be a layout
    folder or hold `cifar-10-batches-bin` or `cifar-10-batches-py`.

    Parameters
    ----------
    folder : str or Path, optional
        The first place to look.

    Returns
    -------
    Path or None
        The layout folder, not yet checked; None if nobody named a folder and the cache folder holds none.

    Raises
    ------
    InputError
        If `folder`, or MINIRES_DATA where `folder` is not given, names a folder without CIFAR-10.
    """
    for origin, named in (("--data", folder), ("MINIRES_DATA", os.environ.get("MINIRES_DATA"))):
        if not named:
            continue
        found = cifar10.layout_folder(Path(named))
        if found is None:
            raise InputError(
                f"{origin} names {named}: expected {cifar10.BINARY} or {cifar10.PYTHON} in it, found neither; "
                f"correct or drop {origin}, or get CIFAR-10 with `minires data cifar10`"
            )
        return found
    return cifar10.layout_folder(cifar10.cache_folder())


def key(name: str) -> str:
    """Turn the name of a data set, as in `Dataset.name`, into the one that `load` takes."""
    return "cifar10" if name.startswith("CIFAR-10") else name


def option(dataset: Dataset) -> str:
    """What a command needs to find the same images again: nothing, or " --data FOLDER"."""
    if key(dataset.name) != "cifar10":
        return ""
    with contextlib.suppress(InputError):  # MINIRES_DATA may name nothing by now
        if find_cifar10() == Path(dataset.source):
            return ""
    return f" --data {quoted(Path(dataset.source))}"


def load(name: str = "auto", folder: str | Path | None = None) -> Dataset:
    """
    Load a data set.

    Parameters
    ----------
    name : {"auto", "cifar10", "shapes10", "shapes10-fresh"}
        "auto" takes CIFAR-10 if it is found and shapes10 otherwise; "shapes10-fresh" draws new images for every step.
    folder : str or Path, optional
        Where CIFAR-10 is, see `find_cifar10`.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        If the name is unknown, CIFAR-10 is asked for and not found, a named folder holds none, or what is found is
        damaged.
    """
    if name not in NAMES:
        raise InputError(
            f"expected a data set named {', '.join(NAMES)}, but came {name!r}; choose one of these"
        )
    if name.startswith("shapes10"):
        if folder:
            raise InputError(
                f"{name} is drawn and reads no folder, but came {folder}; drop --data or choose cifar10"
            )
        return shapes10.dataset(fresh=name == "shapes10-fresh")
    found = find_cifar10(folder)
    if found:
        return cifar10.read(found)
    if name == "cifar10":
        raise InputError(
            f"expected CIFAR-10 in {cifar10.cache_folder()}, found none; get it with `minires data cifar10`, install a "
            "tarball or folder with `minires data cifar10 --from FILE`, or name a folder by --data DIR or MINIRES_DATA"
        )
    return shapes10.dataset()
