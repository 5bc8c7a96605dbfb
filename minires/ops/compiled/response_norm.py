"""Local response normalisation: a block of pixels at a time.

The loops over channels have no branches, so that LLVM vectorises them: a row of squares has n // 2
zeros on either side, and the sum over a window adds n shifted copies of it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from minires.ops import checks
from minires.ops.compiled.jit import inline, kernel
from minires.ops.compiled.scratch import contiguous

Array = np.ndarray
Cache = tuple

BLOCK = 1 << 13  # values in a chunk of work, about


@inline
def _add_windows(row: Array, n: int, sums: Array) -> None:
    """Add up n neighbours: sums[c] = row[c] + ... + row[c + n - 1]."""
    C = len(sums)
    for c in range(C):
        sums[c] = row[c]
    for d in range(1, n):
        for c in range(C):
            sums[c] += row[c + d]


@inline
def _powers(s: Array, beta: float, power: Array) -> None:
    """Compute power = s^-beta; the paper's exponent needs two roots and no logarithm."""
    if beta == 0.75:
        for c in range(len(s)):
            half = 1 / math.sqrt(s[c])
            power[c] = half * math.sqrt(half)
    else:
        for c in range(len(s)):
            power[c] = s[c] ** -beta


@kernel
def _normalise(x: Array, n: int, constants: Array, y: Array, s: Array) -> None:
    """Write s and y = x s^-beta for every pixel (a row); k, alpha, beta are the constants."""
    M, C = x.shape
    k, alpha, beta = constants
    pixels = max(1, BLOCK // C)
    for block in prange((M + pixels - 1) // pixels):
        squares = np.zeros(C + n - 1, x.dtype)
        power = np.empty(C, x.dtype)
        for m in range(block * pixels, min(M, (block + 1) * pixels)):
            for c in range(C):
                squares[n // 2 + c] = x[m, c] * x[m, c]
            _add_windows(squares, n, s[m])
            for c in range(C):
                s[m, c] = k + alpha * s[m, c]
            _powers(s[m], beta, power)
            for c in range(C):
                y[m, c] = x[m, c] * power[c]


@kernel
def _gradient(dy: Array, x: Array, s: Array, n: int, constants: Array, dx: Array) -> None:
    """Write dx = dy s^-beta - 2 alpha beta x (sum of dy x s^(-beta - 1) over the window)."""
    M, C = x.shape
    _, alpha, beta = constants
    pixels = max(1, BLOCK // C)
    for block in prange((M + pixels - 1) // pixels):
        shares = np.zeros(C + n - 1, x.dtype)
        power = np.empty(C, x.dtype)
        sums = np.empty(C, x.dtype)
        for m in range(block * pixels, min(M, (block + 1) * pixels)):
            _powers(s[m], beta, power)
            for c in range(C):
                shares[n // 2 + c] = dy[m, c] * x[m, c] * power[c] / s[m, c]
            _add_windows(shares, n, sums)
            for c in range(C):
                dx[m, c] = dy[m, c] * power[c] - 2 * alpha * beta * x[m, c] * sums[c]


def local_response_norm_forward(
    x: Array, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> tuple[Array, Cache]:
    """Read x; write y and s, the sums that are raised to a power."""
    checked = checks.local_response_norm(x, n, k, alpha, beta)
    x = contiguous(x)
    constants = np.array(checked, x.dtype)
    y = np.empty_like(x)
    s = np.empty_like(x)
    _normalise(_rows(x), int(n), constants, _rows(y), _rows(s))
    return y, (x, s, int(n), constants)


def local_response_norm_backward(dy: Array, cache: Cache) -> Array:
    """Read dy, x and s; write dx."""
    x, s, n, constants = cache
    checks.gradient("local_response_norm_backward", dy, x.shape, x.dtype)
    dx = np.empty_like(x)
    _gradient(_rows(contiguous(dy, x.dtype)), _rows(x), _rows(s), n, constants, _rows(dx))
    return dx


def _rows(a: Array) -> Array:
    """The same values as (pixels, C)."""
    return a.reshape(-1, a.shape[-1])
