"""Mistakes in local response norm, dropout and tanh: see `minires.school.mistakes`."""

from __future__ import annotations

from typing import Any

import numpy as np

MISTAKES: dict[str, dict[str, Any]] = {
    "dropout_mask": {
        "with 1 / (1 - rate) for the share that must be 0, and 0 for the others": lambda u, rate: (
            (u < rate) * u.dtype.type(1 / (1 - rate))
        ),
        "with 1 / rate where 1 / (1 - rate) belongs": lambda u, rate: (
            (u >= rate) * u.dtype.type(1 / rate if rate else np.inf)
        ),
        "with u > rate: at rate 0 an element whose u is 0 is dropped": lambda u, rate: (
            (u > rate) * u.dtype.type(1 / (1 - rate))
        ),
        "with u in place of the elements that stay": lambda u, rate: (u >= rate) * u,
    },
    "dropout_backward": {
        "with the inverse of the mask": lambda dy, cache: dy / np.where(cache[0], cache[0], 1),
        "with the mask itself, without dy": lambda dy, cache: cache[0].copy(),
    },
    "tanh_forward": {
        "with the logistic function, not tanh": lambda x: _cached(1 / (1 + np.exp(-x))),
        "with tan, not tanh": lambda x: _cached(np.tan(x)),
        "cut at -1 and 1, not squashed": lambda x: _cached(np.clip(x, -1, 1)),
    },
    "tanh_backward": {
        "with tanh taken a second time: the cache has y, not x": lambda dy, cache: (
            dy * (1 - np.tanh(cache[0]) ** 2)
        ),
        "with 1 - y, not 1 - y^2": lambda dy, cache: dy * (1 - cache[0]),
        "with 1 + y^2, not 1 - y^2": lambda dy, cache: dy * (1 + cache[0] ** 2),
        "with y (1 - y), the slope of the logistic function": lambda dy, cache: (
            dy * cache[0] * (1 - cache[0])
        ),
    },
}


def _cached(y: np.ndarray) -> tuple[np.ndarray, tuple]:
    return y, (y,)
