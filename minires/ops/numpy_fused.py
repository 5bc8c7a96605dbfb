"""Batch norm and the ReLU behind it as one op, under the names of batch norm: in NumPy the plain composition.

A backend that compiles does both in the passes over memory of the first.
"""

from __future__ import annotations

import numpy as np

from minires.ops import numpy_ops

Array = np.ndarray
Cache = tuple


def batchnorm_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array, Cache]:
    """Normalise over the batch and rectify: y = max(gamma * xhat + beta, 0), see `numpy_ops.batchnorm_forward`.

    Parameters
    ----------
    x : ndarray of shape (N, ..., C)
    gamma, beta : ndarray of shape (C,)
    eps : float

    Returns
    -------
    y : ndarray of the shape of x
    mean, var : ndarray of shape (C,)
    cache : tuple

    Raises
    ------
    InputError
        If shapes or dtypes do not fit, or the batch is empty.
    """
    z, mean, var, normalised = numpy_ops.batchnorm_forward(x, gamma, beta, eps)
    y, rectified = numpy_ops.relu_forward(z)
    return y, mean, var, (normalised, rectified)


def batchnorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Let dy pass where y is positive, then go back through the normalisation, see `numpy_ops.batchnorm_backward`.

    Parameters
    ----------
    dy : ndarray of shape (N, ..., C)
    cache : tuple

    Returns
    -------
    dx : ndarray of the shape of dy
    dgamma, dbeta : ndarray of shape (C,)
    """
    normalised, rectified = cache
    return numpy_ops.batchnorm_backward(numpy_ops.relu_backward(dy, rectified), normalised)


def batchnorm_inference(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float) -> Array:
    """Normalise by fixed statistics and rectify, see `numpy_ops.batchnorm_inference`.

    Parameters
    ----------
    x : ndarray of shape (N, ..., C)
    gamma, beta, mean, var : ndarray of shape (C,)
    eps : float

    Returns
    -------
    y : ndarray of the shape of x
    """
    return numpy_ops.relu_forward(numpy_ops.batchnorm_inference(x, gamma, beta, mean, var, eps))[0]
