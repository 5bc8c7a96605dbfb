"""Max pooling: the innermost loop is over channels, which LLVM vectorises."""

from __future__ import annotations

import numpy as np
from numba import prange

from minires.ops import checks
from minires.ops.compiled.jit import kernel
from minires.ops.compiled.scratch import contiguous
from minires.ops.geometry import Array, Cache

CHANNELS = 16  # of an image in a piece of the gradient: one cache line of a pixel


@kernel
def _pool(x: Array, size: int, stride: int, pad: int, y: Array, winner: Array) -> None:
    """Write the maximum of each window and its index p*size + q in the window.

    The first of equal values inside the image wins, also in a window of -inf. NaN counts as larger
    than any number.
    """
    N, H, W, C = x.shape
    _, OH, OW, _ = y.shape
    for row in prange(N * OH):
        n = row // OH
        i = row % OH
        for j in range(OW):
            top = i * stride - pad
            left = j * stride - pad
            y[n, i, j] = -np.inf
            winner[n, i, j] = max(0, -top) * size + max(0, -left)
            for p in range(max(0, -top), min(size, H - top)):
                for q in range(max(0, -left), min(size, W - left)):
                    for c in range(C):
                        value = x[n, top + p, left + q, c]
                        best = y[n, i, j, c]
                        if value > best or (value != value and best == best):
                            y[n, i, j, c] = value
                            winner[n, i, j, c] = p * size + q


@kernel
def _scatter(dy: Array, winner: Array, size: int, stride: int, pad: int, dx: Array) -> None:
    """Add each gradient to the pixel that won its window."""
    N, OH, OW, C = dy.shape
    parts = (C + CHANNELS - 1) // CHANNELS
    for piece in prange(N * parts):
        n = piece // parts
        first = piece % parts * CHANNELS
        last = min(C, first + CHANNELS)
        dx[n, :, :, first:last] = 0
        for i in range(OH):
            for j in range(OW):
                for c in range(first, last):
                    p, q = divmod(winner[n, i, j, c], size)
                    dx[n, i * stride - pad + p, j * stride - pad + q, c] += dy[n, i, j, c]


def max_pool_forward(x: Array, size: int, stride: int, pad: int = 0) -> tuple[Array, Cache]:
    """Compare the pixels of each window in turn; the padding is never read."""
    shape = checks.max_pool(x, size, stride, pad)
    x = contiguous(x)
    y = np.empty(shape, x.dtype)
    winner = np.empty(shape, np.int32)
    geometry = int(size), int(stride), int(pad)
    _pool(x, *geometry, y, winner)
    return y, (winner, x.shape, x.dtype, *geometry)


def max_pool_backward(dy: Array, cache: Cache) -> Array:
    """Add up overlapping windows; no two pieces of work write to the same value."""
    winner, shape, dtype, size, stride, pad = cache
    checks.gradient("max_pool_backward", dy, winner.shape, dtype)
    dx = np.empty(shape, dtype)
    _scatter(contiguous(dy), winner, size, stride, pad, dx)
    return dx
