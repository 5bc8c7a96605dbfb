"""Nothing a run has done is lost: files that are whole or absent, at every instant, and one process to a folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from minires.errors import InputError

Array = np.ndarray
NAME, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
WEIGHTS = "weights.safetensors"


def _move(source: Path, target: Path) -> None:
    """Rename onto `target`. On Windows a virus scanner or an open viewer may hold a file for a moment: try again."""
    for pause in (0.02, 0.1, 0.5, 2.0) if sys.platform == "win32" else ():
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(pause)
    return os.replace(source, target)


def write_whole(path: Path, data: bytes, before: Callable[[], None] = lambda: None) -> None:
    """Write a file so that a crash leaves either the old content or the new, never a part.

    Parameters
    ----------
    path : Path
    data : bytes
    before : callable
        Called when the new content is safe on the disk and the old one is still there.

    Raises
    ------
    InputError
        If it cannot be written (disk full, no permission); what was there before is untouched.
    """
    part = path.with_name(f".{path.name}.part")
    with _writing(path):
        try:
            with open(part, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            before()
            _move(part, path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        _sync_folder(path.parent)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise InputError(
            f"cannot write {path}: {e.strerror or e}. Everything recorded before is whole; "
            "make room, or choose a folder that can be written, then give the command again"
        ) from e


def make_folder(folder: Path) -> None:
    """Create a folder and its parents.

    Raises
    ------
    InputError
        If that is not possible.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one JSON line; a crash can only cut the last one, which `read_lines` passes over."""
    with _writing(path), open(path, "a", encoding="utf-8", newline="\n") as f:
        f.write(json.dumps(values) + "\n")


def sync(path: Path) -> None:
    """Wait until what was appended to a file is on the disk."""
    with _writing(path), open(path, "a", encoding="utf-8") as f:
        os.fsync(f.fileno())


MEASURED = {
    "train": ("error", "lr", "seconds"),
    "eval": ("train_error", "test_error", "seconds"),
    "layers": ("gradient_norm", "weight_norm", "response_std"),
}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a metrics.jsonl, none if there is no file; what is damaged or no such line is passed over.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}; it should be the file of a run's metrics") from e
    lines = []
    for line in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError, TypeError, KeyError):
            found = json.loads(line)
            kind = dict if found["kind"] == "layers" else (int, float)
            whole = all(isinstance(found[key], kind) for key in MEASURED[found["kind"]])
            if whole and isinstance(found["iteration"], int):
                lines.append(found)
    return lines


def _sync_folder(folder: Path) -> None:
    if sys.platform != "win32":  # Windows has no handle for a folder, and replaces files through its journal
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def save(folder: Path, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
    """Write the checkpoint of `folder`; the one before is kept beside it, unless it is damaged.

    Parameters
    ----------
    folder : Path
    arrays : dict of str to ndarray
    meta : dict
        JSON values: position, running error and whatever else the next step depends on.
    """
    path = folder / NAME

    def keep() -> None:
        with contextlib.suppress(InputError):  # none yet, or damaged: then the previous one is what `load` takes
            read(path)
            _move(path, folder / PREVIOUS)

    write_whole(path, _pack(arrays, json.dumps(meta)), before=keep)


def load(folder: Path) -> tuple[dict[str, Array], dict[str, Any]] | None:
    """Latest whole checkpoint of `folder`: the current one, else the previous one; None if the folder has none.

    Raises
    ------
    InputError
        If there are files, and none of them is whole.
    """
    damage = []
    for path in (folder / NAME, folder / PREVIOUS):
        if path.exists():
            try:
                whole = read(path)
            except InputError as e:
                damage.append(str(e))
            else:
                if damage:
                    warnings.warn(f"{damage[0]}; going on from the one before, {path}", stacklevel=2)
                return whole
    if damage:
        raise InputError("; ".join(damage) + f". Move {folder} away to train anew; its metrics.jsonl is still readable")
    return None


def read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and metadata of one checkpoint file; nothing in it is executed.

    Raises
    ------
    InputError
        If the file is damaged or no checkpoint.
    """
    arrays, header = _unpack(path, "a whole checkpoint")
    try:
        _, meta = header["sha256"], json.loads(header["meta"])
        _ = meta["iteration"]  # an export has none
    except (KeyError, TypeError, json.JSONDecodeError) as e:
        raise InputError(f"{path} is not a whole checkpoint ({type(e).__name__}: {e})") from e
    return arrays, meta


def _pack(arrays: Mapping[str, Array], meta: str) -> bytes:
    tensors = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    return to_safetensors(tensors, {"meta": meta, "sha256": _digest(tensors, meta)})


def _unpack(path: Path, kind: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and header of a file, which must have the SHA-256 that the header names, if it names one."""
    try:
        with safe_open(path, framework="numpy") as f:
            header = f.metadata() or {}
            arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as e:
        raise InputError(f"{path} is not {kind} ({type(e).__name__}: {e})") from e
    expected = header.get("sha256")
    if expected not in (None, _digest(arrays, header.get("meta", "")), _digest(arrays)):  # the last: before 2026-11-22
        raise InputError(f"{path} is damaged: SHA-256 of its content should be {expected[:12]}..., and is another one")
    return arrays, header


def load_weights(folder: Path) -> dict[str, Array] | None:
    """State of a run's net, as `Layer.state` gave it: out of the checkpoint if there is one, else weights.safetensors.

    Returns
    -------
    state : dict of str to ndarray, or None
        None if the folder has neither.

    Raises
    ------
    InputError
        If a file is damaged.
    """
    found = load(folder)
    if found:
        return {name.removeprefix("net/"): a for name, a in found[0].items() if name.startswith("net/")}
    path = folder / WEIGHTS
    return _unpack(path, "a file of weights; restore it")[0] if path.exists() else None


def export_weights(folder: Path) -> Path:
    """Write the state of a run's net alone, half of its checkpoint, to weights.safetensors; return its path.

    Raises
    ------
    InputError
        If the run has no checkpoint, nor weights that were written before.
    """
    state = load_weights(folder)
    if state is None:
        raise InputError(f"{folder} has no checkpoint to take weights from; give the folder of a run that was trained")
    write_whole(folder / WEIGHTS, _pack(state, "{}"))
    return folder / WEIGHTS


def _digest(arrays: Mapping[str, Array], meta: str = "") -> str:
    digest = hashlib.sha256(meta.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(arrays[name].data if arrays[name].size else b"")
    return digest.hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the system lets go when the process ends, however it ends.

    Raises
    ------
    InputError
        If another process holds it.
    """
    path = folder / ".lock"
    with _writing(path):
        f = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
    with f:
        try:
            _lock(f.fileno())
        except OSError as e:
            if e.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise InputError(f"{folder} cannot be locked ({e.strerror}); choose an --out on a local disk") from e
            f.seek(0)
            raise InputError(
                f"{folder} is in use by process {f.read().strip() or 'unknown'}; let it finish, or choose another --out"
            ) from e
        f.truncate(0)
        f.write(str(os.getpid()))
        f.flush()
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        os.lseek(handle, 1 << 20, os.SEEK_SET)  # beyond the process number, which others may read
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
