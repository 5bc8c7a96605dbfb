"""The ops of `numpy_ops` that gain from compiling, under the same names."""

from __future__ import annotations

import numpy as np
from numba import prange

from minires.ops import checks, numpy_ops
from minires.ops.compiled import conv, norm
from minires.ops.compiled.fallback import numpy_if_complex
from minires.ops.compiled.jit import kernel
from minires.ops.compiled.pool import max_pool_backward, max_pool_forward
from minires.ops.compiled.scratch import contiguous
from minires.ops.compiled.simd import lanes, load_pair, maximum, select, store

__all__ = [
    "batchnorm_backward",
    "batchnorm_forward",
    "batchnorm_inference",
    "conv2d_backward",
    "conv2d_forward",
    "max_pool_backward",
    "max_pool_forward",
    "relu_backward",
    "relu_forward",
]

Array = np.ndarray
Cache = tuple

BLOCK = 1 << 14  # values in a chunk of work

conv2d_forward = numpy_if_complex(numpy_ops.conv2d_forward)(conv.conv2d_forward)
conv2d_backward = numpy_if_complex(numpy_ops.conv2d_backward)(conv.conv2d_backward)

# ----------------------------------------------------------------------------- batch normalisation


@numpy_if_complex(numpy_ops.batchnorm_forward)
def batchnorm_forward(
    x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array, Cache]:
    """Read x twice and write y once."""
    return norm.forward(x, gamma, beta, eps, floor=norm.NO_FLOOR)


@numpy_if_complex(numpy_ops.batchnorm_backward)
def batchnorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Read dy and x twice, write dx."""
    return norm.backward(dy, cache)


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
            store(y, i, maximum(load_pair(x, i), 0.0))


@kernel
def _relu_gradient(dy: Array, y: Array, dx: Array) -> None:
    """Compute dx = dy where y > 0, else 0."""
    for b in prange((y.size + BLOCK - 1) // BLOCK):
        for i in range(b * BLOCK, min(y.size, (b + 1) * BLOCK), 2 * len(lanes(y))):
            store(dx, i, select(load_pair(dy, i), load_pair(y, i), 0.0))


def relu_forward(x: Array) -> tuple[Array, Cache]:
    """Cache y: the next layer keeps it anyway, and y > 0 exactly where x > 0."""
    checks.arrays("relu", x=x)
    x = contiguous(x)
    y = np.empty_like(x)
    _relu(x.reshape(-1), y.reshape(-1))
    return y, (y,)


def relu_backward(dy: Array, cache: Cache) -> Array:
    """Read dy and y, write dx."""
    (y,) = cache
    checks.same_shape("relu_backward", "dy", dy, y.shape)
    dx = np.empty_like(y)
    _relu_gradient(contiguous(dy, y.dtype).reshape(-1), y.reshape(-1), dx.reshape(-1))
    return dx
