"""Batch normalisation in two passes over memory: one for the sums, one that writes the result.

`floor` fuses a ReLU: 0 clamps the output at zero, NaN disables the clamp.

Kernels see x, y, dy and dx as flat arrays, in which the channels repeat. The length of a
*strip* is a multiple of C and of the number of lanes in a wide vector. So position j of every strip
belongs to the same channel. A *block* of strips is a chunk of work.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from minires.ops import checks, numpy_ops
from minires.ops.compiled.jit import inline, kernel
from minires.ops.compiled.scratch import contiguous
from minires.ops.compiled.simd import (
    lane_count,
    lanes,
    load_masked,
    load_wide,
    maximum,
    select_above,
    store_masked,
    wide_zeros,
)

Array = np.ndarray
Cache = tuple

NO_FLOOR = math.nan
BLOCK = 1 << 14  # values, about: a block of x and one of y fit into the L2 cache of a core


def _sizes(x: Array) -> tuple[int, int]:
    """Return the length of a strip, and the number of values in a block."""
    strip = math.lcm(x.shape[-1], 2 * lane_count(x.dtype))
    return strip, strip * max(1, BLOCK // strip)


# ----------------------------------------------------------------------------------------- kernels


@inline
def _repeat(per_channel: Array, strip: int) -> Array:
    """Repeat C values to the length of a strip."""
    repeated = np.empty(strip, per_channel.dtype)
    for s in range(strip):
        repeated[s] = per_channel[s % len(per_channel)]
    return repeated


@inline
def _channel_sums(sums: Array, C: int) -> Array:
    """Reduce the two partial sums of each block and strip position to sums per channel, (2, C).

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

    Computed from the sums of d = x - centre and of d^2 over M values.
    """
    moments = _channel_sums(sums, len(centre))
    for c in range(len(centre)):
        mean = moments[0, c] / M
        var = moments[1, c] / M - mean * mean
        moments[0, c] = mean + centre[c]
        moments[1, c] = 0.0 if var < 0 else var  # rounding can make it negative; NaN stays NaN
    return moments


@inline
def _coefficients(moments: Array, gamma: Array, beta: Array, eps: float) -> tuple:
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
def _gradient_coefficients(sums: Array, mean: Array, factors: Array, M: int) -> tuple:
    """Return (share_dy, share_d) for `_gradient`, and the gradients of gamma and beta."""
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


# Loops over channels are written out: Numba would turn array expressions into parallel loops, which
# cost more than they save for 16 channels.


@kernel
def _normalise(x: Array, rows: Array, floor: float, y: Array, strip: int, block: int) -> None:
    """Compute y = max((x - mean) * scale + beta, floor) with (mean, scale, beta) = rows."""
    means = _repeat(rows[0], strip)
    scales = _repeat(rows[1], strip)
    betas = _repeat(rows[2], strip)
    for b in prange((x.size + block - 1) // block):
        for j in range(0, strip, 2 * len(lanes(x))):
            mean = load_wide(means, j)
            scale = load_wide(scales, j)
            beta = load_wide(betas, j)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                store_masked(y, i, maximum((load_wide(x, i) - mean) * scale + beta, floor))


@kernel
def _batch(
    x: Array, gamma: Array, beta: Array, eps: float, floor: float, y: Array, sizes: tuple
) -> tuple:
    """Normalise by mean and variance of the batch: return (mean, var) and (scale, inv_std).

    Each is (2, C) in float64; (image, strip, block) = `sizes` are numbers of values.

    var = mean of d^2 - (mean of d)^2 with d = x - centre loses digits if the centre is far from the
    mean. The centre is the mean of the first image. Its distance from the mean is at most
    sqrt(N var), so the error of var grows by a factor of N at most.
    """
    image, strip, block = sizes
    centre = _first_mean(x, image, len(gamma))
    centres = _repeat(centre, strip)
    sums = np.empty(((x.size + block - 1) // block, 2, strip), x.dtype)
    for b in prange(len(sums)):
        for j in range(0, strip, 2 * len(lanes(x))):
            c = load_wide(centres, j)
            total = wide_zeros(x)
            squares = wide_zeros(x)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                d = load_masked(x, i, c) - c
                total = total + d
                squares = squares + d * d
            store_masked(sums, 2 * b * strip + j, total)
            store_masked(sums, (2 * b + 1) * strip + j, squares)
    moments = _statistics(sums, centre, x.size // len(gamma))
    rows, factors = _coefficients(moments, gamma, beta, eps)
    _normalise(x, rows, floor, y, strip, block)
    return moments, factors


@kernel
def _gradient(dy: Array, x: Array, rows: Array, factors: Array, floor: float, dx: Array, strip: int,
              block: int) -> Array:  # fmt: skip
    """Compute dx = g * scale - share_dy - d * share_d, d = x - mean.

    Return the gradients of gamma and beta, (2, C). g is dy where y was above the floor, else 0;
    y is recomputed from (mean, scale, beta) = rows. The gradients and the shares follow from two
    sums over the batch: of g, and of g * d.
    """
    means = _repeat(rows[0], strip)
    scales = _repeat(rows[1], strip)
    betas = _repeat(rows[2], strip)
    sums = np.empty(((x.size + block - 1) // block, 2, strip), x.dtype)
    for b in prange(len(sums)):
        for j in range(0, strip, 2 * len(lanes(x))):
            mean = load_wide(means, j)
            scale = load_wide(scales, j)
            beta = load_wide(betas, j)
            total = wide_zeros(x)
            products = wide_zeros(x)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                d = load_wide(x, i) - mean
                g = select_above(load_wide(dy, i), d * scale + beta, floor)
                total = total + g
                products = products + g * d
            store_masked(sums, 2 * b * strip + j, total)
            store_masked(sums, (2 * b + 1) * strip + j, products)
    shares, gradients = _gradient_coefficients(sums, rows[0], factors, x.size // rows.shape[1])
    shares_dy = _repeat(shares[0], strip)
    shares_d = _repeat(shares[1], strip)
    for b in prange(len(sums)):
        for j in range(0, strip, 2 * len(lanes(x))):
            mean = load_wide(means, j)
            scale = load_wide(scales, j)
            beta = load_wide(betas, j)
            share_dy = load_wide(shares_dy, j)
            share_d = load_wide(shares_d, j)
            for i in range(b * block + j, min(x.size, (b + 1) * block), strip):
                d = load_wide(x, i) - mean
                g = select_above(load_wide(dy, i), d * scale + beta, floor)
                store_masked(dx, i, g * scale - share_dy - d * share_d)
    return gradients


# --------------------------------------------------------- called by numba_ops and by numba_fused


def forward(
    x: Array, gamma: Array, beta: Array, eps: float, floor: float
) -> tuple[Array, Array, Array, Cache]:
    """Normalise by the statistics of the batch.

    The cache holds x, (mean, scale, beta), (scale, inv_std) and the floor. Backward recomputes
    xhat and y from them.
    """
    eps = checks.batchnorm(x, eps, gamma=gamma, beta=beta)
    x = contiguous(x)
    gamma = contiguous(gamma)
    beta = contiguous(beta)
    y = np.empty_like(x)
    sizes = (x[0].size, *_sizes(x))
    moments, factors = _batch(x.reshape(-1), gamma, beta, eps, floor, y.reshape(-1), sizes)
    finite = np.isfinite(moments).all(axis=0)
    if not finite.all():
        _use_numpy(~finite, x, gamma, beta, eps, moments, factors)
    mean, var = moments.astype(x.dtype)
    rows = np.array([mean, factors[0], beta], x.dtype)
    if not finite.all():
        _normalise(x.reshape(-1), rows, floor, y.reshape(-1), *_sizes(x))
    return y, mean, var, (x, rows, factors, floor)


def _use_numpy(
    channels: Array, x: Array, gamma: Array, beta: Array, eps: float, moments: Array, factors: Array
) -> None:
    """Use the NumPy op to recompute the statistics of `channels`, which are not finite.

    The kernel subtracts a centre from x first, which gives NaN where both are infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        few = np.ascontiguousarray(x[..., channels])
        _, mean, var, _ = numpy_ops.batchnorm_forward(few, gamma[channels], beta[channels], eps)
        inv_std = 1 / np.sqrt(var + eps)
        moments[:, channels] = mean, var
        factors[:, channels] = gamma[channels] * inv_std, inv_std


def backward(dy: Array, cache: Cache, op: str) -> tuple[Array, Array, Array]:
    """Gradients of x, gamma and beta; `op` is the op's name in error messages."""
    x, rows, factors, floor = cache
    checks.gradient(op, dy, x.shape, x.dtype)
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
    eps = checks.batchnorm(x, eps, gamma=gamma, beta=beta, mean=mean, var=var)
    x = contiguous(x)
    y = np.empty_like(x)
    rows = np.array([mean, gamma / np.sqrt(var + eps), beta], x.dtype)
    _normalise(x.reshape(-1), rows, floor, y.reshape(-1), *_sizes(x))
    return y
