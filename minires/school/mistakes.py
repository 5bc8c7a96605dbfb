"""Mistakes that a diagnosis can name, in addition to the bugs of the zoo.

A mistake is a wrong way to write a function: `says` completes "your dx equals the true one, but
...". The tables are in the files `mistakes_*.py`. A relation is a wrong result made
from the right one, whatever the function is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minires.school import (
    mistakes_alexnet,
    mistakes_layers,
    mistakes_norm,
    mistakes_training,
    mistakes_windows,
)
from minires.school.draw import Case

Array = np.ndarray
Function = Callable[..., Any]

MISTAKES: dict[str, dict[str, Function]] = (
    mistakes_windows.MISTAKES
    | mistakes_norm.MISTAKES
    | mistakes_layers.MISTAKES
    | mistakes_training.MISTAKES
    | mistakes_alexnet.MISTAKES
)

# mistakes whose wrong results are mostly rounding error
UNSTABLE = {mistakes_norm.ONE_PASS}

# functions that make a wrong result from the right result and the case
RELATIONS: dict[str, Callable[[Array, Case], Any]] = {
    "all zeros: nothing was written into it": lambda right, case: 0 * right,
    "with the wrong sign": lambda right, case: -right,
    "twice as large": lambda right, case: 2 * right,
    "half as large": lambda right, case: right / 2,
    "without its sign": lambda right, case: abs(right),
    "with negative values set to 0": lambda right, case: np.maximum(right, 0),
    "with positive values set to 0": lambda right, case: np.minimum(right, 0),
    "rounded to whole numbers": lambda right, case: np.round(right),
    "cut to whole numbers": lambda right, case: np.trunc(right),
    "in reverse order": lambda right, case: np.flip(right),
    "in reverse order along the first axis": lambda right, case: right[::-1],
    "in reverse order along the last axis": lambda right, case: right[..., ::-1],
    "with the first two axes swapped": lambda right, case: right.swapaxes(0, 1),
    "with the last two axes swapped": lambda right, case: right.swapaxes(-1, -2),
    "with rows and columns of the image swapped": lambda right, case: right.swapaxes(1, 2),
    "with only its first row (or image) filled": lambda right, case: _only(right, 0),
    "with only its last row (or image) filled": lambda right, case: _only(right, -1),
    "with only its first channel filled": lambda right, case: _only(right, (..., 0)),
    "with its last row (or image) left out": lambda right, case: right - _only(right, -1),
    "squared": lambda right, case: right**2,
    "as its square root": lambda right, case: np.sqrt(right),
    "as its reciprocal": lambda right, case: 1 / right,
}


def _only(right: Array, index: Any) -> Array:
    a = np.zeros_like(right)
    a[index] = right[index]
    return a


def _counts(case: Case) -> dict[str, float]:
    """Numbers that a sum may wrongly be divided or multiplied by."""
    x = next(case[name] for name in ("x", "logits", "cols") if name in case)
    counts = {"N": len(x), "the number of channels": x.shape[-1]}
    if x.ndim > 2:
        counts |= {"H": x.shape[1], "the number of values in a channel": x.size // x.shape[-1]}
    if x.ndim == 4:
        counts |= {"W": x.shape[2], "the number of pixels": x.shape[1] * x.shape[2]}
    if "w" in case:
        counts["the number of filters"] = case["w"].shape[-1]
    if "dy" in case:
        dy = case["dy"]
        counts["the number of windows"] = dy.size // dy.shape[-1]
    if "size" in case:
        counts["the size of a window"] = case["size"] ** 2
    return counts


COUNTS = (
    "N", "H", "W", "the number of pixels", "the number of channels", "the number of filters",
    "the number of values in a channel", "the number of windows", "the size of a window",
)  # fmt: skip


def _times(name: str, power: int) -> Callable[[Array, Case], Any]:
    return lambda right, case: right * float(_counts(case)[name]) ** power


def _argument(name: str) -> Callable[[Array, Case], Any]:
    return lambda right, case: case[name]


for _name in COUNTS:
    RELATIONS[f"divided by {_name}"] = _times(_name, -1)
    RELATIONS[f"multiplied by {_name}: a division by it is missing, or a sum counts too much"] = (
        _times(_name, 1)
    )
for _name in ("x", "dy", "w", "b", "gamma", "beta", "mean", "var", "logits", "lr"):
    RELATIONS[f"as {_name} was given: nothing was done with it"] = _argument(_name)
