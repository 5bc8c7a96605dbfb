"""The ops of `numpy_ops` that are faster when compiled, under the same names.

Limits. Results equal those of NumPy to rounding, except where numbers are not finite or nearly
overflow:

- A 3x3 convolution of stride 1 uses Winograd's tiles if 16 divides the numbers of channels and of
  filters (with narrow vectors or float64, a smaller divisor is enough). There, an infinity or a NaN
  in x or dy makes all outputs of its 4x4 tiles NaN, not only those whose windows contain it. Where
  NumPy has an infinity, the result is NaN. In dw, all nine weights of a channel and a filter become
  NaN. Values whose sums overflow inside a tile, in float32 from about 1e36 on, count as infinite.
- Sums are added in another order than in NumPy. Sums that nearly overflow may become infinite or
  NaN in one backend and stay finite in the other.

A NaN or an infinity in an argument never disappears: every result that is not finite in NumPy is
not finite here.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minires.ops import checks, numpy_ops
from minires.ops.compiled import conv, norm
from minires.ops.compiled.average import global_avg_pool_backward, global_avg_pool_forward
from minires.ops.compiled.fallback import numpy_if_complex
from minires.ops.compiled.jit import kernel
from minires.ops.compiled.linear import linear_backward, linear_forward
from minires.ops.compiled.pool import max_pool_backward, max_pool_forward
from minires.ops.compiled.scratch import contiguous
from minires.ops.compiled.simd import lanes, load_wide, maximum, select_above, store_masked
from minires.ops.geometry import Array, Cache

__all__ = [
    "batchnorm_backward",
    "batchnorm_forward",
    "batchnorm_inference",
    "conv2d_backward",
    "conv2d_forward",
    "global_avg_pool_backward",
    "global_avg_pool_forward",
    "linear_backward",
    "linear_forward",
    "max_pool_backward",
    "max_pool_forward",
    "relu_backward",
    "relu_forward",
]

BLOCK = 1 << 13  # values in a chunk of work


def _is_complex(cache: Cache) -> bool:
    """Whether the forward pass had complex input, so that backward must use the NumPy op, too."""
    return any(np.iscomplexobj(a) for a in cache if isinstance(a, np.ndarray))


# ------------------------------------------------------------------------------------- convolution

conv2d_forward = numpy_if_complex(numpy_ops.conv2d_forward)(conv.conv2d_forward)


def conv2d_backward(
    dy: Array, cache: Cache, input_gradient: bool = True
) -> tuple[Array | None, Array]:
    """Convolve dy with the flipped filters, and x with dy."""
    backward = numpy_ops.conv2d_backward if _is_complex(cache) else conv.conv2d_backward
    return backward(dy, cache, input_gradient)


# ----------------------------------------------------------------------------- batch normalisation


@numpy_if_complex(numpy_ops.batchnorm_forward)
def batchnorm_forward(
    x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array, Cache]:
    """Read x twice and write y once."""
    return norm.forward(x, gamma, beta, eps, floor=norm.NO_FLOOR)


def batchnorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Read dy and x twice, write dx."""
    if _is_complex(cache):
        return numpy_ops.batchnorm_backward(dy, cache)
    return norm.backward(dy, cache, "batchnorm_backward")


@numpy_if_complex(numpy_ops.batchnorm_inference)
def batchnorm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
) -> Array:
    """Read x and write y."""
    return norm.inference(x, gamma, beta, mean, var, eps, floor=norm.NO_FLOOR)


# -------------------------------------------------------------------------------------------- ReLU


@kernel
def _relu(x: Array, y: Array) -> None:
    """Compute y = max(x, 0)."""
    for b in prange((x.size + BLOCK - 1) // BLOCK):
        for i in range(b * BLOCK, min(x.size, (b + 1) * BLOCK), 2 * len(lanes(x))):
            store_masked(y, i, maximum(load_wide(x, i), 0.0))


@kernel
def _relu_gradient(dy: Array, y: Array, dx: Array) -> None:
    """Compute dx = dy where y > 0; elsewhere 0, or NaN where dy is NaN or infinite."""
    for b in prange((y.size + BLOCK - 1) // BLOCK):
        for i in range(b * BLOCK, min(y.size, (b + 1) * BLOCK), 2 * len(lanes(y))):
            store_masked(dx, i, select_above(load_wide(dy, i), load_wide(y, i), 0.0))


def relu_forward(x: Array) -> tuple[Array, Cache]:
    """Cache y: the next layer keeps it anyway, and y > 0 exactly where x > 0."""
    checks.relu(x)
    x = contiguous(x)
    y = np.empty_like(x)
    _relu(x.reshape(-1), y.reshape(-1))
    return y, (y,)


def relu_backward(dy: Array, cache: Cache) -> Array:
    """Read dy and y, write dx."""
    (y,) = cache
    checks.gradient("relu_backward", dy, y.shape, y.dtype)
    dx = np.empty_like(y)
    _relu_gradient(contiguous(dy, y.dtype).reshape(-1), y.reshape(-1), dx.reshape(-1))
    return dx
