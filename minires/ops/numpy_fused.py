"""Ops that training can do with less work: here they are made of the plain ones, `numba_fused` leaves the work out.

`batchnorm_forward`, `_backward` and `_inference` are batch norm and the ReLU behind it as one op. Arguments, shapes and
errors are those of the functions of the same names in `numpy_ops`.
"""

from __future__ import annotations

import numpy as np

from minires.ops import numpy_ops

Array = np.ndarray
Cache = tuple


def batchnorm_forward(
    x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array, Cache]:
    """Normalise over the batch and rectify: y = max(gamma * xhat + beta, 0)."""
    z, mean, var, normalised = numpy_ops.batchnorm_forward(x, gamma, beta, eps)
    y, rectified = numpy_ops.relu_forward(z)
    return y, mean, var, (normalised, rectified)


def batchnorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Let dy pass where y is positive, then go back through the normalisation."""
    normalised, rectified = cache
    return numpy_ops.batchnorm_backward(numpy_ops.relu_backward(dy, rectified), normalised)


def batchnorm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
) -> Array:
    """Normalise by fixed statistics and rectify."""
    return numpy_ops.relu_forward(numpy_ops.batchnorm_inference(x, gamma, beta, mean, var, eps))[0]


def conv2d_weights_backward(dy: Array, cache: Cache) -> Array:
    """Return the dw of `conv2d_backward`, (KH, KW, C, K), without dx: nobody asks for the gradient of images."""
    return numpy_ops.conv2d_backward(dy, cache)[1]
