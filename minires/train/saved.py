"""Checks of a checkpoint before a run continues from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minires.layers.base import Array
from minires.runs.metric import is_number
from minires.text import shown


def odd_arrays(found: Mapping[str, Array], expected: Mapping[str, Array]) -> str:
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


def wrong_values(meta: Mapping[str, Any], iterations: int) -> list[str]:
    """Names of the values of a checkpoint that make no sense."""
    window = meta.get("window")
    sensible = {
        "iteration": meta["iteration"] <= iterations,
        "seconds": is_number(meta.get("seconds")) and 0 <= meta["seconds"] < np.inf,
        "warm": isinstance(meta.get("warm"), bool),
        "running_error": is_number(meta.get("running_error")),
        "window": isinstance(window, dict)
        and type(window.get("steps")) is int
        and all(map(is_number, window.values())),
    }
    return [name for name, is_sensible in sensible.items() if not is_sensible]
