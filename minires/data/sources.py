"""Data sets by name, and where users add their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minires.data import cifar10, shapes10
from minires.data.dataset import Dataset
from minires.errors import InputError, quoted

Load = Callable[[Path | None], Dataset]


@dataclass(frozen=True)
class Source:
    """How a data set is loaded, see `register`."""

    load: Load
    title: str
    find: Callable[[], Path | None] | None


SOURCES: dict[str, Source] = {}


def register(
    name: str,
    load: Load,
    *,
    title: str | None = None,
    find: Callable[[], Path | None] | None = None,
) -> None:
    """Add a data set.

    Parameters
    ----------
    name : str
        What `load` and the command line call it.
    load : callable
        `load(folder)` returns the `Dataset`; `folder` is that of --data, or None.
    title : str, optional
        What `Dataset.name` is or begins with, "TITLE (...)"; `name` itself by default.
    find : callable, optional
        For data that are read from a folder: where they are found if nobody names one, or None.

    Raises
    ------
    InputError
        If a data set of that name is registered already.
    """
    if name in SOURCES or name == "auto":
        raise InputError(f"the data set {name!r} is registered already; choose another name")
    SOURCES[name] = Source(load, title or name, find)


def unregister(name: str) -> None:
    """Take a data set out again: its name is unknown from here on."""
    SOURCES.pop(name, None)


def key(name: str) -> str:
    """Name that `load` takes of a data set, by its `Dataset.name`."""
    for known, source in SOURCES.items():
        if name == source.title or name.startswith(f"{source.title} ("):
            return known
    return name


def load(name: str = "auto", folder: str | Path | None = None) -> Dataset:
    """
    Load a data set.

    Parameters
    ----------
    name : str
        "cifar10", "shapes10", "shapes10-fresh" (new images for every step), or one that was
        registered. "auto" takes CIFAR-10 if it is found and shapes10 otherwise.
    folder : str or Path, optional
        Where the data are, see `find_cifar10`.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        If the name is unknown, the data are not found, a named folder does not hold them, or what
        is found is damaged.
    """
    if name == "auto":
        name = "cifar10" if find_cifar10(folder) else "shapes10"
    if name not in SOURCES:
        names = ", ".join(("auto", *SOURCES))
        raise InputError(
            f"expected a data set named {names}, but got {name!r}; choose one of these"
        )
    return SOURCES[name].load(Path(folder) if folder else None)


def option(dataset: Dataset) -> str:
    """What a command needs to find the same images again: nothing, or " --data FOLDER"."""
    source = SOURCES.get(key(dataset.name))
    if source is None or source.find is None:
        return ""
    with contextlib.suppress(InputError):  # MINIRES_DATA may name nothing by now
        if source.find() == Path(dataset.source):
            return ""
    return f" --data {quoted(Path(dataset.source))}"


def find_cifar10(folder: str | Path | None = None) -> Path | None:
    """
    Find CIFAR-10 on this machine.

    Searched in this order: `folder`, the environment variable MINIRES_DATA, the cache folder. Each
    may be a layout folder or hold `cifar-10-batches-bin` or `cifar-10-batches-py`.

    Parameters
    ----------
    folder : str or Path, optional
        The first place to look.

    Returns
    -------
    Path or None
        The layout folder, not yet checked; None if nobody named a folder and the cache folder
        holds none.

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
                f"{origin} names {named}: expected {cifar10.BINARY} or {cifar10.PYTHON} in it, "
                f"found neither; correct or drop {origin}, or get CIFAR-10 with "
                "`minires data cifar10`"
            )
        return found
    return cifar10.layout_folder(cifar10.cache_folder())


def _load_cifar10(folder: Path | None) -> Dataset:
    found = find_cifar10(folder)
    if found is None:
        raise InputError(
            f"expected CIFAR-10 in {cifar10.cache_folder()}, found none; get it with "
            "`minires data cifar10`, install a tarball or folder with "
            "`minires data cifar10 --from FILE`, or name a folder by --data DIR or MINIRES_DATA"
        )
    return cifar10.read(found)


def _draw_shapes10(fresh: bool) -> Load:
    def load(folder: Path | None) -> Dataset:
        if folder:
            name = "shapes10-fresh" if fresh else "shapes10"
            raise InputError(
                f"{name} is drawn and reads no folder, but got {folder}; "
                "drop --data or choose cifar10"
            )
        return shapes10.dataset(fresh=fresh)

    return load


register("cifar10", _load_cifar10, title="CIFAR-10", find=find_cifar10)
register("shapes10", _draw_shapes10(fresh=False))
register("shapes10-fresh", _draw_shapes10(fresh=True))
