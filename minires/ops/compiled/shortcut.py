"""The additions and the ReLU at the end of a block in one pass over memory.

A *run* is a stretch of neighbouring values: a whole row of an image where the shapes agree, else
the channels of one pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from minires.ops import checks_fused
from minires.ops.compiled.jit import inline, kernel
from minires.ops.compiled.scratch import contiguous
from minires.ops.compiled.simd import copy, lanes, load, maximum, store
from minires.ops.geometry import Array, Cache

NO_BOUND = float("nan")  # comparisons with NaN are false


@inline
def _rectified_sum(f: Array, i: int, x: Array, j: int, count: int, y: Array) -> None:
    """Compute y[i : i + count] = max(f[i : i + count] + x[j : j + count], 0); flat arrays."""
    whole = count - count % len(lanes(f))
    for a in range(0, whole, len(lanes(f))):
        store(y, i + a, maximum(load(f, i + a) + load(x, j + a), 0.0))
    for a in range(whole, count):
        z = f[i + a] + x[j + a]
        y[i + a] = z if z > 0 or z != z else 0


@inline
def _rectified(f: Array, i: int, count: int, y: Array) -> None:
    """Compute y[i : i + count] = max(f[i : i + count], 0); flat arrays."""
    for a in range(i, i + count):
        z = f[a]
        y[a] = z if z > 0 or z != z else 0


@kernel
def _add_relu(f: Array, x: Array, sizes: tuple, strides: tuple, y: Array) -> None:
    """Compute y = max(f + shortcut(x), 0), where `sizes` is (N, H, W, C, OH, OW, K)."""
    N, H, W, C, OH, OW, K = sizes
    down, right = strides
    for row in prange(N * OH):
        first = row * OW * K
        source = (row // OH * H + row % OH * down) * W * C
        if right == 1 and C == K:
            _rectified_sum(f, first, x, source, OW * K, y)
        else:
            for j in range(OW):
                pixel = first + j * K
                _rectified_sum(f, pixel, x, source + j * right * C, C, y)
                _rectified(f, pixel + C, K - C, y)


@inline
def _sum(a: Array, i: int, b: Array, j: int, count: int, y: Array) -> None:
    """Compute y[i : i + count] = a[i : i + count] + b[j : j + count]; flat arrays."""
    whole = count - count % len(lanes(a))
    for k in range(0, whole, len(lanes(a))):
        store(y, i + k, load(a, i + k) + load(b, j + k))
    for k in range(whole, count):
        y[i + k] = a[i + k] + b[j + k]


@kernel
def _add_back(dx: Array, dz: Array, sizes: tuple, strides: tuple, total: Array) -> None:
    """Compute total = dx + the gradient that the shortcut passes back to its pixels."""
    N, H, W, C, OH, OW, K = sizes
    down, right = strides
    for row in prange(N * H):
        first = row * W * C
        n = row // H
        i = row % H
        taken = i % down == 0 and i // down < OH
        source = (n * OH + i // down) * OW * K
        if taken and right == 1 and C == K:
            _sum(dx, first, dz, source, W * C, total)
        else:
            copy(dx, first, total, first, W * C)
            if taken:
                for j in range(OW):
                    pixel = first + j * right * C
                    _sum(dx, pixel, dz, source + j * K, C, total)


def add_relu_forward(f: Array, x: Array, stride: int = 1) -> tuple[Array, Cache]:
    """Read f and x once and write y; cache y, as y > 0 exactly where the sum is."""
    checks_fused.shortcut("add_relu", x, stride, f=f)
    f = contiguous(f)
    x = contiguous(x)
    y = np.empty_like(f)
    sizes = (*x.shape, *f.shape[1:])
    _add_relu(f.reshape(-1), x.reshape(-1), sizes, (int(stride),) * 2, y.reshape(-1))
    return y, (y,)


def add_shortcut_gradient(dx: Array, dz: Array, stride: int = 1) -> Array:
    """Read dx and dz once and write their sum."""
    checks_fused.shortcut("add_shortcut_gradient", dx, stride, dz=dz)
    dx = contiguous(dx)
    dz = contiguous(dz)
    total = np.empty_like(dx)
    sizes = (*dx.shape, *dz.shape[1:])
    _add_back(dx.reshape(-1), dz.reshape(-1), sizes, (int(stride),) * 2, total.reshape(-1))
    return total


@inline
def finish_pixels(y: Array, first: int, count: int, b: Array, shortcut: Array, bound: float
                  ) -> None:  # fmt: skip
    """Finish `count` pixels of y, from a position on: y = max(y + b + shortcut, bound).

    b is (K,); y and the shortcut are flat, and an empty shortcut is left out.
    """
    K = len(b)
    whole = K - K % len(lanes(y))
    for pixel in range(first, first + count * K, K):
        for k in range(0, whole, len(lanes(y))):
            z = load(y, pixel + k) + load(b, k)
            if len(shortcut):
                z = z + load(shortcut, pixel + k)
            store(y, pixel + k, maximum(z, bound))
        for k in range(whole, K):
            z1 = y[pixel + k] + b[k]
            if len(shortcut):
                z1 = z1 + shortcut[pixel + k]
            y[pixel + k] = bound if z1 < bound else z1


@kernel
def _finish(y: Array, b: Array, shortcut: Array, bound: float) -> None:
    """Finish all pixels of y in place."""
    for pixel in prange(len(y) // len(b)):
        finish_pixels(y, pixel * len(b), 1, b, shortcut, bound)


class Ending(NamedTuple):
    """The end of a convolution in a folded network: y = max(y + b + shortcut, bound).

    Attributes
    ----------
    b : ndarray of shape (K,)
    shortcut : ndarray
        Flat; empty if there is none.
    bound : float
        0, or NaN if nothing is rectified.
    """

    b: Array
    shortcut: Array
    bound: float

    def finish(self, y: Array) -> None:
        """Finish y in place."""
        _finish(y.reshape(-1), *self)


def ending(b: Array, shortcut: Array | None, rectify: bool) -> Ending:
    """Return an ending for arrays that fit."""
    added = np.empty(0, b.dtype) if shortcut is None else contiguous(shortcut).reshape(-1)
    return Ending(contiguous(b), added, 0.0 if rectify else NO_BOUND)
