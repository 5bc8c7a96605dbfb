"""Checkpoints and weights: safetensors files with a checksum; the one before is kept."""

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
from minires.runs.files import move, write_whole

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
        # none yet, or damaged: then the previous one is what `load` takes
        with contextlib.suppress(InputError):
            read(path)
            move(path, folder / PREVIOUS)

    write_whole(path, _pack(arrays, json.dumps(meta)), before=keep)


def load(folder: Path) -> tuple[dict[str, Array], dict[str, Any]] | None:
    """Latest whole checkpoint of `folder`: the current one, else the previous one, else None.

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
            + f". Move {folder} away to start again; its metrics.jsonl is still readable"
        )
    return None


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint, whole or not."""
    return any((folder / name).exists() for name in (NAME, PREVIOUS))


def position(folder: Path) -> int | None:
    """Iteration of the latest checkpoint, None if there is none.

    Reads headers only: whether the arrays are whole is found out by `load`.

    Raises
    ------
    InputError
        If there are files, and none of them has a readable header.
    """
    for path in (folder / NAME, folder / PREVIOUS):
        with contextlib.suppress(SafetensorError, OSError, KeyError, TypeError, ValueError):
            return _iteration(path)
    return int(found[1]["iteration"]) if (found := load(folder)) else None


def _iteration(path: Path) -> int:
    with safe_open(path, framework="numpy") as f:
        return int(json.loads((f.metadata() or {})["meta"])["iteration"])


def read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and metadata of one checkpoint file; nothing in it is executed.

    Raises
    ------
    InputError
        If the file is damaged or no checkpoint.
    """
    arrays, header = _unpack(path, "a whole checkpoint")
    try:
        if "sha256" not in header:
            raise KeyError("sha256")
        meta = json.loads(header["meta"])
        if "iteration" not in meta:  # an export of weights
            raise KeyError("iteration")
    except (KeyError, TypeError, json.JSONDecodeError) as e:
        raise InputError(f"{path} is not a whole checkpoint ({type(e).__name__}: {e})") from e
    return arrays, meta


def _pack(arrays: Mapping[str, Array], meta: str) -> bytes:
    tensors = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    return to_safetensors(tensors, {"meta": meta, "sha256": _digest(tensors, meta)})


def _unpack(path: Path, kind: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and header of a file; its SHA-256 must be the one in the header, if there is one."""
    try:
        with safe_open(path, framework="numpy") as f:
            header = f.metadata() or {}
            arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as e:
        raise InputError(f"{path} is not {kind} ({type(e).__name__}: {e})") from e
    expected = header.get("sha256")
    whole = (None, _digest(arrays, header.get("meta", "")), _digest(arrays))  # the last: old files
    if expected not in whole:
        raise InputError(
            f"{path} is damaged: its content has another SHA-256 than {expected[:12]}..., "
            "the one recorded"
        )
    return arrays, header


def load_weights(folder: Path) -> dict[str, Array] | None:
    """State of a run's net, as `Layer.state` gave it: from the checkpoint, else from its export.

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
    """Write the state of a run's net alone to weights.safetensors; return its path.

    Raises
    ------
    InputError
        If the run has no checkpoint, nor weights that were written before.
    """
    state = load_weights(folder)
    if state is None:
        raise InputError(
            f"{folder} has no checkpoint to take weights from; "
            "give the folder of a run that was trained"
        )
    write_whole(folder / WEIGHTS, _pack(state, "{}"))
    return folder / WEIGHTS


def _digest(arrays: Mapping[str, Array], meta: str = "") -> str:
    digest = hashlib.sha256(meta.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(arrays[name].data if arrays[name].size else b"")
    return digest.hexdigest()
