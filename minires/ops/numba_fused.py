"""The ops of `numpy_fused`, compiled: batch norm's own kernels with a floor of 0, and half of a backward pass."""

from __future__ import annotations

import numpy as np

from minires.ops import checks, numpy_fused
from minires.ops.compiled import conv, norm
from minires.ops.compiled.simd import contiguous
from minires.ops.numba_ops import smooth

Array = np.ndarray
Cache = tuple


@smooth(numpy_fused)
def batchnorm_forward(
    x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array, Cache]:
    """Read x twice and write y once."""
    return norm.forward(x, gamma, beta, eps, floor=0.0)


@smooth(numpy_fused)
def batchnorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Read dy and x twice, write dx; where y is positive is computed anew, and not read."""
    return norm.backward(dy, cache)


@smooth(numpy_fused)
def batchnorm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
) -> Array:
    """Read x and write y."""
    return norm.inference(x, gamma, beta, mean, var, eps, floor=0.0)


@smooth(numpy_fused)
def conv2d_weights_backward(dy: Array, cache: Cache) -> Array:
    """One of the two convolutions of the backward pass."""
    x, w, stride, pad = cache
    checks.same_shape("conv2d_backward", "dy", dy, checks.conv2d(x, w, stride, pad))
    return conv.backward_weights(contiguous(dy, x.dtype), x, w.shape, stride, pad)
