"""
Read CIFAR-10 from either of its official layouts on disk, and check it before use.

An installed copy is always in the binary layout: `cifar10_install` reads and checks the data,
writes it under a temporary name, then renames it. So a folder with the final name is complete, and
no pickle is kept.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minires.data.dataset import ArraySplit, Dataset
from minires.data.paths import expanded
from minires.errors import InputError, quoted
from minires.text import shown

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STEMS = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
RECORDS = 10_000  # per file
PIXELS = 3 * 32 * 32
BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
FILES = {BINARY: tuple(f"{stem}.bin" for stem in STEMS), PYTHON: STEMS}
ALL_FILES = {name for names in FILES.values() for name in names}
LARGEST_PICKLE = 200_000_000  # bytes; 31 million if official, up to six times that in protocol 0
SEAL = "official.sha256"  # hash of the content; `install` writes it if the source was official
# not needed, or not trusted in a tarball
EXTRAS = ("batches.meta.txt", "batches.meta", "readme.html", SEAL)
PYTHON_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
OFFICIAL, UNKNOWN = "CIFAR-10", "CIFAR-10 (unverified copy)"
COPIES = {  # known copies by the hash of their content, `Dataset.sha256`
    "80f325f66981107872410d25f1345430d5120e47f54c45e5330340449225a2f4": "CIFAR-10 (JPEG copy)",
}
AGAIN = "get it again with `minires data cifar10`, or `minires data cifar10 --from FILE`"


def cache_folder() -> Path:
    """Return the folder for downloads; it is searched last."""
    import pooch  # imported here because it is not available in browsers

    return Path(pooch.os_cache("minires"))


def _refusal(where: Path, expected: str, found: object, advice: str = AGAIN) -> InputError:
    return InputError(f"{shown(where)}: expected {expected}, found {found}; {advice}")


def layout_folder(folder: Path) -> Path | None:
    """Find the layout folder that `folder` is or holds.

    A folder with one official file counts; `read` checks the others.
    """
    for place in (folder, folder / BINARY, folder / PYTHON):
        if _layout(place):
            return place
    return None


def layout_below(folder: Path) -> Path | None:
    """Find a layout folder one or two levels deeper than `layout_folder` looks.

    Some archives unpack into a folder of the same name.
    """
    for pattern in ("*/cifar-10-batches-*", "*/*/cifar-10-batches-*", "*"):
        for place in sorted(folder.glob(pattern)):
            if _layout(place):
                return place
    return None


def _layout(folder: Path) -> str | None:
    return next(
        (layout for layout, files in FILES.items() if any((folder / f).is_file() for f in files)),
        None,
    )


def _reconstruct(kind: type, shape: tuple[int, ...], typecode: bytes) -> np.ndarray:
    """Safe version of NumPy's `_reconstruct`: unpickling an array first makes an empty one."""
    if kind is not np.ndarray or shape != (0,):
        raise ValueError(f"an array that begins as {kind} {shape}")
    return np.empty(0, np.int8)


def _frombuffer(
    buffer: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None
) -> np.ndarray:
    """Safe version of NumPy's `_frombuffer`, which makes the arrays in a pickle of protocol 5."""
    array = np.frombuffer(buffer, dtype)
    if order == "K" and axis_order is not None:
        return array.reshape(shape).transpose(axis_order)
    return array.reshape(shape, order=order)


def _encode(text: str, encoding: str) -> bytes:
    """Safe version of `_codecs.encode`: Python 3 pickles bytes with it in protocols 0 to 2."""
    if encoding != "latin1":
        raise ValueError(f"bytes in {encoding}")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Callable] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # since NumPy 2
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    """Unpickles dicts, lists, strings and arrays; refuses anything else before it can act."""

    def __init__(self, file: io.BytesIO, path: Path):
        super().__init__(file, encoding="bytes")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            unknown = shown(f"{module}.{name}", 80)
            found = f"{unknown} in it, unknown to this reader: it could run anything"
            raise _refusal(
                self.path, "a pickle of NumPy arrays only", found, f"do not use this file, {AGAIN}"
            )
        return ALLOWED[module, name]


def _python_file(path: Path, trust: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (10000, 3072) and labels (10000,) of one file of the python layout."""
    size = path.stat().st_size
    if size > LARGEST_PICKLE:
        raise _refusal(path, f"a file of at most {LARGEST_PICKLE} bytes", size)
    content = path.read_bytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if not trust and md5 != PYTHON_MD5[path.name]:
        command = f"`minires data cifar10 --from {quoted(path.parent)} --trust`"
        advice = f"{AGAIN}, or, if you know where it comes from, {command}"
        raise _refusal(path, f"MD5 {PYTHON_MD5[path.name]} of the official file", md5, advice)
    try:
        batch = _Unpickler(io.BytesIO(content), path).load()
        pixels, labels = _arrays(batch)
        found = f"{pixels.dtype} {pixels.shape} and {labels.dtype} {labels.shape}"
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = f"{type(error).__name__}: {shown(error, 100)}"
        raise _refusal(path, "a pickled CIFAR-10 batch", reason) from error
    right_pixels = pixels.dtype == np.uint8 and pixels.shape == (RECORDS, PIXELS)
    if not right_pixels or labels.shape != (RECORDS,) or labels.dtype.kind != "i":
        raise _refusal(
            path, f"pixels uint8 ({RECORDS}, {PIXELS}) and labels int64 ({RECORDS},)", found
        )
    return pixels, labels


def _arrays(batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of a batch; its keys are bytes, or text if Python 3 wrote it."""
    if not isinstance(batch, dict):
        raise TypeError(f"expected a dict, found {type(batch).__name__}")
    pixels, labels = (
        batch[key] if key in batch else batch[key.decode()] for key in (b"data", b"labels")
    )
    if not isinstance(pixels, np.ndarray):
        raise TypeError(f"expected pixels in an array, found {type(pixels).__name__}")
    if isinstance(labels, list) and not all(type(k) is int for k in labels):
        raise TypeError("expected labels that are integers")
    if not isinstance(labels, (list, np.ndarray)):
        raise TypeError(f"expected a list of labels, found {type(labels).__name__}")
    return pixels, np.array(labels)


def _binary_file(path: Path, trust: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (10000, 3072) and labels (10000,) of one file of the binary layout."""
    record = 1 + PIXELS
    size = path.stat().st_size
    expected = RECORDS * record
    if size != expected:
        side = f"it ends in record {size // record}" if size < expected else "it goes on after that"
        raise _refusal(
            path, f"{RECORDS} records of {record} bytes = {expected} bytes", f"{size}: {side}"
        )
    rows = np.fromfile(path, np.uint8).reshape(RECORDS, record)
    return rows[:, 1:], rows[:, 0]


def read(folder: Path, trust: bool = False) -> Dataset:
    """
    Read CIFAR-10 from a folder in the official binary or python layout.

    Parameters
    ----------
    folder : Path
        The layout folder itself.
    trust : bool
        Also read files of the python layout that are not the official bytes; even then, only NumPy
        arrays are unpickled.

    Returns
    -------
    Dataset
        50,000 training and 10,000 test images. It is named "CIFAR-10" only if the bytes are known
        to be official, by the hashes of the python layout or because `install` took them from
        official bytes; all others are named as copies.

    Raises
    ------
    InputError
        If a file is missing, too short or long, not official (python layout) or holds a label
        outside 0..9.
    """
    folder = expanded(folder)
    layout = _layout(folder)
    if layout is None:
        raise _refusal(
            folder, f"{', '.join(FILES[BINARY])}, or the same without .bin", "none of them"
        )
    load_file = _binary_file if layout == BINARY else _python_file
    N = len(STEMS) * RECORDS
    images = np.empty((N, 32, 32, 3), np.uint8)
    labels = np.empty(N, np.int64)
    for i, name in enumerate(FILES[layout]):
        path = folder / name
        part = slice(i * RECORDS, (i + 1) * RECORDS)
        if not path.is_file():
            raise _refusal(path, f"the files {', '.join(FILES[layout])}", "this one missing")
        try:
            pixels, labels[part] = load_file(path, trust)
        except OSError as error:
            raise _refusal(
                path, "a readable file", shown(error), "check the file and its permissions"
            ) from error
        bad = np.flatnonzero((labels[part] < 0) | (labels[part] >= len(CLASSES)))
        if len(bad):
            raise _refusal(path, f"a label in 0..9 in record {bad[0]}", labels[part][bad[0]])
        images[part] = pixels.reshape(RECORDS, 3, 32, 32).transpose(0, 2, 3, 1)
    cut = N - RECORDS
    train = ArraySplit(images[:cut], labels[:cut])
    test = ArraySplit(images[cut:], labels[cut:])
    found = Dataset(OFFICIAL, train, test, CLASSES, str(folder))
    seal = folder / SEAL
    if (layout == PYTHON and not trust) or (
        seal.is_file() and seal.read_bytes().strip() == found.sha256.encode()
    ):
        return found
    return replace(found, name=COPIES.get(found.sha256, UNKNOWN))


def write(dataset: Dataset, folder: Path) -> None:
    """Write a dataset of CIFAR-10's size in the binary layout, for `read`."""
    folder.mkdir(parents=True, exist_ok=True)
    (train_images, train_labels), (test_images, test_labels) = dataset.train[:], dataset.test[:]
    images = np.concatenate([train_images, test_images])
    labels = np.concatenate([train_labels, test_labels]).astype(np.uint8)
    for i, name in enumerate(FILES[BINARY]):
        part = slice(i * RECORDS, (i + 1) * RECORDS)
        pixels = images[part].transpose(0, 3, 1, 2).reshape(RECORDS, PIXELS)
        np.concatenate([labels[part, None], pixels], axis=1).tofile(folder / name)
    (folder / "batches.meta.txt").write_text("\n".join(dataset.classes) + "\n")
    if dataset.name == OFFICIAL:
        (folder / SEAL).write_text(dataset.sha256 + "\n")
