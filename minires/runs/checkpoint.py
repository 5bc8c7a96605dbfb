"""Nothing a run has done is lost: files that are whole or absent, at every instant, and one process to a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from minires.errors import InputError
from minires.runs.files import _move, write_whole

Array = np.ndarray
NAME, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
WEIGHTS = "weights.safetensors"


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
        with contextlib.suppress(
            InputError
        ):  # none yet, or damaged: then the previous one is what `load` takes
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
                    warnings.warn(
                        f"{damage[0]}; going on from the one before, {path}", stacklevel=2
                    )
                return whole
    if damage:
        raise InputError(
            "; ".join(damage)
            + f". Move {folder} away to train anew; its metrics.jsonl is still readable"
        )
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
    if expected not in (
        None,
        _digest(arrays, header.get("meta", "")),
        _digest(arrays),
    ):  # the last: before 2026-11-22
        raise InputError(
            f"{path} is damaged: SHA-256 of its content should be {expected[:12]}..., and is another one"
        )
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
        return {
            name.removeprefix("net/"): a for name, a in found[0].items() if name.startswith("net/")
        }
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
        raise InputError(
            f"{folder} has no checkpoint to take weights from; give the folder of a run that was trained"
        )
    write_whole(folder / WEIGHTS, _pack(state, "{}"))
    return folder / WEIGHTS


def _digest(arrays: Mapping[str, Array], meta: str = "") -> str:
    digest = hashlib.sha256(meta.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(arrays[name].data if arrays[name].size else b"")
    return digest.hexdigest()
