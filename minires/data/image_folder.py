"""
Pictures in a folder for each class, as ImageNet is laid out: FOLDER/train/CLASS/PICTURE.

Pictures are the files whose names end as in `pictures.EXTENSIONS`, those in deeper folders of a
class included. Other files are counted and passed over; hidden ones (.NAME) are ignored. Pictures
are checked once, and read when a batch is prepared (see `scale_and_crop`), so the folder may be
larger than the memory.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minires.data.dataset import Dataset
from minires.data.paths import expanded
from minires.data.scale_and_crop import ScaleAndCrop, bar, in_threads
from minires.data.sources import FOLDER_TITLE
from minires.errors import InputError
from minires.text import shown

TRAIN = ("train",)
TEST = ("val", "valid", "validation", "test")  # the first one that is there
LAYOUT = "FOLDER/train/CLASS/PICTURE and FOLDER/val/CLASS/PICTURE"
NAMED = 5  # files that a message names
SCAN = 2000  # files checked between two updates of the progress bar


@dataclass(frozen=True)
class PictureSplit:
    """Pictures on disk, as a split: rows are paths and labels.

    Classes take turns, so the first rows are a sample of all classes.

    Attributes
    ----------
    folder : Path
    files : tuple of str
        Relative to `folder`, with "/".
    labels : ndarray of shape (N,), int64
    """

    folder: Path
    files: tuple[str, ...] = field(repr=False)
    labels: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.arange(len(self.files))[rows]
        paths = np.empty(len(chosen), object)
        for i, row in enumerate(chosen):
            paths[i] = str(self.folder / self.files[row])
        return paths, self.labels[chosen]


def dataset(folder: Path, labels: Path | None = None, strict: bool = False) -> Dataset:
    """
    Find the pictures of a folder that holds `train` and `val`.

    Parameters
    ----------
    folder : Path
        Holds `train` and `val` (or `valid`, `validation`, `test`), with a folder for each class.
    labels : Path, optional
        A table with the name of each class, see `read_labels`.
    strict : bool
        Refuse damaged files. Otherwise a warning names and counts them, and they are left out.

    Returns
    -------
    Dataset
        Named after the folder: "scenes (image folder)". Its classes are the folders in `train` in
        alphabetical order, under the names of the table. Its fingerprint is a hash of the names
        and sizes of the files, not of their content.

    Raises
    ------
    InputError
        If a split or its pictures are missing, there are fewer than two classes, classes of the two
        splits or of the table do not agree, or, with `strict`, a file is damaged.
    """
    folder = expanded(folder)
    train_folder = _split_folder(folder, TRAIN)
    test_folder = _split_folder(folder, TEST)
    wnids = class_folders(train_folder)
    if len(wnids) < 2:
        raise InputError(
            f"{shown(train_folder)}: expected two classes or more, found only {shown(wnids[0])}; "
            f"add the folder of another class ({LAYOUT})"
        )
    unknown = sorted(set(class_folders(test_folder)) - set(wnids))
    if unknown:
        raise InputError(
            f"{shown(test_folder)} has the class {shown(unknown[0])}, which {shown(train_folder)} "
            f"does not have ({len(unknown)} such); give both the same classes"
        )
    names = read_labels(expanded(labels), wnids) if labels else tuple(wnids)
    train, test = (_split(path, wnids, strict) for path in (train_folder, test_folder))
    empty = [wnid for k, wnid in enumerate(wnids) if not (train.labels == k).any()]
    if empty:
        raise InputError(
            f"{shown(train_folder / empty[0])} holds no picture; add some, or remove the folder"
        )
    title = shown(folder.resolve().name, 60).strip() or "pictures"
    return Dataset(
        f"{title} ({FOLDER_TITLE})",
        train,
        test,
        names,
        str(folder),
        prepare=ScaleAndCrop(train),
        fingerprint=_fingerprint((train, test)),
    )


def _split_folder(folder: Path, names: Sequence[str]) -> Path:
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise InputError(f"{shown(folder)}: expected a folder of pictures, found {found}")
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise InputError(
        f"{shown(folder)}: expected the folder {' or '.join(names)} in it, found none; lay the "
        f"pictures out as {LAYOUT}"
    )


def class_folders(folder: Path) -> list[str]:
    """
    Names of the folders of classes in a split's folder, in alphabetical order.

    Raises
    ------
    InputError
        If there is none.
    """
    found = sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."
    )
    if not found:
        raise InputError(
            f"{shown(folder)}: expected a folder for each class, found none; lay the pictures out "
            f"as {LAYOUT}"
        )
    return found


def read_labels(path: Path, wnids: Sequence[str]) -> tuple[str, ...]:
    """
    Read the names of these classes from a table, see `read_table`.

    A class of a longer table may be missing in the folder.

    Parameters
    ----------
    path : Path
        Text in UTF-8.
    wnids : list of str
        Folders of the classes.

    Returns
    -------
    tuple of str
        Their names, in the order of `wnids`.

    Raises
    ------
    InputError
        As `read_table`, or if a folder has no name.
    """
    table = read_table(path)
    missing = [wnid for wnid in wnids if wnid not in table]
    if missing:
        raise InputError(
            f"--labels {shown(path)} names {len(table)} classes, and {len(missing)} of the "
            f"{len(wnids)} folders are not among them: {_listed(missing)}; "
            "give the table of these pictures"
        )
    return tuple(table[wnid] for wnid in wnids)


def read_table(path: Path) -> dict[str, str]:
    """
    Read a table of class names: a line for each class, its folder, white space, its name.

    ImageNet's own table has this form: `n01440764 tench, Tinca tinca`.

    Returns
    -------
    dict of str to str
        Names by folder, in the order of the lines.

    Raises
    ------
    InputError
        If the file cannot be read, a line has no name, or a folder has two.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise InputError(f"--labels {shown(path)} cannot be read: {reason}") from error
    table: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        wnid, *rest = line.split(maxsplit=1)
        if not rest or wnid in table:
            fault = f"a second name for {shown(wnid)}" if rest else shown(line, 60)
            raise InputError(
                f"--labels {shown(path)}, line {number}: expected a folder and the name of its "
                f"class, such as `n01440764 tench`, found {fault}"
            )
        table[wnid] = shown(rest[0].strip())
    return table


# ---------------------------------------------------------------------------------- the files


def _split(folder: Path, wnids: Sequence[str], strict: bool) -> PictureSplit:
    """The whole pictures of a split; damaged ones and other files are counted."""
    from minires.data.pictures import EXTENSIONS

    by_class, others = [], []
    for wnid in wnids:
        names = _files(folder, wnid)
        by_class.append([name for name in names if name.lower().endswith(EXTENSIONS)])
        others += [name for name in names if not name.lower().endswith(EXTENSIONS)]
    if others:
        total = len(others) + sum(map(len, by_class))
        warnings.warn(
            f"{shown(folder)}: passed over {len(others)} of {total} files, whose names are not "
            f"those of pictures: {_listed(others)}",
            stacklevel=2,
        )
    turns = itertools.zip_longest(*by_class)  # one of each class, then the next of each
    files = [(name, label) for turn in turns for label, name in enumerate(turn) if name is not None]
    if not files:
        raise InputError(
            f"{shown(folder)}: expected pictures in the folders of its classes, found none; add "
            f"some, as files that end in {', '.join(EXTENSIONS[:5])} and so on"
        )
    faults = _faults(folder, [name for name, _ in files])
    if faults:
        _report(folder, faults, len(files), strict)
        files = [(name, label) for name, label in files if name not in faults]
    labels = np.array([label for _, label in files], np.int64)
    return PictureSplit(folder, tuple(name for name, _ in files), labels)


def _listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    every = [shown(name, 80) for name in names]
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more


def _files(folder: Path, wnid: str) -> list[str]:
    """Files of a class and of the folders in it, relative to `folder`; hidden ones do not count."""
    found = []
    for place, folders, names in os.walk(folder / wnid):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        here = Path(place).relative_to(folder).as_posix()
        found += [f"{here}/{name}" for name in sorted(names) if name[0] != "."]
    return found


def _fault(path: Path) -> str:
    """Why a file is not a whole picture, "" if it is one."""
    from minires.data import pictures

    try:
        pictures.check(path)
    except InputError as error:
        return str(error)
    return ""


def _faults(folder: Path, files: Sequence[str]) -> dict[str, str]:
    """Files that are not whole pictures, with the reasons."""
    faults: dict[str, str] = {}
    with bar(len(files), f"checking the pictures in {shown(folder.name)}") as progress:
        for start in range(0, len(files), SCAN):
            part = files[start : start + SCAN]
            reasons = in_threads(_fault, [folder / name for name in part])
            faults |= {name: why for name, why in zip(part, reasons, strict=True) if why}
            progress.update(len(part))
    return faults


def _report(folder: Path, faults: dict[str, str], total: int, strict: bool) -> None:
    """Warn about damaged pictures, or refuse them."""
    count = f"{len(faults)} of {total} pictures are damaged"
    if strict:
        first = next(iter(faults.values()))
        raise InputError(
            f"{first} ({count}: {_listed(faults)}; without --strict they are left out)"
        )
    warnings.warn(
        f"{shown(folder)}: {count} and left out: {_listed(faults)}; refuse them with --strict",
        stacklevel=2,
    )


def _fingerprint(splits: Sequence[PictureSplit]) -> str:
    """SHA-256 over the names and sizes of the files, split by split."""
    digest = hashlib.sha256()
    for split in splits:
        for name in split.files:
            size = (split.folder / name).stat().st_size
            digest.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
        digest.update(b"\n")
    return digest.hexdigest()


def load(folder: Path | None, labels: Path | None = None, strict: bool = False) -> Dataset:
    """Load the data set "folder", see `dataset`; an error says so if no folder is named."""
    if folder is None:
        raise InputError(
            "pictures in folders need the folder that holds them; name it with --dataset FOLDER, "
            f"or with --data FOLDER (its layout: {LAYOUT})"
        )
    return dataset(folder, labels, strict)
