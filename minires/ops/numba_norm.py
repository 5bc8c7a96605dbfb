"""Batch normalisation, compiled: one pass over memory for the sums, one that writes the result.

Kernels see x, y, dy and dx flat: in memory the channels repeat. A *strip* is a stretch of whole pixels and whole pairs
of registers, so that the j-th place of every strip belongs to the same channel, whatever C is. A *block* of strips is
a chunk of work.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from minires.ops import checks
from minires.ops.jit import inner, kernel
from minires.ops.simd import contiguous, lanes, load_or, load_pair, pair, register, store

Array = np.ndarray
Cache = tuple

BLOCK = 1 << 14  # values, about: a block of x and one of y stay in a core's second cache while each register is visited


def _sizes(x: Array) -> tuple[int, int]:
    """Return the length of a strip, and the number of values in a block."""
    strip = math.lcm(x.shape[-1], 2 * lanes(x.dtype))
    return strip, strip * max(1, BLOCK // strip)


# ------------------------------------------------------------------------------------------------------------- kernels


@inner
def _spread(row: Array, strip: int) -> Array:
    """Repeat C values to the length of a strip."""
    column = np.empty(strip, row.dtype)
    for s in range(strip):
        column[s] = row[s % len(row)]
    return column


@inner
def _added_up(sums: Array, C: int) -> Array:
    """Of two sums per block and place in a strip, those per channel: (2, C), in float64 and in order."""
    total = np.zeros((2, C))
    for b in range(len(sums)):
        for i in range(2):
            for s in range(sums.shape[2]):
                total[i, s % C] += sums[b, i, s]
    return total


@inner
def _first_mean(x: Array, image: int, C: int) -> Array:
    """Mean of each channel over the first image, which has so many values."""
    mean = np.zeros(C, x.dtype)
    for i in range(0, image, C):
        for c in range(C):
            mean[c] += x[i + c]
    return mean * x.dtype.type(C / image)


@kernel
def _moments(x: Array, image: int, C: int, strip: int, block: int) -> Array:
    """Mean and variance of each channel: (2, C), in float64.

    var = mean of d^2 - (mean of d)^2 with d = x - centre cancels if the centre is far from the mean. The mean of the
    first image is near: its distance is at most sqrt(N var), so that no data lose more than a factor N, and real data
    next to nothing.
    """
    centre = _first_mean(x, image, C)
    column = _spread(centre, strip)
    sums = np.empty(((x.size + block - 1) // block, 2, strip), x.dtype)
    for b in prange(len(sums)):
        for j in range(0, strip, 2 * len(register(x))):
            c, total, squares = load_pair(column, j), pair(x), pair(x)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                d = load_or(x, i, c) - c
                total, squares = total + d, squares + d * d
            store(sums, 2 * b * strip + j, total)
            store(sums, (2 * b + 1) * strip + j, squares)
    moments = _added_up(sums, C) / (x.size // C)
    moments[1] = np.maximum(moments[1] - moments[0] * moments[0], 0)
    moments[0] += centre
    return moments


@kernel
def _normalise(x: Array, rows: Array, y: Array, strip: int, block: int) -> None:
    """Compute y = (x - mean) * scale + beta with (mean, scale, beta) = rows."""
    means, scales, betas = _spread(rows[0], strip), _spread(rows[1], strip), _spread(rows[2], strip)
    for b in prange((x.size + block - 1) // block):
        for j in range(0, strip, 2 * len(register(x))):
            mean, scale, beta = load_pair(means, j), load_pair(scales, j), load_pair(betas, j)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                store(y, i, (load_pair(x, i) - mean) * scale + beta)


@kernel
def _gradient_sums(dy: Array, x: Array, mean: Array, strip: int, block: int) -> Array:
    """Of each channel the sum of dy, and that of dy * d with d = x - mean: (2, C), in float64."""
    column = _spread(mean, strip)
    sums = np.empty(((x.size + block - 1) // block, 2, strip), x.dtype)
    for b in prange(len(sums)):
        for j in range(0, strip, 2 * len(register(x))):
            m, total, products = load_pair(column, j), pair(x), pair(x)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                g = load_pair(dy, i)
                total, products = total + g, products + g * (load_pair(x, i) - m)
            store(sums, 2 * b * strip + j, total)
            store(sums, (2 * b + 1) * strip + j, products)
    return _added_up(sums, len(mean))


@kernel
def _gradient_input(dy: Array, x: Array, rows: Array, dx: Array, strip: int, block: int) -> None:
    """Compute dx = dy * scale - share_dy - (x - mean) * share_d with (mean, scale, share_dy, share_d) = rows."""
    means, scales = _spread(rows[0], strip), _spread(rows[1], strip)
    shares_dy, shares_d = _spread(rows[2], strip), _spread(rows[3], strip)
    for b in prange((x.size + block - 1) // block):
        for j in range(0, strip, 2 * len(register(x))):
            mean, scale = load_pair(means, j), load_pair(scales, j)
            share_dy, share_d = load_pair(shares_dy, j), load_pair(shares_d, j)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                store(dx, i, load_pair(dy, i) * scale - share_dy - (load_pair(x, i) - mean) * share_d)


# ---------------------------------------------------------------------------------------------------------- public ops


def batchnorm_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array, Cache]:
    """Read x twice and write y once; the cache holds x and the statistics, and xhat is never stored."""
    checks.batchnorm(x, eps, gamma=gamma, beta=beta)
    x = contiguous(x)
    y = np.empty_like(x)
    mean, var = _moments(x.reshape(-1), x[0].size, x.shape[-1], *_sizes(x))
    inv_std = 1 / np.sqrt(var + eps)
    rows = np.array([mean, gamma * inv_std, beta], x.dtype)
    _normalise(x.reshape(-1), rows, y.reshape(-1), *_sizes(x))
    return y, rows[0].copy(), var.astype(x.dtype), (x, rows[0], gamma * inv_std, inv_std)


def batchnorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Read dy and x for the two sums, and again for dx."""
    x, mean, scale, inv_std = cache
    checks.same_shape("batchnorm_backward", "dy", dy, x.shape)
    dy, dx, M = contiguous(dy, x.dtype), np.empty_like(x), x.size // x.shape[-1]
    dbeta, sum_dy_d = _gradient_sums(dy.reshape(-1), x.reshape(-1), mean, *_sizes(x))
    dgamma = sum_dy_d * inv_std
    rows = np.array([mean, scale, scale * dbeta / M, scale * inv_std * dgamma / M], x.dtype)
    _gradient_input(dy.reshape(-1), x.reshape(-1), rows, dx.reshape(-1), *_sizes(x))
    return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def batchnorm_inference(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float) -> Array:
    """Read x and write y."""
    checks.batchnorm(x, eps, gamma=gamma, beta=beta, mean=mean, var=var)
    x = contiguous(x)
    y = np.empty_like(x)
    rows = np.array([mean, gamma / np.sqrt(var + eps), beta], x.dtype)
    _normalise(x.reshape(-1), rows, y.reshape(-1), *_sizes(x))
    return y
