"""Convolution in NumPy, part by part: a few images and one group of channels at a time.

All windows of a batch together would not fit into a processor's cache; those of a part do, which is
faster. The page `numpy_ops` shows the mathematics of one part.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minires.ops import checks
from minires.ops.geometry import Array, Cache, Size, channel_groups

PART_BYTES = 1 << 21  # windows unrolled at a time

Part = tuple[slice, slice, slice]


def parts(x: Array, w: Array, dy: Array) -> Iterator[Part]:
    """Yield slices of the images, of the channels of one group, and of the filters that see these.

    x (N, H, W, C), w (KH, KW, C / groups, K), dy or y (N, OH, OW, K)
    """
    KH, KW, c, K = w.shape
    N, OH, OW, _ = dy.shape
    C = x.shape[3]
    images = max(1, PART_BYTES // (OH * OW * KH * KW * C * x.itemsize))
    for n in range(0, N, images):
        for channels, filters in channel_groups(C, K, C // c):
            yield slice(n, n + images), channels, filters


def forward_in_parts(convolve: Callable[..., tuple]) -> Callable[..., tuple]:
    """Check the arguments of a convolution, and let `convolve` compute it part by part.

    Adds the argument `groups`: the C channels and the K filters are split into that many groups,
    and a filter sees only the channels of its own group, so that w is (KH, KW, C / groups, K).
    """

    def conv2d_forward(
        x: Array, w: Array, stride: Size = 1, pad: Size = 0, groups: int = 1
    ) -> tuple[Array, Cache]:
        y = np.empty(checks.conv2d(x, w, stride, pad, groups), x.dtype)
        for n, c, k in parts(x, w, y):
            y[n, :, :, k], _ = convolve(x[n, :, :, c], w[..., k], stride, pad)
        return y, (x, w, stride, pad)

    return _named_like(convolve, conv2d_forward)


def backward_in_parts(differentiate: Callable[..., tuple]) -> Callable[..., tuple]:
    """Check dy, and let `differentiate` compute the gradients part by part: those of w add up."""

    def conv2d_backward(
        dy: Array, cache: Cache, input_gradient: bool = True
    ) -> tuple[Array | None, Array]:
        checks.conv2d_backward(dy, cache)
        x, w, stride, pad = cache
        dx = np.empty(x.shape, x.dtype) if input_gradient else None
        dw = np.zeros(w.shape, w.dtype)
        for n, c, k in parts(x, w, dy):
            part = (x[n, :, :, c], w[..., k], stride, pad)
            dx_part, dw_part = differentiate(dy[n, :, :, k], part, input_gradient)
            dw[..., k] += dw_part
            if dx is not None:
                dx[n, :, :, c] = dx_part
        return dx, dw

    return _named_like(differentiate, conv2d_backward)


def _named_like(function: Callable[..., Any], outer: Any) -> Callable[..., Any]:
    """Give `outer` the name and docstring of `function`, and leave it its own arguments."""
    outer.__signature__ = inspect.signature(outer)
    return functools.update_wrapper(outer, function)
