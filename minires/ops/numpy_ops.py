"""The mathematics of a ResNet: every forward pass with its backward pass directly below.

A batch x has N images of H rows, W columns and C channels: x (N, H, W, C). A convolution has K
filters of KH rows and KW columns: w (KH, KW, C, K). Its output y has OH rows and OW columns.
Indices: image n, output row i, output column j, kernel row p, kernel column q, channel c, filter k.
stride (step between windows) and pad (border on each side): a number, or a pair (rows, columns).

dx is the gradient dL/dx of the loss L, a single number; dx has the shape of x. A forward returns y
and a cache, the tuple that its backward needs. A backward turns dy and this cache into the gradient
of every input. Adding a shortcut needs no code: its backward passes dy to both terms.

Arrays are float32 or float64. Every op first checks its arguments, which may raise `InputError`. It
never changes them and returns no view of them. Do not change arguments or results before backward
has run: the cache may hold them.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minires.ops import checks
from minires.ops.geometry import Array, Cache, Size, output_shape, pair, parts


def im2col(x: Array, KH: int, KW: int, stride: Size = 1, pad: Size = 0) -> Array:
    """Copy every window that a KH x KW kernel sees ("image to columns").

    x (N, H, W, C), KH, KW, stride, pad -> cols (N, OH, OW, KH, KW, C)

    cols[n, i, j, p, q, c] = xpad[n, i*stride + p, j*stride + q, c], with x inside a border of zeros
    as xpad. Pixels at the bottom and right that no whole window covers are left out.
    """
    SH, SW = pair(stride)
    PH, PW = pair(pad)
    xpad = np.pad(x, ((0, 0), (PH, PH), (PW, PW), (0, 0)))  # (N, H + 2 PH, W + 2 PW, C)
    windows = sliding_window_view(xpad, (KH, KW), axis=(1, 2))  # (N, rows, columns, C, KH, KW)
    windows = windows[:, ::SH, ::SW]  # (N, OH, OW, C, KH, KW): every stride-th window
    return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3))  # (N, OH, OW, KH, KW, C)


def col2im(cols: Array, H: int, W: int, stride: Size = 1, pad: Size = 0) -> Array:
    """Add every window back to the pixels it was copied from: the backward of im2col.

    cols (N, OH, OW, KH, KW, C), H, W, stride, pad -> x (N, H, W, C)

    xpad[n, i*stride + p, j*stride + q, c] += cols[n, i, j, p, q, c]; the border is then cut off.
    im2col copies a pixel into every window that covers it, so the gradients of these copies add up.
    """
    N, OH, OW, KH, KW, C = cols.shape
    SH, SW = pair(stride)
    PH, PW = pair(pad)
    xpad = np.zeros((N, H + 2 * PH, W + 2 * PW, C), cols.dtype)
    for p in range(KH):
        for q in range(KW):  # pixel (p, q) of all windows at once, (N, OH, OW, C) on both sides
            xpad[:, p : p + SH * OH : SH, q : q + SW * OW : SW] += cols[:, :, :, p, q]
    return xpad[:, PH : PH + H, PW : PW + W]  # (N, H, W, C)


def conv2d_forward(x: Array, w: Array, stride: Size = 1, pad: Size = 0, groups: int = 1) -> tuple:
    """Multiply every window with K filters, element by element, and add up.

    x (N, H, W, C), w (KH, KW, C, K), stride, pad -> y (N, OH, OW, K), cache

    y[n, i, j, k] = sum_pqc cols[n, i, j, p, q, c] w[p, q, c, k], with cols = im2col(x, KH, KW, ...)
    With each window as a row, and each filter as a column, this is a matrix product: y = rows @ W.
    groups : cut channels and filters into this many groups. A filter then sees only the C / groups
        channels of its group, so w is (KH, KW, C / groups, K), and C below is that number.
    """
    checks.conv2d(x, w, stride, pad, groups)
    KH, KW, C, K = w.shape
    OH, OW = output_shape(x, KH, KW, stride, pad)
    y = np.empty((len(x), OH, OW, K), x.dtype)
    for n, c, k in parts(x, w, OH, OW):  # a few images; the channels and the filters of one group
        cols = im2col(x[n, :, :, c], KH, KW, stride, pad)  # (N, OH, OW, KH, KW, C)
        rows = cols.reshape(-1, KH * KW * C)  # (N OH OW, KH KW C)
        W = w[..., k].reshape(KH * KW * C, -1)  # (KH KW C, K)
        y_rows = rows @ W  # (N OH OW, K)
        y[n, :, :, k] = y_rows.reshape(len(cols), OH, OW, -1)
    return y, (x, w, stride, pad)


def conv2d_backward(dy: Array, cache: Cache, input_gradient: bool = True) -> tuple:
    """Gradients of the matrix product rows @ W; dx is then put together from the windows.

    dy (N, OH, OW, K), cache -> dx (N, H, W, C), dw (KH, KW, C, K)

    dw[p, q, c, k] = sum_nij cols[n, i, j, p, q, c] dy[n, i, j, k]: it sums over what w multiplied
    dcols[n, i, j, p, q, c] = sum_k dy[n, i, j, k] w[p, q, c, k], and dx = col2im(dcols)
    input_gradient : False leaves out dx and returns None for it, as the first layer needs none.
    """
    x, w, stride, pad = cache
    checks.conv2d_backward(dy, cache)
    KH, KW, C, _ = w.shape
    _, OH, OW, _ = dy.shape
    dx = np.empty(x.shape, x.dtype) if input_gradient else None
    dw = np.zeros(w.shape, w.dtype)
    for n, c, k in parts(x, w, OH, OW):
        rows = im2col(x[n, :, :, c], KH, KW, stride, pad).reshape(-1, KH * KW * C)  # as in forward
        W = w[..., k].reshape(KH * KW * C, -1)  # (KH KW C, K)
        dy_rows = dy[n, :, :, k].reshape(len(rows), -1)  # (N OH OW, K)
        dW = rows.T @ dy_rows  # (KH KW C, K)
        dw[..., k] += dW.reshape(KH, KW, C, -1)
        if dx is not None:
            drows = dy_rows @ W.T  # (N OH OW, KH KW C)
            dcols = drows.reshape(-1, OH, OW, KH, KW, C)
            dx[n, :, :, c] = col2im(dcols, *x.shape[1:3], stride, pad)
    return dx, dw


def batchnorm_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple:
    """Normalise each channel by its mean and variance over the batch (Ioffe & Szegedy 2015).

    x (N, ..., C), gamma (C,), beta (C,), eps -> y (N, ..., C), mean (C,), var (C,), cache

    y = gamma * xhat + beta, with xhat = (x - mean) / sqrt(var + eps). mean and var are over the M
    values of a channel, M = N H W for images; var is the biased variance, divided by M.
    """
    checks.batchnorm(x, eps, gamma=gamma, beta=beta)
    M = x.size // x.shape[-1]
    mean = _channel_sum(x) / M  # (C,)
    centred = x - mean  # (N, ..., C)
    var = _channel_sum(centred * centred) / M  # (C,)
    inv_std = 1 / np.sqrt(var + float(eps))  # (C,)
    xhat = centred * inv_std  # (N, ..., C)
    return gamma * xhat + beta, mean, var, (xhat, gamma, inv_std)


def batchnorm_backward(dy: Array, cache: Cache) -> tuple:
    """Add up the three paths from x to the loss: direct, through the mean, through the variance.

    dy (N, ..., C), cache -> dx (N, ..., C), dgamma (C,), dbeta (C,)

    The gradient gamma dy arrives at xhat = (x - mean) * inv_std. A step d of one x moves
    - its own xhat by inv_std d;
    - the mean by d / M, so every xhat by -inv_std d / M;
    - var by 2 (x - mean) d / M, so inv_std = (var + eps)^(-1/2) by -inv_std^2 xhat d / M, so every
      xhat, here xhat', by -inv_std xhat xhat' d / M.
    """
    xhat, gamma, inv_std = cache
    checks.gradient("batchnorm_backward", dy, xhat)
    M = dy.size // dy.shape[-1]
    dbeta = _channel_sum(dy)  # (C,)
    dgamma = _channel_sum(dy * xhat)  # (C,)
    direct = dy  # (N, ..., C)
    through_mean = -dbeta / M  # (C,): summed over the channel, -sum(dy) / M
    through_var = -xhat * (dgamma / M)  # (N, ..., C): -xhat sum(dy xhat) / M
    dx = gamma * inv_std * (direct + through_mean + through_var)
    return dx, dgamma, dbeta


def batchnorm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
) -> Array:
    """Normalise by given statistics, so that the result for an image does not depend on the batch.

    x (N, ..., C), gamma (C,), beta (C,), mean (C,), var (C,), eps -> y (N, ..., C)

    y = gamma * (x - mean) / sqrt(var + eps) + beta, written as one scale and one shift per channel.
    """
    checks.batchnorm(x, eps, gamma=gamma, beta=beta, mean=mean, var=var)
    scale = gamma / np.sqrt(var + float(eps))  # (C,)
    shift = beta - mean * scale  # (C,)
    return x * scale + shift


def _channel_sum(x: Array) -> Array:
    """Sum over all axes but the last: over the images first, as short sums round less."""
    return x.reshape(len(x), -1).sum(axis=0).reshape(-1, x.shape[-1]).sum(axis=0)  # (C,)


def relu_forward(x: Array) -> tuple:
    """Replace negative values by 0, y = max(x, 0): x (any shape) -> y, cache."""
    checks.arrays("relu", x=x)
    return np.maximum(x, 0), (x > 0,)


def relu_backward(dy: Array, cache: Cache) -> Array:
    """Pass the gradient where y was x, stop it where y was 0: dy (any shape), cache -> dx."""
    (positive,) = cache
    checks.gradient("relu_backward", dy, positive)
    return dy * positive


def max_pool_forward(x: Array, size: int, stride: int, pad: int = 0) -> tuple:
    """Take the largest value of each size x size window; the first of equal values wins.

    x (N, H, W, C), size, stride, pad -> y (N, OH, OW, C), cache

    y[n, i, j, c] = max_pq xpad[n, i*stride + p, j*stride + q, c]; the border of xpad is -inf.
    """
    checks.max_pool(x, size, stride, pad)
    N, H, W, C = x.shape
    OH, OW = output_shape(x, size, size, stride, pad)
    xpad = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-np.inf)
    windows = im2col(xpad, size, size, stride).reshape(N, OH, OW, size * size, C)
    y = windows.max(axis=3)  # (N, OH, OW, C)
    inside = im2col(np.ones((1, H, W, 1), bool), size, size, stride, pad)  # False in the border
    largest = ~(windows < y[:, :, :, None]) & inside.reshape(1, OH, OW, size * size, 1)
    winner = largest.argmax(axis=3)  # (N, OH, OW, C): p * size + q of the first True
    return y, (winner, x.shape, size, stride, pad)


def max_pool_backward(dy: Array, cache: Cache) -> Array:
    """Send dy to the pixel that won: dy (N, OH, OW, C), cache -> dx (N, H, W, C)."""
    winner, (_, H, W, C), size, stride, pad = cache
    checks.gradient("max_pool_backward", dy, winner)
    N, OH, OW, _ = dy.shape
    won = winner[:, :, :, None] == np.arange(size * size)[:, None]  # (N, OH, OW, size size, C)
    dwindows = (dy[:, :, :, None] * won).reshape(N, OH, OW, size, size, C)
    return np.ascontiguousarray(col2im(dwindows, H, W, stride, pad))


def global_avg_pool_forward(x: Array) -> tuple:
    """Average each channel over the H W pixels: x (N, H, W, C) -> y (N, C), cache."""
    checks.global_avg_pool(x)
    return x.mean(axis=(1, 2)), (x.shape,)


def global_avg_pool_backward(dy: Array, cache: Cache) -> Array:
    """Give every pixel its share, dy / (H W): dy (N, C), cache -> dx (N, H, W, C)."""
    ((N, H, W, C),) = cache
    checks.gradient("global_avg_pool_backward", dy, (N, C))
    return np.broadcast_to((dy / (H * W))[:, None, None], (N, H, W, C)).copy()


def linear_forward(x: Array, w: Array, b: Array) -> tuple:
    """Weigh C features for each of K outputs: x (N, C), w (C, K), b (K,) -> y (N, K), cache."""
    checks.linear(x, w, b)
    return x @ w + b, (x, w)


def linear_backward(dy: Array, cache: Cache) -> tuple:
    """Gradients of y = x @ w + b: dy (N, K), cache -> dx (N, C), dw (C, K), db (K,)."""
    x, w = cache
    checks.gradient("linear_backward", dy, (len(x), w.shape[1]))
    dx = dy @ w.T  # dx[n, c] = sum_k dy[n, k] w[c, k]
    dw = x.T @ dy  # dw[c, k] = sum_n x[n, c] dy[n, k]
    db = dy.sum(axis=0)  # b was added to every row
    return dx, dw, db


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple:
    """Mean of -log p[label] over the batch, where p is the softmax of a row of logits.

    logits (N, K), labels (N,) integers 0 .. K-1 -> loss (in nats), dlogits (N, K)

    p = exp(z) / sum(exp(z)) for a row z, so -log p[label] = log(sum(exp(z))) - z[label]. Its
    derivative by z[k] is exp(z[k]) / sum(exp(z)) = p[k], and less 1 where k is the label.
    """
    checks.labels(logits, labels)
    rows = np.arange(len(logits))
    z = logits - logits.real.max(axis=1, keepdims=True)  # same p, and exp cannot overflow
    exp = np.exp(z)  # (N, K)
    total = exp.sum(axis=1, keepdims=True)  # (N, 1)
    loss = (np.log(total[:, 0]) - z[rows, labels]).mean()
    dlogits = exp / total  # p, (N, K)
    dlogits[rows, labels] -= 1
    return loss, dlogits / len(logits)
