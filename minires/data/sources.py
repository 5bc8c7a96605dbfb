"""Data sets by name, and where users add their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minires.data import cifar10, shapes10
from minires.data.dataset import Dataset
from minires.data.paths import expanded
from minires.errors import InputError, quoted
from minires.text import did_you_mean, shown

FOLDER_TITLE = "image folder"  # a folder of pictures is named "FOLDER (image folder)"

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
        `Dataset.name` must be this title, or "TITLE (...)". By default, it is `name`.
    find : callable, optional
        For data that are read from a folder: `find()` is called if no folder is given; it returns
        the folder that holds the data, or None.

    Raises
    ------
    InputError
        If a data set of that name, or with that title, is registered already.
    """
    if name in SOURCES or name == "auto":
        raise InputError(f"the data set {name!r} is registered already; choose another name")
    title = title or name
    other = next((known for known in SOURCES if SOURCES[known].title == title), None)
    if other or key(title) != title:
        raise InputError(
            f"the data set {name!r} has the title {title!r}, which is that of "
            f"{other or key(title)!r}; choose another title"
        )
    SOURCES[name] = Source(load, title, find)


def unregister(name: str) -> None:
    """Remove a data set; its name is unknown afterwards."""
    SOURCES.pop(name, None)


def key(name: str) -> str:
    """The name under which `load` finds a data set, from its `Dataset.name`."""
    if name.endswith(f" ({FOLDER_TITLE})"):
        return "folder"
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
        "cifar10", "shapes10", "shapes10-fresh" (new images for every step), "folder" (pictures in
        a folder for each class), or one that was registered. "auto" takes CIFAR-10 if it is found
        and shapes10 otherwise.
    folder : str or Path, optional
        Where the data are, see `find_cifar10`.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        If the name is unknown, the data are not found or damaged, a named folder does not hold
        them, or they have another name than they were registered with.
    """
    if name == "auto":
        name = "cifar10" if find_cifar10(folder) else "shapes10"
    if name not in SOURCES:
        names = ", ".join(("auto", *SOURCES))
        raise InputError(
            f"expected a data set named {names}, but got {shown(name)!r}; choose one of these"
            f"{did_you_mean(shown(name), SOURCES)}"
        )
    found = SOURCES[name].load(expanded(folder) if folder else None)
    if isinstance(found, Dataset) and key(found.name) != name:
        title = SOURCES[name].title
        raise InputError(
            f"the data set {name!r} loads one that is named {shown(found.name)!r}, so that a "
            f"recorded run would not find it again; name it {title!r} or '{title} (...)', or "
            f"register it with title={shown(found.name)!r}"
        )
    return found


def looks_like_folder(name: str) -> bool:
    """Whether --dataset names a folder of pictures: a path, or a folder without a data set's name.

    A registered name is always that data set: write ./cifar10 for a folder of this name.
    """
    if name == "auto" or name in SOURCES:
        return False
    return any(mark in name for mark in ("/", os.sep, "~")) or Path(name).is_dir()


def option(dataset: Dataset) -> str:
    """The option by which a command finds the same images again: "" or " --data FOLDER"."""
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
        path = expanded(named)
        found = cifar10.layout_folder(path)
        if found is None:
            raise InputError(f"{origin} names {shown(named)}: {_what_is_wrong(path, origin)}")
        return found
    return cifar10.layout_folder(cifar10.cache_folder())


def _what_is_wrong(path: Path, origin: str) -> str:
    """The error for a path that is not a folder of CIFAR-10, and its remedy."""
    if path.is_file():
        whole = path.parent if path.name in cifar10.ALL_FILES else path
        return (
            f"expected a folder with {cifar10.BINARY} or {cifar10.PYTHON}, got a file; install it "
            f"with `minires data cifar10 --from {quoted(whole)}`, then drop {origin}"
        )
    below = cifar10.layout_below(path)
    if below:
        return f"the data are deeper in it; name {quoted(below)} instead"
    there = "found neither" if path.is_dir() else "but there is nothing"
    return (
        f"expected {cifar10.BINARY} or {cifar10.PYTHON} in it, {there}; correct or drop "
        f"{origin}, get CIFAR-10 with `minires data cifar10`, or install a tarball or folder with "
        "`minires data cifar10 --from FILE`"
    )


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
                f"{name} is drawn and reads no folder, but got {shown(folder)}; "
                "drop --data or choose cifar10"
            )
        return shapes10.dataset(fresh=fresh)

    return load


def _load_folder(folder: Path | None) -> Dataset:
    from minires.data import image_folder  # its threads and hashes are for pictures alone

    return image_folder.load(folder)


register("cifar10", _load_cifar10, title="CIFAR-10", find=find_cifar10)
register("shapes10", _draw_shapes10(fresh=False))
register("shapes10-fresh", _draw_shapes10(fresh=True))
register("folder", _load_folder, title=FOLDER_TITLE, find=lambda: None)
