"""Read and write PyTorch's files of weights without PyTorch.

`torch.save` writes a zip file: `data.pkl` describes the object, and `data/KEY` holds the numbers of
each storage. Files written before PyTorch 1.6 hold five pickles in a row, then the numbers.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minires.exchange import pickles
from minires.exchange.pickles import RefusedError, Storage, Tensor
from minires.text import shown

Array = np.ndarray
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of files before PyTorch 1.6
EXTRA = "extra/minires.json"  # our metadata; PyTorch ignores it
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema")


def read(path: Path) -> tuple[dict[str, Array], dict[str, Any], str]:
    """Read the tensors of a file that `torch.save` wrote.

    Returns
    -------
    state : dict of str to ndarray
        Read-only, in PyTorch's layout.
    metadata : dict
        That of minires, {} in files of others.
    kind : {"torch zip", "torch legacy"}

    Raises
    ------
    RefusedError, EOFError, ValueError, OSError
        If the file asks for anything but tensors, is cut short, or is damaged.
    """
    if zipfile.is_zipfile(path):
        return *_read_zip(path), "torch zip"
    with path.open("rb") as f:
        if f.read(2) == b"PK":
            raise EOFError("the zip file is cut short: its table of contents is missing")
        f.seek(0)
        return _read_legacy(f, path), {}, "torch legacy"


# ----------------------------------------------------------------------------------------- zip


def _read_zip(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        # PyTorch never compresses, and no two members overlap: the numbers fit into the file
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise RefusedError("compressed parts, which torch.save does not write")
        if sum(info.file_size for info in archive.infolist()) > path.stat().st_size:
            raise RefusedError("parts that are larger than the file")
        programs = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise RefusedError(f"{len(programs)} parts data.pkl instead of one")
        folder = programs[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
            raise RefusedError("numbers of a big-endian machine")
        loaded, _ = pickles.load(io.BytesIO(archive.read(programs[0])))

        def content(storage: Storage) -> bytes:
            name = f"{folder}data/{storage.key}"  # a key of the archive, never a path on the disk
            if name not in members:
                raise RefusedError(f"no part {shown(name, 60)}, which a tensor needs")
            return archive.read(name)

        extra = f"{folder}{EXTRA}"
        metadata = json.loads(archive.read(extra)) if extra in members else {}
        state = _filled(tensors(loaded, path), content)
        return state, metadata if isinstance(metadata, dict) else {}


# -------------------------------------------------------------------------------------- legacy


def _read_legacy(f: BinaryIO, path: Path) -> dict[str, Array]:
    magic, protocol, system = (pickles.load(f)[0] for _ in range(3))
    if magic != MAGIC or protocol != PROTOCOL or not isinstance(system, dict):
        raise RefusedError("no number that marks a file of PyTorch")
    if system.get("little_endian") is False:
        raise RefusedError("numbers of a big-endian machine")
    loaded, storages = pickles.load(f)
    keys, _ = pickles.load(f)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise RefusedError("another list of storages than its tensors have")
    found = tensors(loaded, path)
    needed = {tensor.storage.key for tensor in found.values()}
    size = path.stat().st_size
    end = f.tell() + sum(8 + _bytes(storages[key]) for key in keys)
    if size < end:
        raise EOFError(f"the file is cut short: it has {size:,} of {end:,} bytes")
    contents: dict[str, bytes] = {}
    for key in keys:
        count = int.from_bytes(f.read(8), "little")
        length = _bytes(storages[key])
        if count != storages[key].numel:
            raise RefusedError(f"{count} numbers in a storage of {storages[key].numel}")
        if key in needed:
            contents[key] = f.read(length)
        else:
            f.seek(length, io.SEEK_CUR)  # such as those of an optimizer
    return _filled(found, lambda storage: contents[storage.key])


# ------------------------------------------------------------------------------------- tensors


def tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The dict of tensors in what a pickle built; it may be wrapped, as in {"state_dict": ...}.

    If a checkpoint holds several, such as the weights and their moving average, the first key of
    `WRAPPERS` is taken, and a warning names the others.

    Raises
    ------
    RefusedError
        If there is none, or there are several under unknown keys.
    """
    inside = loaded if isinstance(loaded, dict) else {}
    wrapped = {k: found for k, v in inside.items() if (found := _tensors_of(v))}
    known = [key for key in WRAPPERS if key in wrapped]
    if not known and (found := _tensors_of(loaded)):
        return found
    if not known and len(wrapped) > 1:
        keys = ", ".join(shown(key, 40) for key in wrapped)
        raise RefusedError(f"several dicts of tensors: {keys}; save one of them alone")
    if not wrapped:
        keys = ", ".join(shown(key, 40) for key in list(inside)[:5]) or type(loaded).__name__
        raise RefusedError(f"no dict of tensors, but {keys}")
    chosen = known[0] if known else next(iter(wrapped))
    others = [shown(key, 40) for key in wrapped if key != chosen]
    if others:
        warnings.warn(
            f"{shown(path)} holds several sets of weights: {chosen} is used, and "
            f"{', '.join(others)} is not; to use another one, save it alone in PyTorch: "
            "torch.save(checkpoint[KEY], FILE)",
            stacklevel=2,
        )
    return wrapped[chosen]


def _tensors_of(value: Any) -> dict[str, Tensor]:
    """The tensors in a dict, by name; {} if there is none, or it is not a dict."""
    if not isinstance(value, dict):
        return {}
    return {str(k): v for k, v in value.items() if isinstance(v, Tensor)}


def _bytes(storage: Storage) -> int:
    return storage.numel * (2 if storage.dtype == "bfloat16" else np.dtype(storage.dtype).itemsize)


def _filled(found: Mapping[str, Tensor], content: Any) -> dict[str, Array]:
    """Arrays for tensors; each is a view of its storage, so a storage is read once."""
    arrays: dict[Storage, Array] = {}
    state = {}
    for name, tensor in found.items():
        storage = tensor.storage
        if storage not in arrays:
            data = content(storage)
            if len(data) != _bytes(storage):
                raise RefusedError(
                    f"{len(data)} bytes for {storage.numel} numbers of {shown(name)}"
                )
            arrays[storage] = numbers(data, storage.dtype)
        flat = arrays[storage]
        strides = [step * flat.itemsize for step in tensor.strides]
        state[name] = np.lib.stride_tricks.as_strided(
            flat[tensor.offset :], tensor.shape, strides, writeable=False
        )
    return state


def numbers(data: bytes, dtype: str) -> Array:
    """Numbers of a type of `pickles.STORAGES`; bfloat16 becomes float32, which holds it exactly."""
    if dtype != "bfloat16":
        return np.frombuffer(data, dtype)
    upper = np.frombuffer(data, "<u2").astype(np.uint32) << 16
    return upper.view(np.float32)


# ------------------------------------------------------------------------------------- writing


def to_bytes(state: Mapping[str, Array], metadata: Mapping[str, Any]) -> bytes:
    """A file that `torch.load(..., weights_only=True)` reads as an ordered dict of tensors.

    Parameters
    ----------
    state : dict of str to ndarray
        In PyTorch's layout; float32, float64 or int64.
    metadata : dict
        JSON values, in a part of the zip file that PyTorch ignores.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        parts: dict[str, bytes] = {"data.pkl": _program(state), "byteorder": b"little"}
        parts |= {f"data/{i}": _raw(a) for i, a in enumerate(state.values())}
        parts |= {"version": b"3\n", EXTRA: json.dumps(metadata).encode()}
        for name, data in parts.items():
            # a fixed date: the same weights give the same bytes
            archive.writestr(zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


def _raw(a: Array) -> bytes:
    return np.ascontiguousarray(a, a.dtype.newbyteorder("<")).tobytes()


def _program(state: Mapping[str, Array]) -> bytes:
    """The pickle that builds the state: an ordered dict, filled with tensors."""
    items = b"".join(_text(name) + _call_tensor(i, a) for i, (name, a) in enumerate(state.items()))
    return b"\x80\x02" + EMPTY_ORDERED_DICT + b"(" + items + b"u."


EMPTY_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _call_tensor(i: int, a: Array) -> bytes:
    """Instructions that call `_rebuild_tensor_v2` with storage, offset, shape and strides."""
    kind = {dtype: name for name, dtype in pickles.STORAGES.items()}[a.dtype.newbyteorder("<").str]
    storage = b"(" + _text("storage") + f"ctorch\n{kind}\n".encode() + _text(str(i)) + _text("cpu")
    storage += _number(a.size) + b"tQ"
    strides = [s // a.itemsize for s in np.empty(a.shape, a.dtype).strides]
    window = _number(0) + _numbers_tuple(a.shape) + _numbers_tuple(strides)
    end = b"\x89" + EMPTY_ORDERED_DICT + b"tR"  # no gradient, no hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + window + end


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


def _numbers_tuple(values: Any) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"
