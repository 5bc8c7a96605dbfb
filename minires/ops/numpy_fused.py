"""Fused ops as compositions of the plain ones: the definition that compiled versions must match.

They take the arguments of the plain ops in `numpy_ops` and raise the same errors.
"""

from __future__ import annotations

from minires.ops.geometry import Array, Cache
from minires.ops.numpy_ops import (
    batchnorm_backward,
    batchnorm_forward,
    batchnorm_inference,
    relu_backward,
    relu_forward,
)


def batchnorm_relu_forward(
    x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array, Cache]:
    """Normalise over the batch and rectify: y = max(gamma * xhat + beta, 0)."""
    z, mean, var, normalised = batchnorm_forward(x, gamma, beta, eps)
    y, rectified = relu_forward(z)
    return y, mean, var, (normalised, rectified)


def batchnorm_relu_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Pass dy where y is positive, then back through the normalisation: dx, dgamma, dbeta."""
    normalised, rectified = cache
    return batchnorm_backward(relu_backward(dy, rectified), normalised)


def batchnorm_relu_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
) -> Array:
    """Normalise by fixed statistics and rectify."""
    z = batchnorm_inference(x, gamma, beta, mean, var, eps)
    y, _ = relu_forward(z)
    return y
