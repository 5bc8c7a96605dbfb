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


def dropout_forward(x: Array, mask: Array) -> tuple:
    """Multiply by a mask: x (any shape), mask (the same shape) -> y (the same shape), cache.

    y = x * mask. For a rate r, each element of the mask is 0 with probability r, and 1 / (1 - r)
    otherwise, so that the mean of y is x. The caller draws it: this op has no random numbers.
    """
    checks.dropout(x, mask)
    return x * mask, (mask,)


def dropout_backward(dy: Array, cache: Cache) -> Array:
    """Multiply dy by the same mask, as y is linear in x: dy, cache -> dx, all of one shape."""
    (mask,) = cache
    checks.gradient("dropout_backward", dy, mask.shape, mask.dtype)
    return dy * mask


def tanh_forward(x: Array) -> tuple:
    """Squash each number into (-1, 1): x (any shape) -> y = tanh(x) (the same shape), cache."""
    checks.tanh(x)
    y = np.tanh(x)
    return y, (y,)


def tanh_backward(dy: Array, cache: Cache) -> Array:
    """Multiply by the slope, dtanh/dx = 1 - tanh(x)^2: dy, cache -> dx, all of one shape."""
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
    """Give each pixel its share of every window it is in: dy (N, OH, OW, C), cache -> dx."""
    count, (N, H, W, C), size, stride, pad = cache
    _, OH, OW, _ = count.shape
    checks.gradient("avg_pool_backward", dy, (N, OH, OW, C))
    share = (dy / count)[:, :, :, None, None]  # (N, OH, OW, 1, 1, C)
    return col2im(np.broadcast_to(share, (N, OH, OW, size, size, C)), H, W, stride, pad)


def _window_sum(x: Array, n: int) -> Array:
    """Sum of each channel and its n - 1 neighbours: x (N, ..., C) -> (N, ..., C)."""
    beside = [(0, 0)] * (x.ndim - 1) + [(n // 2, n // 2)]
    return sliding_window_view(np.pad(x, beside), n, axis=-1).sum(axis=-1)
