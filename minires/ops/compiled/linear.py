"""Linear layer: the convolution of one row of N pixels, of C channels, with filters of 1 x 1.

NumPy's matrix product has threads of its own, those of its BLAS library. They go on spinning after
the product, and hold up the threads of the kernels that follow: see LOG.md.
"""

from __future__ import annotations

import numpy as np

from minires.ops import checks, numpy_ops
from minires.ops.compiled import blocked, conv
from minires.ops.compiled.fallback import numpy_if_complex
from minires.ops.compiled.scratch import contiguous
from minires.ops.compiled.tuning import PIXEL_TILE, many_channels
from minires.ops.geometry import Array, Cache

MOST_WEIGHTS = 1 << 23  # more, as in AlexNet, are NumPy's: it copies none of them


def _multiply(x: Array, w: Array) -> Array:
    """Return x @ w."""
    (N, C), K = x.shape, w.shape[1]
    few = N < PIXEL_TILE[0] and not many_channels(C, K)  # NumPy takes one thread
    if few or C * K > MOST_WEIGHTS:
        return x @ w
    y = np.empty((N, K), x.dtype)
    conv.correlate(x[None, None], w[None, None], y[None, None], (1, 1), (0, 0))
    return y


@numpy_if_complex(numpy_ops.linear_forward)
def linear_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """Multiply blocks of x and w."""
    checks.linear(x, w, b)
    x, w = contiguous(x), contiguous(w)
    y = _multiply(x, w)
    y += b
    return y, (x, w)


@numpy_if_complex(numpy_ops.linear_backward)
def linear_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Multiply blocks of dy and w, and of x and dy."""
    x, w = cache
    if w.size > MOST_WEIGHTS:
        return numpy_ops.linear_backward(dy, cache)
    checks.gradient("linear_backward", dy, (len(x), w.shape[1]), x.dtype)
    dy = contiguous(dy, x.dtype)
    dx = _multiply(dy, blocked.flip(w[None, None], (0, 0), (1, 1))[0, 0])
    dw = conv.backward_weights(dy[None, None], x[None, None], (1, 1, *w.shape), 1, 0)
    return dx, dw[0, 0], dy.sum(axis=0)
