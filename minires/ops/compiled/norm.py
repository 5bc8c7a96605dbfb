"""Batch normalisation, compiled: one pass over memory for the sums, one that writes the result.

Kernels keep what is above a *floor*: with 0, the ReLU that follows a batch norm costs no pass of its own; with NaN,
which nothing is compared with, they keep everything.

Kernels see x, y, dy and dx flat: in memory the channels repeat. A *strip* is a stretch of whole pixels and whole pairs
of registers, so that the j-th place of every strip belongs to the same channel, whatever C is. A *block* of strips is
a chunk of work.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from minires.ops import checks
from minires.ops.compiled.jit import inner, kernel
from minires.ops.compiled.simd import (
    contiguous,
    keep,
    lanes,
    load_or,
    load_pair,
    maximum,
    pair,
    register,
    store,
)

Array = np.ndarray
Cache = tuple

NO_FLOOR = math.nan
BLOCK = (
    1 << 14
)  # values, about: a block of x and one of y stay in a core's second cache while each register is visited


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
    for c in range(C):
        mean[c] *= x.dtype.type(C / image)
    return mean


@inner
def _statistics(sums: Array, centre: Array, M: int) -> Array:
    """Mean and variance of each channel, (2, C) in float64, from the sums of d = x - centre and d^2 over M values."""
    moments = _added_up(sums, len(centre))
    for c in range(len(centre)):
        mean = moments[0, c] / M
        var = moments[1, c] / M - mean * mean
        moments[0, c], moments[1, c] = mean + centre[c], 0.0 if var < 0 else var  # NaN stays
    return moments


@inner
def _forward_rows(moments: Array, gamma: Array, beta: Array, eps: float) -> tuple:
    """Return mean, scale and beta as `_normalise` needs them; and scale and inv_std, (2, C) in float64."""
    rows, factors = np.empty((3, len(gamma)), gamma.dtype), np.empty((2, len(gamma)))
    for c in range(len(gamma)):
        factors[1, c] = 1 / math.sqrt(moments[1, c] + eps)
        factors[0, c] = gamma[c] * factors[1, c]
        rows[0, c], rows[1, c], rows[2, c] = moments[0, c], factors[0, c], beta[c]
    return rows, factors


@inner
def _backward_rows(sums: Array, mean: Array, factors: Array, M: int) -> tuple:
    """Return share_dy and share_d as dx needs them; and the gradients of gamma and beta, (2, C)."""
    totals, rows, gradients = (
        _added_up(sums, len(mean)),
        np.empty((2, len(mean)), mean.dtype),
        np.empty_like(factors),
    )
    for c in range(len(mean)):
        scale, inv_std = factors[0, c], factors[1, c]
        dbeta, dgamma = totals[0, c], totals[1, c] * inv_std
        gradients[0, c], gradients[1, c] = dgamma, dbeta
        rows[0, c], rows[1, c] = scale * dbeta / M, scale * inv_std * dgamma / M
    return rows, gradients


# What has to be done between loops over all values is done number by number: of an expression with arrays in a kernel
# Numba makes a loop over threads, and to wake them for 16 channels takes longer than the channels do.


@kernel
def _normalise(x: Array, rows: Array, floor: float, y: Array, strip: int, block: int) -> None:
    """Compute y = max((x - mean) * scale + beta, floor) with (mean, scale, beta) = rows."""
    means, scales, betas = _spread(rows[0], strip), _spread(rows[1], strip), _spread(rows[2], strip)
    for b in prange((x.size + block - 1) // block):
        for j in range(0, strip, 2 * len(register(x))):
            mean, scale, beta = load_pair(means, j), load_pair(scales, j), load_pair(betas, j)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                store(y, i, maximum((load_pair(x, i) - mean) * scale + beta, floor))


@kernel
def _batch(x: Array, gamma: Array, beta: Array, eps: float, floor: float, y: Array, image: int, strip: int,
           block: int) -> tuple:  # fmt: skip
    """Normalise by mean and variance of the batch: return both, and scale and inv_std; each (2, C) in float64.

    var = mean of d^2 - (mean of d)^2 with d = x - centre cancels if the centre is far from the mean. The mean of the
    first image is near: its distance is at most sqrt(N var), so that no data lose more than a factor N, and real data
    next to nothing.
    """
    centre = _first_mean(x, image, len(gamma))
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
    moments = _statistics(sums, centre, x.size // len(gamma))
    rows, factors = _forward_rows(moments, gamma, beta, eps)
    _normalise(x, rows, floor, y, strip, block)
    return moments, factors


@kernel
def _gradient(dy: Array, x: Array, rows: Array, factors: Array, floor: float, dx: Array, strip: int,
              block: int) -> Array:  # fmt: skip
    """Compute dx = g * scale - share_dy - d * share_d, d = x - mean; return the gradients of gamma and beta, (2, C).

    g is dy where y was above the floor, else 0; (mean, scale, beta) = rows tell where. Gradients and shares need two
    sums over the batch: that of g, and that of g * d.
    """
    means, scales, betas = _spread(rows[0], strip), _spread(rows[1], strip), _spread(rows[2], strip)
    sums = np.empty(((x.size + block - 1) // block, 2, strip), x.dtype)
    for b in prange(len(sums)):
        for j in range(0, strip, 2 * len(register(x))):
            mean, scale, beta = load_pair(means, j), load_pair(scales, j), load_pair(betas, j)
            total, products = pair(x), pair(x)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                d = load_pair(x, i) - mean
                g = keep(load_pair(dy, i), d * scale + beta, floor)
                total, products = total + g, products + g * d
            store(sums, 2 * b * strip + j, total)
            store(sums, (2 * b + 1) * strip + j, products)
    shares, gradients = _backward_rows(sums, rows[0], factors, x.size // rows.shape[1])
    shares_dy, shares_d = _spread(shares[0], strip), _spread(shares[1], strip)
    for b in prange(len(sums)):
        for j in range(0, strip, 2 * len(register(x))):
            mean, scale, beta = load_pair(means, j), load_pair(scales, j), load_pair(betas, j)
            share_dy, share_d = load_pair(shares_dy, j), load_pair(shares_d, j)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                d = load_pair(x, i) - mean
                store(
                    dx,
                    i,
                    keep(load_pair(dy, i), d * scale + beta, floor) * scale
                    - share_dy
                    - d * share_d,
                )
    return gradients


# ----------------------------------------------------------------------------- what numba_ops and numba_fused call


def forward(
    x: Array, gamma: Array, beta: Array, eps: float, floor: float
) -> tuple[Array, Array, Array, Cache]:
    """Normalise by the batch's statistics. The cache holds x and these: xhat and y are not stored for backward."""
    checks.batchnorm(x, eps, gamma=gamma, beta=beta)
    x, gamma, beta = contiguous(x), contiguous(gamma), contiguous(beta)
    y = np.empty_like(x)
    moments, factors = _batch(
        x.reshape(-1), gamma, beta, eps, floor, y.reshape(-1), x[0].size, *_sizes(x)
    )
    mean, var = moments.astype(x.dtype)
    return y, mean, var, (x, np.array([mean, factors[0], beta], x.dtype), factors, floor)


def backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Gradients of x, gamma and beta."""
    x, rows, factors, floor = cache
    checks.same_shape("batchnorm_backward", "dy", dy, x.shape)
    dy, dx = contiguous(dy, x.dtype), np.empty_like(x)
    gradients = _gradient(
        dy.reshape(-1), x.reshape(-1), rows, factors, floor, dx.reshape(-1), *_sizes(x)
    )
    dgamma, dbeta = gradients.astype(x.dtype)
    return dx, dgamma, dbeta


def inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float, floor: float
) -> Array:
    """Normalise by fixed statistics."""
    checks.batchnorm(x, eps, gamma=gamma, beta=beta, mean=mean, var=var)
    x = contiguous(x)
    y = np.empty_like(x)
    rows = np.array([mean, gamma / np.sqrt(var + eps), beta], x.dtype)
    _normalise(x.reshape(-1), rows, floor, y.reshape(-1), *_sizes(x))
    return y
