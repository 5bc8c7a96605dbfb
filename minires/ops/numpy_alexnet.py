"""The ops that AlexNet adds to those of a ResNet; as there, each backward is below its forward.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS
2012. Local response normalisation is in its section 3.3, dropout in 4.2; tanh is the activation
that its section 3.1 compares ReLU with. Average pooling serves the networks around it.

The letters: a batch x holds N images of H rows, W columns and C channels, x (N, H, W, C). Indices:
channels c and d. dx is the gradient of the loss with respect to x, dy that with respect to y.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minires.ops import checks
from minires.ops.geometry import Array, Cache, output_shape
from minires.ops.numpy_ops import col2im, im2col


def local_response_norm_forward(
    x: Array, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> tuple:
    """Let n neighbouring channels of a pixel compete: large neighbours make a value smaller.

    x (N, ..., C), n odd and at most C, k > 0, alpha >= 0, beta -> y (N, ..., C), cache

    y[c] = x[c] / s[c]^beta, with s[c] = k + alpha * sum of x[d]^2 over |d - c| <= n // 2. Channels
    below 0 or above C - 1 count as 0. The sum is multiplied by alpha, as in the paper. Caffe and
    PyTorch multiply by alpha / n: their alpha is n times as large for the same result.
    """
    k, alpha, beta = checks.local_response_norm(x, n, k, alpha, beta)
    s = k + alpha * _window_sum(x * x, n)  # (N, ..., C)
    return x * s**-beta, (x, s, n, alpha, beta)


def local_response_norm_backward(dy: Array, cache: Cache) -> Array:
    """Add up two paths from x[c] to the loss: through y[c], and through every s[d] that holds it.

    dy (N, ..., C), cache -> dx (N, ..., C)

    A small change e in x[c] changes
    - y[c] by e s[c]^-beta, if s stays as it is;
    - s[d] by 2 alpha x[c] e for each |d - c| <= n // 2, and so y[d] by -beta x[d] s[d]^(-beta - 1)
      times that. If d has c in its window, c has d in its own: the sum is over the same window.
    """
    x, s, n, alpha, beta = cache
    checks.gradient("local_response_norm_backward", dy, x.shape, x.dtype)
    power = s**-beta  # (N, ..., C)
    direct = dy * power
    through_s = -2 * alpha * beta * x * _window_sum(dy * x * power / s, n)
    return direct + through_s


def dropout_mask(u: Array, rate: float) -> Array:
    """Make a mask of uniform random numbers: 0 for a share `rate` of them, 1 / (1 - rate) else.

    u (any shape) in [0, 1), rate in [0, 1) -> mask (the same shape)

    An element is 0 where u < rate. As the others are 1 / (1 - rate), the mean of the mask is 1. The
    paper's masks are 0 or 1, and its network multiplies by 1 - rate at test time.
    """
    checks.dropout_mask(u, rate)
    return (u >= rate) * u.dtype.type(1 / (1 - rate))


def dropout_forward(x: Array, mask: Array) -> tuple:
    """Set elements to 0 and scale up the others: y = x * mask.

    x (any shape), mask (the same shape) -> y (the same shape), cache

    The op has no random numbers: the caller draws the mask, see `dropout_mask`.
    """
    checks.dropout(x, mask)
    return x * mask, (mask,)


def dropout_backward(dy: Array, cache: Cache) -> Array:
    """Multiply by the mask of the forward, as y is linear in x.

    dy (any shape), cache -> dx (the same shape)
    """
    (mask,) = cache
    checks.gradient("dropout_backward", dy, mask.shape, mask.dtype)
    return dy * mask


def tanh_forward(x: Array) -> tuple:
    """Squash each number into (-1, 1): y = tanh(x).

    x (any shape) -> y (the same shape), cache
    """
    checks.tanh(x)
    y = np.tanh(x)
    return y, (y,)


def tanh_backward(dy: Array, cache: Cache) -> Array:
    """Multiply by the slope of tanh, which is 1 - tanh(x)^2: near 0 where y is near -1 or 1.

    dy (any shape), cache -> dx (the same shape)
    """
    (y,) = cache
    checks.gradient("tanh_backward", dy, y.shape, y.dtype)
    return dy * (1 - y * y)


def avg_pool_forward(x: Array, size: int, stride: int, pad: int = 0) -> tuple:
    """Average each window over its pixels inside the image; the border is not counted.

    x (N, H, W, C), size, stride, pad -> y (N, OH, OW, C), cache
    """
    checks.avg_pool(x, size, stride, pad)
    N, H, W, C = x.shape
    OH, OW = output_shape(x, size, size, stride, pad)
    windows = im2col(x, size, size, stride, pad).reshape(N, OH, OW, size * size, C)
    inside = im2col(np.ones((1, H, W, 1), x.dtype), size, size, stride, pad)
    count = inside.sum(axis=(3, 4))  # (1, OH, OW, 1): pixels of each window
    return windows.sum(axis=3) / count, (count, x.shape, size, stride, pad)


def avg_pool_backward(dy: Array, cache: Cache) -> Array:
    """Give each pixel its share of every window that it is in.

    dy (N, OH, OW, C), cache -> dx (N, H, W, C)
    """
    count, (N, H, W, C), size, stride, pad = cache
    _, OH, OW, _ = count.shape
    checks.gradient("avg_pool_backward", dy, (N, OH, OW, C), count.dtype)
    share = (dy / count)[:, :, :, None, None]  # (N, OH, OW, 1, 1, C)
    return col2im(np.broadcast_to(share, (N, OH, OW, size, size, C)), H, W, stride, pad)


def _window_sum(x: Array, n: int) -> Array:
    """Sum of each channel and its n - 1 neighbours: x (N, ..., C) -> (N, ..., C)."""
    beside = [(0, 0)] * (x.ndim - 1) + [(n // 2, n // 2)]
    return sliding_window_view(np.pad(x, beside), n, axis=-1).sum(axis=-1)
