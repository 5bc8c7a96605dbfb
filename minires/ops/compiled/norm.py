"""Batch normalisation: one pass over memory for the sums, one that writes the result.

`floor` fuses a ReLU: 0 clamps the output at zero, NaN disables the clamp.

Kernels see x, y, dy and dx flat: in memory the channels repeat. A *strip* is a stretch of whole
pixels and whole pairs of registers, so that position j of every strip belongs to the same channel,
whatever C is. A *block* of strips is a chunk of work.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from minires.ops import checks
from minires.ops.compiled.jit import inline, kernel
from minires.ops.compiled.scratch import contiguous
from minires.ops.compiled.simd import (
    lane_count,
    lanes,
    load_or,
    load_pair,
    maximum,
    select,
    store,
    zero_pair,
)

Array = np.ndarray
Cache = tuple

NO_FLOOR = math.nan
BLOCK = 1 << 14  # values, about: a block of x and one of y fit into a core's second-level cache


def _sizes(x: Array) -> tuple[int, int]:
    """Return the length of a strip, and the number of values in a block."""
    strip = math.lcm(x.shape[-1], 2 * lane_count(x.dtype))
    return strip, strip * max(1, BLOCK // strip)


# ----------------------------------------------------------------------------------------- kernels


@inline
def _spread(row: Array, strip: int) -> Array:
    """Repeat C values to the length of a strip."""
    column = np.empty(strip, row.dtype)
    for s in range(strip):
        column[s] = row[s % len(row)]
    return column


@inline
def _channel_sums(sums: Array, C: int) -> Array:
    """Add two sums per block and strip position up to two per channel, (2, C).

    In float64 and in a fixed order.
    """
    total = np.zeros((2, C))
    for b in range(len(sums)):
        for i in range(2):
            for s in range(sums.shape[2]):
                total[i, s % C] += sums[b, i, s]
    return total


@inline
def _first_mean(x: Array, image: int, C: int) -> Array:
    """Per-channel mean of the first image (`image` values)."""
    mean = np.zeros(C, x.dtype)
    for i in range(0, image, C):
        for c in range(C):
            mean[c] += x[i + c]
    for c in range(C):
        mean[c] *= x.dtype.type(C / image)
    return mean


@inline
def _statistics(sums: Array, centre: Array, M: int) -> Array:
    """Mean and variance of each channel, (2, C) in float64.

    From the sums of d = x - centre and of d^2 over M values.
    """
    moments = _channel_sums(sums, len(centre))
    for c in range(len(centre)):
        mean = moments[0, c] / M
        var = moments[1, c] / M - mean * mean
        moments[0, c] = mean + centre[c]
        moments[1, c] = 0.0 if var < 0 else var  # NaN stays
    return moments


@inline
def _forward_rows(moments: Array, gamma: Array, beta: Array, eps: float) -> tuple:
    """Return (mean, scale, beta) for `_normalise`, and (scale, inv_std) in float64."""
    rows = np.empty((3, len(gamma)), gamma.dtype)
    factors = np.empty((2, len(gamma)))
    for c in range(len(gamma)):
        factors[1, c] = 1 / math.sqrt(moments[1, c] + eps)
        factors[0, c] = gamma[c] * factors[1, c]
        rows[0, c] = moments[0, c]
        rows[1, c] = factors[0, c]
        rows[2, c] = beta[c]
    return rows, factors


@inline
def _backward_rows(sums: Array, mean: Array, factors: Array, M: int) -> tuple:
    """Return the shares of dy and d that dx subtracts, and the gradients of gamma and beta."""
    totals = _channel_sums(sums, len(mean))
    rows = np.empty((2, len(mean)), mean.dtype)
    gradients = np.empty_like(factors)
    for c in range(len(mean)):
        scale = factors[0, c]
        inv_std = factors[1, c]
        dbeta = totals[0, c]
        dgamma = totals[1, c] * inv_std
        gradients[0, c] = dgamma
        gradients[1, c] = dbeta
        rows[0, c] = scale * dbeta / M
        rows[1, c] = scale * inv_std * dgamma / M
    return rows, gradients


# Loops over channels are written out: Numba would turn array expressions into parallel loops, and
# waking threads for 16 channels takes longer than the work.


@kernel
def _normalise(x: Array, rows: Array, floor: float, y: Array, strip: int, block: int) -> None:
    """Compute y = max((x - mean) * scale + beta, floor) with (mean, scale, beta) = rows."""
    means = _spread(rows[0], strip)
    scales = _spread(rows[1], strip)
    betas = _spread(rows[2], strip)
    for b in prange((x.size + block - 1) // block):
        for j in range(0, strip, 2 * len(lanes(x))):
            mean = load_pair(means, j)
            scale = load_pair(scales, j)
            beta = load_pair(betas, j)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                store(y, i, maximum((load_pair(x, i) - mean) * scale + beta, floor))


@kernel
def _batch(
    x: Array, gamma: Array, beta: Array, eps: float, floor: float, y: Array, sizes: tuple
) -> tuple:
    """Normalise by mean and variance of the batch: return both, and scale and inv_std.

    Each is (2, C) in float64; (image, strip, block) = `sizes` count values.

    var = mean of d^2 - (mean of d)^2 with d = x - centre cancels if the centre is far from the
    mean. The mean of the first image is near: its distance is at most sqrt(N var), so no data lose
    more than a factor N, and real data hardly anything.
    """
    image, strip, block = sizes
    centre = _first_mean(x, image, len(gamma))
    column = _spread(centre, strip)
    sums = np.empty(((x.size + block - 1) // block, 2, strip), x.dtype)
    for b in prange(len(sums)):
        for j in range(0, strip, 2 * len(lanes(x))):
            c = load_pair(column, j)
            total = zero_pair(x)
            squares = zero_pair(x)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                d = load_or(x, i, c) - c
                total = total + d
                squares = squares + d * d
            store(sums, 2 * b * strip + j, total)
            store(sums, (2 * b + 1) * strip + j, squares)
    moments = _statistics(sums, centre, x.size // len(gamma))
    rows, factors = _forward_rows(moments, gamma, beta, eps)
    _normalise(x, rows, floor, y, strip, block)
    return moments, factors


@kernel
def _gradient(dy: Array, x: Array, rows: Array, factors: Array, floor: float, dx: Array, strip: int,
              block: int) -> Array:  # fmt: skip
    """Compute dx = g * scale - share_dy - d * share_d, d = x - mean.

    Return the gradients of gamma and beta, (2, C). g is dy where y was above the floor, else 0;
    (mean, scale, beta) = rows tell where. Gradients and shares need two sums over the batch: of g,
    and of g * d.
    """
    means = _spread(rows[0], strip)
    scales = _spread(rows[1], strip)
    betas = _spread(rows[2], strip)
    sums = np.empty(((x.size + block - 1) // block, 2, strip), x.dtype)
    for b in prange(len(sums)):
        for j in range(0, strip, 2 * len(lanes(x))):
            mean = load_pair(means, j)
            scale = load_pair(scales, j)
            beta = load_pair(betas, j)
            total = zero_pair(x)
            products = zero_pair(x)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                d = load_pair(x, i) - mean
                g = select(load_pair(dy, i), d * scale + beta, floor)
                total = total + g
                products = products + g * d
            store(sums, 2 * b * strip + j, total)
            store(sums, (2 * b + 1) * strip + j, products)
    shares, gradients = _backward_rows(sums, rows[0], factors, x.size // rows.shape[1])
    shares_dy = _spread(shares[0], strip)
    shares_d = _spread(shares[1], strip)
    for b in prange(len(sums)):
        for j in range(0, strip, 2 * len(lanes(x))):
            mean = load_pair(means, j)
            scale = load_pair(scales, j)
            beta = load_pair(betas, j)
            share_dy = load_pair(shares_dy, j)
            share_d = load_pair(shares_d, j)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                d = load_pair(x, i) - mean
                g = select(load_pair(dy, i), d * scale + beta, floor)
                store(dx, i, g * scale - share_dy - d * share_d)
    return gradients


# --------------------------------------------------------- called by numba_ops and by numba_fused


def forward(
    x: Array, gamma: Array, beta: Array, eps: float, floor: float
) -> tuple[Array, Array, Array, Cache]:
    """Normalise by the batch's statistics.

    The cache holds x, (mean, scale, beta), (scale, inv_std) and the floor; backward recomputes
    xhat and y from them.
    """
    checks.batchnorm(x, eps, gamma=gamma, beta=beta)
    x = contiguous(x)
    gamma = contiguous(gamma)
    beta = contiguous(beta)
    y = np.empty_like(x)
    sizes = (x[0].size, *_sizes(x))
    moments, factors = _batch(x.reshape(-1), gamma, beta, eps, floor, y.reshape(-1), sizes)
    mean, var = moments.astype(x.dtype)
    return y, mean, var, (x, np.array([mean, factors[0], beta], x.dtype), factors, floor)


def backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Gradients of x, gamma and beta."""
    x, rows, factors, floor = cache
    checks.same_shape("batchnorm_backward", "dy", dy, x.shape)
    dy = contiguous(dy, x.dtype)
    dx = np.empty_like(x)
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
