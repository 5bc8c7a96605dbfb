"""Global average pooling: pixels are added in order, as NumPy does for two channels or more."""

from __future__ import annotations

import numpy as np
from numba import prange

from minires.ops import checks, numpy_ops
from minires.ops.compiled.fallback import numpy_if_complex
from minires.ops.compiled.jit import kernel
from minires.ops.compiled.scratch import contiguous
from minires.ops.geometry import Array, Cache

CHANNELS = 64  # of an image in a piece of work


@kernel
def _average(x: Array, y: Array) -> None:
    """Compute y[n] = sum over pixels of x[n], divided by their number; x is (N, pixels, C)."""
    N, pixels, C = x.shape
    parts = (C + CHANNELS - 1) // CHANNELS
    for piece in prange(N * parts):
        n = piece // parts
        first = piece % parts * CHANNELS
        last = min(C, first + CHANNELS)
        y[n, first:last] = x[n, 0, first:last]
        for i in range(1, pixels):
            for c in range(first, last):
                y[n, c] += x[n, i, c]
        for c in range(first, last):
            y[n, c] /= x.dtype.type(pixels)


@kernel
def _share(dy: Array, dx: Array) -> None:
    """Write dy[n] / pixels to every pixel of dx[n]; dx is (N, pixels, C)."""
    N, pixels, C = dx.shape
    parts = (C + CHANNELS - 1) // CHANNELS
    for piece in prange(N * parts):
        n = piece // parts
        first = piece % parts * CHANNELS
        last = min(C, first + CHANNELS)
        for c in range(first, last):
            dx[n, 0, c] = dy[n, c] / dy.dtype.type(pixels)
        for i in range(1, pixels):
            for c in range(first, last):
                dx[n, i, c] = dx[n, 0, c]


@numpy_if_complex(numpy_ops.global_avg_pool_forward)
def global_avg_pool_forward(x: Array) -> tuple[Array, Cache]:
    """Read x once."""
    checks.global_avg_pool(x)
    x = contiguous(x)
    N, H, W, C = x.shape
    y = np.empty((N, C), x.dtype)
    _average(x.reshape(N, H * W, C), y)
    return y, (x.shape,)


def global_avg_pool_backward(dy: Array, cache: Cache) -> Array:
    """Write dx once."""
    ((N, H, W, C),) = cache
    checks.gradient("global_avg_pool_backward", dy, (N, C))
    dy = contiguous(dy)
    dx = np.empty((N, H, W, C), dy.dtype)
    _share(dy, dx.reshape(N, H * W, C))
    return dx
