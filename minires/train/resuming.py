"""Whether a checkpoint belongs to a run: its network, its recipe, its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.layers.base import Array
from minires.runs.config import Config
from minires.runs.metric import is_number
from minires.runs.run_folder import RunFolder
from minires.text import shown


def check_checkpoint(
    folder: RunFolder,
    config: Config,
    expected: Mapping[str, Array],
    arrays: Mapping[str, Array],
    meta: Mapping[str, Any],
) -> None:
    """Refuse a checkpoint of another network or run, or with values that make no sense.

    Parameters
    ----------
    folder : RunFolder
    config : Config
        The recipe of the run.
    expected : dict of str to ndarray
        Arrays that a checkpoint of the run has.
    arrays, meta
        The checkpoint.

    Raises
    ------
    InputError
        If it is not of this run.
    """
    theirs = meta["config"].get("net") if isinstance(meta.get("config"), dict) else None
    if theirs != config.net:
        raise InputError(
            f"{folder}: its checkpoint is of {shown(theirs or 'weights alone')}, "
            f"not {config.net}; restore it"
        )
    odd = _odd_arrays(arrays, expected)
    if odd:
        raise InputError(
            f"{folder}: its checkpoint is not of {config.net} for these images ({odd}); restore it"
        )
    saved = meta["config"]
    here = config.to_json()
    differing = [f"{k} {shown(saved[k])}, not {v}" for k, v in here.items() if saved.get(k, v) != v]
    if differing:
        raise InputError(
            f"{folder}: its checkpoint is of another run ({'; '.join(differing)}); restore it"
        )
    wrong = _wrong_values(meta, config)
    if wrong:
        raise InputError(f"{folder}: its checkpoint is damaged ({', '.join(wrong)}); restore it")


def _odd_arrays(found: Mapping[str, Array], expected: Mapping[str, Array]) -> str:
    """The first array that is missing, unknown, or of another shape or type; "" if all are right.

    An error message shows it.
    """
    for name in [*expected, *found]:
        if name not in found:
            return f"{name} is missing"
        if name not in expected:
            return f"{shown(name, 60)} is unknown"
        kinds = [f"{a.dtype} {a.shape}" for a in (expected[name], found[name])]
        if kinds[0] != kinds[1]:
            return f"{name}: expected {kinds[0]}, got {kinds[1]}"
    return ""


def _wrong_values(meta: Mapping[str, Any], config: Config) -> list[str]:
    """Names of the values of a checkpoint that make no sense."""
    window = meta.get("window")
    sensible = {
        "iteration": meta["iteration"] <= config.iterations,
        "seconds": is_seconds(meta.get("seconds")),
        "waited": is_seconds(meta.get("waited", 0.0)),
        "warm": isinstance(meta.get("warm"), bool),
        "running_error": is_number(meta.get("running_error")),
        "plateau": isinstance(meta.get("plateau", {}), dict),
        "window": isinstance(window, dict)
        and type(window.get("steps")) is int
        and all(map(is_number, window.values())),
    }
    return [name for name, is_sensible in sensible.items() if not is_sensible]


def is_seconds(value: Any) -> bool:
    """Whether a JSON value is a finite time of at least 0."""
    return is_number(value) and 0 <= value < np.inf
