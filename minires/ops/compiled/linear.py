"""Linear layer: the convolution of one row of N pixels, of C channels, with filters of 1 x 1.

NumPy's matrix product has threads of its own, those of its BLAS library. They go on spinning after
a large product, and hold up the threads of the kernels that follow: see LOG.md. Small products,
which one thread computes, stay NumPy's.
"""

from __future__ import annotations

import numpy as np

from minires.ops import checks, numpy_ops
from minires.ops.compiled import blocked, conv
from minires.ops.compiled.fallback import numpy_if_complex
from minires.ops.compiled.scratch import contiguous
from minires.ops.geometry import Array, Cache

# multiply-adds that OpenBLAS computes in one thread: of two matrices, of a vector and a matrix
SMALL = 1 << 18
SMALL_VECTOR = 1 << 13
MOST_WEIGHTS = 1 << 23  # more, as in AlexNet, are NumPy's: it copies none of them


def _is_numpys(x: Array, w: Array) -> bool:
    """Whether NumPy multiplies x (N, C) and w (C, K), and each of them and dy in backward."""
    N, C = x.shape
    K = w.shape[1]
    small = SMALL_VECTOR if min(N, C, K) == 1 else SMALL
    return N * C * K <= small or C * K > MOST_WEIGHTS


def _multiply(x: Array, w: Array) -> Array:
    """Return x @ w."""
    y = np.empty((len(x), w.shape[1]), x.dtype)
    conv.correlate(x[None, None], w[None, None], y[None, None], (1, 1), (0, 0))
    return y


@numpy_if_complex(numpy_ops.linear_forward)
def linear_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """Multiply blocks of x and w."""
    checks.linear(x, w, b)
    if _is_numpys(x, w):
        return numpy_ops.linear_forward(x, w, b)
    x = contiguous(x)
    w = contiguous(w)
    y = _multiply(x, w)
    y += b
    return y, (x, w)


@numpy_if_complex(numpy_ops.linear_backward)
def linear_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Multiply blocks of dy and w, and of x and dy."""
    x, w = cache
    if _is_numpys(x, w):
        return numpy_ops.linear_backward(dy, cache)
    checks.gradient("linear_backward", dy, (len(x), w.shape[1]), x.dtype)
    dy = contiguous(dy, x.dtype)
    dx = _multiply(dy, blocked.flip(w[None, None], (0, 0), (1, 1))[0, 0])
    dw = conv.backward_weights(dy[None, None], x[None, None], (1, 1, *w.shape), 1, 0)
    return dx, dw[0, 0], dy.sum(axis=0)
