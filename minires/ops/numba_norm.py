"""Batch normalisation, compiled: one pass over memory for sums, one that writes the result, a ReLU at no cost.

In memory the channels repeat. A *strip* is a stretch of whole pixels and whole registers, so that the j-th place of
every strip belongs to the same channel, whatever C is. A *block* of strips is a chunk of work.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from minires.ops import checks
from minires.ops.jit import kernel
from minires.ops.simd import contiguous, keep, lanes, load, load_or, maximum, register, store, zeros

Array = np.ndarray
Cache = tuple

BLOCK = 1 << 14  # values, about: a block of x and one of y stay in a core's second cache while each register is visited
NO_FLOOR = -math.inf  # max(y, -inf) = y, and y > -inf: batch norm alone is batch norm + ReLU with this floor


def _strip(C: int, dtype: np.dtype) -> tuple[int, int]:
    """Return the length of a strip for C channels, and the number of values in a block."""
    strip = math.lcm(C, lanes(dtype))
    return strip, strip * max(1, BLOCK // strip)


def _columns(strip: int, dtype: np.dtype, *per_channel: Array) -> Array:
    """Repeat each row of C values to the length of a strip."""
    return np.stack([np.tile(np.asarray(a, dtype), strip // len(a)) for a in per_channel])


# ------------------------------------------------------------------------------------------------------------- kernels


@kernel
def _moments(x: Array, centre: Array, sums: Array, block: int) -> None:
    """Of each block b and place in a strip: (sum of d, sum of d * d) with d = x - centre."""
    strip = centre.size
    for b in prange(len(sums)):
        for j in range(0, strip, len(register(x))):
            c, total, squares = load(centre, j), zeros(x), zeros(x)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                d = load_or(x, i, c) - c
                total, squares = total + d, squares + d * d
            store(sums, 2 * b * strip + j, total)
            store(sums, (2 * b + 1) * strip + j, squares)


@kernel
def _normalise(x: Array, columns: Array, floor: float, y: Array, block: int) -> None:
    """Compute y = max((x - mean) * scale + beta, floor) with (mean, scale, beta) = columns."""
    strip = columns.shape[1]
    for b in prange((x.size + block - 1) // block):
        for j in range(0, strip, len(register(x))):
            mean, scale, beta = load(columns[0], j), load(columns[1], j), load(columns[2], j)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                store(y, i, maximum((load(x, i) - mean) * scale + beta, floor))


@kernel
def _gradient_sums(dy: Array, x: Array, columns: Array, floor: float, sums: Array, block: int) -> None:
    """Of each block b and place in a strip: (sum of g, sum of g * d), d = x - mean, g = dy where y > floor."""
    strip = columns.shape[1]
    for b in prange(len(sums)):
        for j in range(0, strip, len(register(x))):
            mean, scale, beta = load(columns[0], j), load(columns[1], j), load(columns[2], j)
            total, products = zeros(x), zeros(x)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                d = load(x, i) - mean
                g = keep(load(dy, i), d * scale + beta, floor)
                total, products = total + g, products + g * d
            store(sums, 2 * b * strip + j, total)
            store(sums, (2 * b + 1) * strip + j, products)


@kernel
def _gradient_input(dy: Array, x: Array, columns: Array, floor: float, dx: Array, block: int) -> None:
    """Compute dx = scale * g - share_g - d * share_d, d = x - mean, g = dy where y > floor, shares being of sums."""
    strip = columns.shape[1]
    for b in prange((x.size + block - 1) // block):
        for j in range(0, strip, len(register(x))):
            mean, scale, beta = load(columns[0], j), load(columns[1], j), load(columns[2], j)
            share_g, share_d = load(columns[3], j), load(columns[4], j)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                d = load(x, i) - mean
                g = keep(load(dy, i), d * scale + beta, floor)
                store(dx, i, g * scale - share_g - d * share_d)


# ---------------------------------------------------------------------------------------------------------- public ops


def _sums(shape: tuple[int, ...], dtype: np.dtype) -> tuple[Array, int]:
    """Return room for two sums per block and place in a strip, and the number of values in a block."""
    strip, block = _strip(shape[-1], dtype)
    return np.empty((-(-math.prod(shape) // block), 2, strip), dtype), block


def _per_channel(sums: Array, C: int) -> Array:
    """Add up blocks in order, and places of the same channel, in float64: two rows of C values."""
    return sums.sum(axis=0, dtype=np.float64).reshape(2, -1, C).sum(axis=1)


def _forward(x: Array, gamma: Array, beta: Array, eps: float, floor: float) -> tuple[Array, Array, Array, Cache]:
    checks.batchnorm(x, eps, gamma=gamma, beta=beta)
    x, C, M = contiguous(x), x.shape[-1], x.size // x.shape[-1]
    sums, block = _sums(x.shape, x.dtype)
    # var = mean of d^2 - (mean of d)^2 cancels if the centre is far from the mean. The mean of the first image is near:
    # its distance is at most sqrt(N var), so that no data lose more than a factor N, and real data next to nothing
    centre = x[0].reshape(-1, C).mean(axis=0)
    strip = sums.shape[2]
    _moments(x.reshape(-1), _columns(strip, x.dtype, centre)[0], sums, block)
    d, square = _per_channel(sums, C) / M
    mean, var = centre + d, np.maximum(square - d * d, 0)
    inv_std = 1 / np.sqrt(var + eps)
    y, columns = np.empty_like(x), _columns(strip, x.dtype, mean, gamma * inv_std, beta)
    _normalise(x.reshape(-1), columns, floor, y.reshape(-1), block)
    return y, mean.astype(x.dtype), var.astype(x.dtype), (x, columns, inv_std, floor)


def _backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    x, columns, inv_std, floor = cache
    checks.same_shape("batchnorm_backward", "dy", dy, x.shape)
    dy, C, M = contiguous(dy, x.dtype), x.shape[-1], x.size // x.shape[-1]
    sums, block = _sums(x.shape, x.dtype)
    _gradient_sums(dy.reshape(-1), x.reshape(-1), columns, floor, sums, block)
    dbeta, sum_gd = _per_channel(sums, C)
    scale, dgamma = columns[1, :C].astype(np.float64), sum_gd * inv_std
    dx = np.empty_like(x)
    shares = _columns(sums.shape[2], x.dtype, scale * dbeta / M, scale * inv_std * dgamma / M)
    columns = np.concatenate([columns, shares])
    _gradient_input(dy.reshape(-1), x.reshape(-1), columns, floor, dx.reshape(-1), block)
    return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def batchnorm_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array, Cache]:
    """Read x twice and write y once; the cache holds x and the statistics, and xhat is never stored."""
    return _forward(x, gamma, beta, eps, NO_FLOOR)


def batchnorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Read dy and x for the two sums, and again for dx."""
    return _backward(dy, cache)


def batchnorm_inference(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float) -> Array:
    """Read x and write y."""
    return _inference(x, gamma, beta, mean, var, eps, NO_FLOOR)


def batchnorm_relu_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array, Cache]:
    """Clip at 0 before y is written."""
    return _forward(x, gamma, beta, eps, 0.0)


def batchnorm_relu_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Find out again from x where y was positive."""
    return _backward(dy, cache)


def batchnorm_relu_inference(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float) -> Array:
    """Clip at 0 before y is written."""
    return _inference(x, gamma, beta, mean, var, eps, 0.0)


def _inference(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float, floor: float) -> Array:
    checks.batchnorm(x, eps, gamma=gamma, beta=beta, mean=mean, var=var)
    x = contiguous(x)
    strip, block = _strip(x.shape[-1], x.dtype)
    y = np.empty_like(x)
    columns = _columns(strip, x.dtype, mean, gamma / np.sqrt(var + eps), beta)
    _normalise(x.reshape(-1), columns, floor, y.reshape(-1), block)
    return y
