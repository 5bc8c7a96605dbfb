"""Batch normalisation, compiled: one pass over memory for the sums, one that writes the result.

In memory the channels repeat. A *strip* is a stretch of whole pixels and whole registers, so that the j-th place of
every strip belongs to the same channel, whatever C is. A *block* of strips is a chunk of work.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from minires.ops import checks
from minires.ops.jit import kernel
from minires.ops.simd import contiguous, lanes, load, load_or, register, store, zeros

Array = np.ndarray
Cache = tuple

BLOCK = 1 << 14  # values, about: a block of x and one of y stay in a core's second cache while each register is visited


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
def _normalise(x: Array, columns: Array, y: Array, block: int) -> None:
    """Compute y = (x - mean) * scale + beta with (mean, scale, beta) = columns."""
    strip = columns.shape[1]
    for b in prange((x.size + block - 1) // block):
        for j in range(0, strip, len(register(x))):
            mean, scale, beta = load(columns[0], j), load(columns[1], j), load(columns[2], j)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                store(y, i, (load(x, i) - mean) * scale + beta)


@kernel
def _gradient_sums(dy: Array, x: Array, mean_column: Array, sums: Array, block: int) -> None:
    """Of each block b and place in a strip: (sum of dy, sum of dy * d) with d = x - mean."""
    strip = mean_column.size
    for b in prange(len(sums)):
        for j in range(0, strip, len(register(x))):
            mean, total, products = load(mean_column, j), zeros(x), zeros(x)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                g = load(dy, i)
                total, products = total + g, products + g * (load(x, i) - mean)
            store(sums, 2 * b * strip + j, total)
            store(sums, (2 * b + 1) * strip + j, products)


@kernel
def _gradient_input(dy: Array, x: Array, columns: Array, dx: Array, block: int) -> None:
    """Compute dx = dy * scale - share_dy - (x - mean) * share_d, the shares being those of the two sums."""
    strip = columns.shape[1]
    for b in prange((x.size + block - 1) // block):
        for j in range(0, strip, len(register(x))):
            mean, scale = load(columns[0], j), load(columns[1], j)
            share_dy, share_d = load(columns[2], j), load(columns[3], j)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                store(dx, i, load(dy, i) * scale - share_dy - (load(x, i) - mean) * share_d)


# ---------------------------------------------------------------------------------------------------------- public ops


def _sums(shape: tuple[int, ...], dtype: np.dtype) -> tuple[Array, int]:
    """Return room for two sums per block and place in a strip, and the number of values in a block."""
    strip, block = _strip(shape[-1], dtype)
    return np.empty((-(-math.prod(shape) // block), 2, strip), dtype), block


def _per_channel(sums: Array, C: int) -> Array:
    """Add up blocks in order, and places of the same channel, in float64: two rows of C values."""
    return sums.sum(axis=0, dtype=np.float64).reshape(2, -1, C).sum(axis=1)


def batchnorm_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array, Cache]:
    """Read x twice and write y once; the cache holds x and the statistics, and xhat is never stored."""
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
    _normalise(x.reshape(-1), columns, y.reshape(-1), block)
    return y, mean.astype(x.dtype), var.astype(x.dtype), (x, columns, inv_std)


def batchnorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Read dy and x for the two sums, and again for dx."""
    x, columns, inv_std = cache
    checks.same_shape("batchnorm_backward", "dy", dy, x.shape)
    dy, C, M = contiguous(dy, x.dtype), x.shape[-1], x.size // x.shape[-1]
    sums, block = _sums(x.shape, x.dtype)
    _gradient_sums(dy.reshape(-1), x.reshape(-1), columns[0], sums, block)
    dbeta, sum_dy_d = _per_channel(sums, C)
    scale, dgamma = columns[1, :C].astype(np.float64), sum_dy_d * inv_std
    dx = np.empty_like(x)
    shares = _columns(sums.shape[2], x.dtype, scale * dbeta / M, scale * inv_std * dgamma / M)
    _gradient_input(dy.reshape(-1), x.reshape(-1), np.concatenate([columns[:2], shares]), dx.reshape(-1), block)
    return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def batchnorm_inference(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float) -> Array:
    """Read x and write y."""
    checks.batchnorm(x, eps, gamma=gamma, beta=beta, mean=mean, var=var)
    x = contiguous(x)
    strip, block = _strip(x.shape[-1], x.dtype)
    y = np.empty_like(x)
    columns = _columns(strip, x.dtype, mean, gamma / np.sqrt(var + eps), beta)
    _normalise(x.reshape(-1), columns, y.reshape(-1), block)
    return y
