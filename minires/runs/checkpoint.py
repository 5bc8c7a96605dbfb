"""Checkpoints and weights: safetensors files with a checksum; the previous one is kept."""

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
from minires.runs.files import advice, cause, escaped, move, parse_json, write_whole
from minires.runs.lease import live
from minires.text import shown

Array = np.ndarray
NAME, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
WEIGHTS = "weights.safetensors"


class UnreadableError(InputError):
    """The system does not let us read a file now; the file itself may be whole."""


def save(folder: Path, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
    """Write the checkpoint of `folder`; the previous one is kept beside it, unless it is damaged.

    Parameters
    ----------
    folder : Path
    arrays : dict of str to ndarray
    meta : dict
        JSON values: iteration, running error, and everything else that the next step depends on.
    """
    path = folder / NAME

    def set_aside() -> None:
        # suppressed if there is none yet, or it is damaged: `load` then takes the previous one
        with contextlib.suppress(InputError):
            read(path)
            move(path, folder / PREVIOUS)

    write_whole(path, _pack(arrays, json.dumps(meta)), before=set_aside)


def load(folder: Path) -> tuple[dict[str, Array], dict[str, Any]] | None:
    """Latest whole checkpoint of `folder`: the current one, or the previous one, or None.

    Raises
    ------
    InputError
        If there are files, and none of them is whole; or if one cannot be read at the moment.
    """
    damage = []
    for path in (folder / NAME, folder / PREVIOUS):
        if path.exists():
            try:
                whole = read(path)
            except UnreadableError:
                raise  # it may be whole: the one before must not replace it
            except InputError as e:
                damage.append(str(e))
            else:
                if damage:
                    warnings.warn(
                        f"{damage[0]}; going on from the one before, {shown(path)}", stacklevel=2
                    )
                return whole
    if damage:
        raise InputError(
            "; ".join(damage)
            + f". Move {shown(folder)} away to start again; its metrics.jsonl is still readable"
        )
    return None


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint, whole or not."""
    return any((folder / name).exists() for name in (NAME, PREVIOUS))


def position(folder: Path) -> int | None:
    """Iteration of the latest checkpoint, None if there is none.

    Reads headers only; `load` checks the arrays.

    Raises
    ------
    InputError
        If there are files, and none of them has a readable header.
    """
    for path in (folder / NAME, folder / PREVIOUS):
        with (
            contextlib.suppress(SafetensorError, OSError, KeyError, TypeError, ValueError),
            safe_open(path, framework="numpy") as f,
        ):
            return _iteration(parse_json((f.metadata() or {})["meta"]))
    return _iteration(found[1]) if (found := load(folder)) else None


def _iteration(meta: Any) -> int:
    """Iteration of a checkpoint; a TypeError if it is not a number of iterations."""
    iteration = meta["iteration"]
    if type(iteration) is not int or not 0 <= iteration < 2**63:
        raise TypeError(f"the iteration is {shown(repr(iteration))}")
    return iteration


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
        meta = parse_json(header["meta"])
        _iteration(meta)  # an export of weights has none
    except (KeyError, TypeError, ValueError) as e:
        reason = f"{type(e).__name__}: {shown(e)}"
        raise InputError(f"{shown(path)} is not a whole checkpoint ({reason})") from e
    return arrays, escaped(meta)


def _pack(arrays: Mapping[str, Array], meta: str, about: Mapping[str, str] | None = None) -> bytes:
    tensors = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    header = {"meta": meta, "sha256": _digest(tensors, meta)}
    return to_safetensors(tensors, {**(about or {}), **header})


def _unpack(path: Path, kind: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and header of a file; its SHA-256 must be the one in the header, if there is one."""
    name = shown(path)
    if path.is_dir():
        raise InputError(f"{name} is not {kind} (it is a folder)")
    try:
        path.open("rb").close()  # the system's reason; safetensors has words of its own
    except OSError as e:
        raise UnreadableError(f"{name} cannot be read: {cause(e)}; {advice(e)}") from e
    try:
        with safe_open(path, framework="numpy") as f:
            header = f.metadata() or {}
            names = list(f.keys())
            _check_types({n: f.get_slice(n).get_dtype() for n in names})
            arrays = {n: f.get_tensor(n) for n in names}
    except (SafetensorError, OSError, TypeError, ValueError) as e:
        reason = f"{type(e).__name__}: {shown(e)}"
        raise InputError(f"{name} is not {kind} ({reason})") from e
    expected = header.get("sha256")
    whole = (None, _digest(arrays, header.get("meta", "")), _digest(arrays))  # the last: old files
    if expected not in whole:
        raise InputError(
            f"{name} is damaged: its content has another SHA-256 than {shown(expected, 12)}, "
            "the one recorded"
        )
    return arrays, header


def _check_types(types: Mapping[str, str]) -> None:
    """Refuse arrays of other types than weights have; a TypeError names the type."""
    for name, kind in types.items():
        if kind not in ("F32", "F64"):
            raise TypeError(f"{shown(name, 60)} holds {shown(kind)}, expected F32 or F64")


def load_weights(folder: Path) -> dict[str, Array] | None:
    """State of a run's net, as `Layer.state` returned it, from the checkpoint or the export.

    Returns
    -------
    state : dict of str to ndarray, or None
        None if the folder has neither.

    Raises
    ------
    InputError
        If a file is damaged.
    """
    found = load(live(folder))
    if found:
        return {
            name.removeprefix("net/"): a for name, a in found[0].items() if name.startswith("net/")
        }
    path = folder / WEIGHTS
    if not path.exists():
        return None
    state, header = _unpack(path, "a file of weights; restore it")
    if "sha256" not in header:
        warnings.warn(
            f"{shown(path)} has no SHA-256, so nothing shows whether these are the weights that "
            "were trained; minires export writes one",
            stacklevel=2,
        )
    return state


def export_weights(folder: Path, about: Mapping[str, str] | None = None) -> Path:
    """Write the state of a run's net, without the optimizer's, to weights.safetensors.

    Parameters
    ----------
    folder : Path
    about : dict of str to str, optional
        More metadata of the file.

    Returns
    -------
    path : Path

    Raises
    ------
    InputError
        If the run has neither a checkpoint nor exported weights.
    """
    state = load_weights(folder)
    if state is None:
        raise InputError(
            f"{shown(folder)} has no checkpoint to take weights from; "
            "give the folder of a run that was trained"
        )
    write_whole(folder / WEIGHTS, _pack(state, "{}", about))
    return folder / WEIGHTS


def _digest(arrays: Mapping[str, Array], meta: str = "") -> str:
    digest = hashlib.sha256(meta.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(arrays[name].data if arrays[name].size else b"")
    return digest.hexdigest()
