"""The ops of `numpy_fused`, compiled."""

from __future__ import annotations

from minires.ops import checks, checks_fused, numpy_fused
from minires.ops.compiled import conv, norm
from minires.ops.compiled.fallback import numpy_if_complex
from minires.ops.compiled.scratch import contiguous
from minires.ops.compiled.shortcut import add_relu_forward, add_shortcut_gradient, ending
from minires.ops.geometry import Array, Cache, Size, pair
from minires.ops.numba_ops import relu_backward

__all__ = [
    "add_relu_backward",
    "add_relu_forward",
    "add_shortcut_gradient",
    "batchnorm_relu_backward",
    "batchnorm_relu_forward",
    "batchnorm_relu_inference",
    "conv2d_inference",
]


@numpy_if_complex(numpy_fused.batchnorm_relu_forward)
def batchnorm_relu_forward(
    x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array, Cache]:
    """Read x twice and write y once."""
    return norm.forward(x, gamma, beta, eps, floor=0.0)


def batchnorm_relu_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Read dy and x twice, write dx; recompute where y is positive rather than read y.

    A cache is never complex: the ReLU of the forward pass refuses complex numbers.
    """
    return norm.backward(dy, cache, "relu_backward")


@numpy_if_complex(numpy_fused.batchnorm_relu_inference)
def batchnorm_relu_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
) -> Array:
    """Read x and write y."""
    return norm.inference(x, gamma, beta, mean, var, eps, floor=0.0)


def add_relu_backward(dy: Array, cache: Cache) -> Array:
    """Read dy and y, write dz."""
    return relu_backward(dy, cache)


def conv2d_inference(
    x: Array,
    w: Array,
    b: Array,
    stride: Size = 1,
    pad: Size = 0,
    groups: int = 1,
    shortcut: Array | None = None,
    rectify: bool = True,
    kept: dict | None = None,
) -> Array:
    """Convolve, and finish rows of y while they are in the cache; order or transform w once."""
    checks_fused.inference(x, w, b)
    shape = checks.conv2d(x, w, stride, pad, groups)
    checks_fused.finish("conv2d_inference", shape, b, shortcut)
    return conv.apply(contiguous(x), contiguous(w), shape, pair(stride), pair(pad), groups,
                      ending(b, shortcut, rectify), kept)  # fmt: skip
