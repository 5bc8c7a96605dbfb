"""Fused ops as compositions of the plain ones: the definition that compiled versions must match.

Those of batch norm and ReLU take the arguments of the plain ops in `numpy_ops` and raise the same
errors. The letters are those of `numpy_ops`.
"""

from __future__ import annotations

import numpy as np

from minires.ops import checks_fused
from minires.ops.geometry import Array, Cache, Size
from minires.ops.numpy_ops import (
    batchnorm_backward,
    batchnorm_forward,
    batchnorm_inference,
    conv2d_forward,
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


def add_relu_forward(f: Array, x: Array, stride: int = 1) -> tuple[Array, Cache]:
    """End a residual block whose shortcut has no parameters (option A), and rectify.

    f (N, OH, OW, K), x (N, H, W, C), stride -> y (N, OH, OW, K), cache

    y[n, i, j, k] = max(f[n, i, j, k] + x[n, i*stride, j*stride, k], 0), where x counts as 0 from
    channel C on. With stride 1 and C = K this is y = max(f + x, 0).
    """
    checks_fused.shortcut("add_relu", x, stride, f=f)
    z = f.copy()
    z[..., : x.shape[3]] += x[:, ::stride, ::stride]
    return relu_forward(z)


def add_relu_backward(dy: Array, cache: Cache) -> Array:
    """Pass dy where y is positive: dz, the gradient of the sum.

    dy (N, OH, OW, K), cache -> dz (N, OH, OW, K)

    dz is the gradient of f. `add_shortcut_gradient` takes it back to x.
    """
    return relu_backward(dy, cache)


def add_shortcut_gradient(dx: Array, dz: Array, stride: int = 1) -> Array:
    """Add the gradient that comes through the shortcut to dx, which comes through the body.

    dx (N, H, W, C), dz (N, OH, OW, K), stride -> sum (N, H, W, C)

    sum[n, i*stride, j*stride, c] = dx[n, i*stride, j*stride, c] + dz[n, i, j, c]; the other pixels
    had no part in y, and keep their dx.
    """
    checks_fused.shortcut("add_shortcut_gradient", dx, stride, dz=dz)
    total = dx.copy()
    total[:, ::stride, ::stride] += dz[..., : dx.shape[3]]
    return total


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
    """Convolve, add b and maybe a shortcut, and maybe rectify: all that follows in a folded net.

    x (N, H, W, C), w (KH, KW, C / groups, K), b (K,), shortcut (N, OH, OW, K) or None
    -> y (N, OH, OW, K) = max(conv2d(x, w) + b + shortcut, 0), without max if not `rectify`

    `nets.fold.fold` moves the scale and the shift of batch norm into w and b. In `kept`, which is
    empty at first and belongs to one w that does not change, compiled ops keep w as they need it.
    """
    checks_fused.inference(x, w, b)
    y, _ = conv2d_forward(x, w, stride, pad, groups=groups)
    checks_fused.finish("conv2d_inference", y.shape, b, shortcut)
    y = y + b
    if shortcut is not None:
        y = y + shortcut
    return np.maximum(y, 0) if rectify else y
