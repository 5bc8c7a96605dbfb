"""The ops of `numpy_fused`, compiled: the kernels of batch norm with a floor of 0."""

from __future__ import annotations

from minires.ops import numpy_fused
from minires.ops.compiled import norm
from minires.ops.compiled.fallback import numpy_if_complex
from minires.ops.geometry import Array, Cache


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
