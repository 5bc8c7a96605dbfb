"""Argument checks of the fused ops, shared by the backends; see `checks`."""

from __future__ import annotations

import numpy as np

from minires.errors import InputError
from minires.ops import checks


def shortcut(op: str, x: np.ndarray, stride: int, **of_body: np.ndarray) -> None:
    """`x` (N, H, W, C) and the one array of the body, (N, OH, OW, K), fit an option-A shortcut.

    OH = ceil(H / stride), OW = ceil(W / stride) and C <= K.
    """
    ((name, f),) = of_body.items()
    named = {"x": x, name: f}
    checks.arrays(op, checks.REAL, **named)
    checks.rank(op, "x", x, "N, H, W, C")
    checks.rank(op, name, f, "N, OH, OW, K")
    checks.integer(op, "stride", stride, 1)
    N, H, W, C = x.shape
    expected = (N, -(-H // stride), -(-W // stride))
    if f.shape[:3] != expected or f.shape[3] < C:
        raise InputError(
            f"{op}: with stride {stride}, x of shape {x.shape} needs {name} of shape "
            f"{expected} and at least {C} channels, got {f.shape}"
        )


def inference(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> None:
    """`x`, `w` and `b` of a convolution are real: complex numbers have no order to rectify by."""
    checks.arrays("conv2d_inference", x=x, w=w, b=b)


def finish(op: str, y_shape: tuple, b: np.ndarray, shortcut: np.ndarray | None) -> None:
    """`b` (K,) and `shortcut` (N, OH, OW, K) or None can be added to y (N, OH, OW, K).

    `inference` has checked that b has the dtype of y.
    """
    checks.same_shape(op, "b", b, y_shape[3:])
    if shortcut is not None:
        checks.arrays(op, y=b, shortcut=shortcut)
        checks.same_shape(op, "shortcut", shortcut, y_shape)
