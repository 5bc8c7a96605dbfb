"""Pairs of ops that a compiled backend does in one pass over memory, said here as what they are: compositions."""

from __future__ import annotations

import numpy as np

from minires.ops import checks, numpy_ops

__all__ = [
    "add_relu_backward",
    "add_relu_forward",
    "batchnorm_relu_backward",
    "batchnorm_relu_forward",
    "batchnorm_relu_inference",
    "sgd_update",
]

Array = np.ndarray
Cache = tuple


def batchnorm_relu_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array, Cache]:
    """Normalise and keep what is positive: y = max(gamma * xhat + beta, 0).

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
    """
    y, mean, var, batchnorm = numpy_ops.batchnorm_forward(x, gamma, beta, eps)
    y, relu = numpy_ops.relu_forward(y)
    return y, mean, var, (batchnorm, relu)


def batchnorm_relu_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Pass the gradient where y was positive, then through the normalisation.

    Parameters
    ----------
    dy : ndarray of shape (N, ..., C)
    cache : tuple

    Returns
    -------
    dx : ndarray of the shape of dy
    dgamma, dbeta : ndarray of shape (C,)
    """
    batchnorm, relu = cache
    return numpy_ops.batchnorm_backward(numpy_ops.relu_backward(dy, relu), batchnorm)


def batchnorm_relu_inference(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float) -> Array:
    """Normalise by fixed statistics and keep what is positive.

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


def add_relu_forward(a: Array, b: Array) -> tuple[Array, Cache]:
    """Join the two ways of a residual block: y = max(a + b, 0).

    Parameters
    ----------
    a, b : ndarray of one shape

    Returns
    -------
    y : ndarray of that shape
    cache : tuple
    """
    checks.arrays("add_relu", a=a, b=b)
    checks.same_shape("add_relu", "b", b, a.shape)
    return numpy_ops.relu_forward(a + b)


def add_relu_backward(dy: Array, cache: Cache) -> Array:
    """Pass the gradient where the sum was positive: da = db = dy * (a + b > 0).

    Parameters
    ----------
    dy : ndarray of the shape of y
    cache : tuple

    Returns
    -------
    dsum : ndarray of the shape of dy
        The gradient of a, and that of b: one array.
    """
    return numpy_ops.relu_backward(dy, cache)


def sgd_update(w: Array, dw: Array, v: Array, lr: float, momentum: float, weight_decay: float) -> None:
    """One step of gradient descent, in place: v <- momentum v + dw + weight_decay w, then w <- w - lr v.

    Parameters
    ----------
    w : ndarray
        Weights; changed.
    dw : ndarray of the shape of w
    v : ndarray of the shape of w
        Velocity; changed.
    lr, momentum, weight_decay : float
    """
    checks.arrays("sgd_update", w=w, dw=dw, v=v)
    checks.same_shape("sgd_update", "dw", dw, w.shape)
    checks.same_shape("sgd_update", "v", v, w.shape)
    v *= momentum
    v += dw + weight_decay * w
    w -= lr * v
