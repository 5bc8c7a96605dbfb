"""The mathematics of a ResNet: each forward pass, with its backward pass directly below it.

A batch x holds N images of H rows, W columns and C channels: x (N, H, W, C). A convolution has K
filters w (KH, KW, C, K). It compares every window of x, KH rows by KW columns, with each filter:
y (N, OH, OW, K), with OH = (H + 2 pad - KH) // stride + 1, and OW likewise. pad is the width of a
border on all four sides, stride the step between windows: one number, or a pair (rows, columns).
Indices: image n, output row i and column j, row p and column q of a window, channel c, filter k.

The loss L is one number. dx means its gradient dL/dx and has the shape of x. A forward returns y
and a cache, the tuple that its backward needs. The backward turns dy and the cache into gradients.
A sum y = a + b, such as a shortcut, needs no function: da = dy and db = dy.

Arrays are float32 or float64; gradient checks also send complex128. An op raises `InputError` for
arguments that do not fit, and never changes any. Do not change arguments or results before backward
has run: the cache may hold them.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minires.ops import checks
from minires.ops.geometry import Array, Cache, Size, output_shape, pair, parts


def im2col(x: Array, KH: int, KW: int, stride: Size = 1, pad: Size = 0) -> Array:
    """Copy every KH x KW window of x; the usual name means "image to columns".

    x (N, H, W, C), KH, KW, stride, pad -> cols (N, OH, OW, KH, KW, C)

    cols[n, i, j, p, q, c] = xpad[n, i*SH + p, j*SW + q, c], where xpad is x with a border of zeros
    and (SH, SW) is the stride. Pixels that no whole window covers are left out.
    """
    SH, SW = pair(stride)
    PH, PW = pair(pad)
    xpad = np.pad(x, ((0, 0), (PH, PH), (PW, PW), (0, 0)))  # (N, H + 2 PH, W + 2 PW, C)
    windows = sliding_window_view(xpad, (KH, KW), axis=(1, 2))  # stride 1: (N, ., ., C, KH, KW)
    windows = windows[:, ::SH, ::SW]  # (N, OH, OW, C, KH, KW)
    return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3))  # (N, OH, OW, KH, KW, C)


def col2im(cols: Array, H: int, W: int, stride: Size = 1, pad: Size = 0) -> Array:
    """Add every window back to the pixels it was copied from: the backward of im2col.

    cols (N, OH, OW, KH, KW, C), H, W, stride, pad -> x (N, H, W, C)

    xpad[n, i*SH + p, j*SW + q, c] += cols[n, i, j, p, q, c], and the border is cut off at the end.
    im2col copies a pixel into every window that covers it: its gradient is the sum of theirs.
    """
    N, OH, OW, KH, KW, C = cols.shape
    SH, SW = pair(stride)
    PH, PW = pair(pad)
    xpad = np.zeros((N, H + 2 * PH, W + 2 * PW, C), cols.dtype)
    for p in range(KH):
        for q in range(KW):  # pixel (p, q) of every window: rows p, p + SH, ...; (N, OH, OW, C)
            xpad[:, p : p + SH * OH : SH, q : q + SW * OW : SW] += cols[:, :, :, p, q]
    return xpad[:, PH : PH + H, PW : PW + W]  # (N, H, W, C)


def conv2d_forward(x: Array, w: Array, stride: Size = 1, pad: Size = 0, groups: int = 1) -> tuple:
    """Multiply each window by each filter, element by element, and sum the products.

    x (N, H, W, C), w (KH, KW, C, K), stride, pad -> y (N, OH, OW, K), cache

    y[n, i, j, k] = sum_pqc cols[n, i, j, p, q, c] w[p, q, c, k], with cols = im2col(x, KH, KW, ...)
    Make windows the rows of one matrix and filters the columns of another, W: this is rows @ W.
    groups : split channels and filters into this many groups; a filter sees only the channels of
        its own group, so w is (KH, KW, C / groups, K).
    """
    checks.conv2d(x, w, stride, pad, groups)
    KH, KW, C, K = w.shape
    OH, OW = output_shape(x, KH, KW, stride, pad)
    y = np.empty((len(x), OH, OW, K), x.dtype)
    # a part is a few images and one group: N, C, K count only those, and n, c, k are their slices
    for n, c, k in parts(x, w, OH, OW):
        cols = im2col(x[n, :, :, c], KH, KW, stride, pad)  # (N, OH, OW, KH, KW, C)
        rows = cols.reshape(-1, KH * KW * C)  # (N OH OW, KH KW C)
        W = w[..., k].reshape(KH * KW * C, -1)  # (KH KW C, K)
        y_rows = rows @ W  # (N OH OW, K)
        y[n, :, :, k] = y_rows.reshape(len(cols), OH, OW, -1)
    return y, (x, w, stride, pad)


def conv2d_backward(dy: Array, cache: Cache, input_gradient: bool = True) -> tuple:
    """Gradients of the product rows @ W. Each part sets its own piece of dx, and adds to dw.

    dy (N, OH, OW, K), cache -> dx (N, H, W, C), dw (KH, KW, C, K)

    dw[p, q, c, k] = sum_nij cols[n, i, j, p, q, c] dy[n, i, j, k], one term for every use of w
    dcols[n, i, j, p, q, c] = sum_k dy[n, i, j, k] w[p, q, c, k], one term for every filter
    dx = col2im(dcols)
    input_gradient : False returns None for dx: the first layer needs no gradient of the images.
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

    y = gamma * xhat + beta, with xhat = (x - mean) / sqrt(var + eps). mean and var are taken
    over the M values of a channel, M = N H W for images; var is the mean of (x - mean)^2.
    """
    checks.batchnorm(x, eps, gamma=gamma, beta=beta)
    M = x.size // x.shape[-1]
    mean = _channel_sum(x) / M  # (C,)
    centred = x - mean  # (N, ..., C)
    var = _channel_sum(centred * centred) / M  # (C,)
    inv_std = 1 / np.sqrt(var + float(eps))  # (C,); float, as a NumPy scalar changes the dtype
    xhat = centred * inv_std  # (N, ..., C)
    return gamma * xhat + beta, mean, var, (xhat, gamma, inv_std)


def batchnorm_backward(dy: Array, cache: Cache) -> tuple:
    """Add up the three paths from x to the loss: direct, through the mean, through the variance.

    dy (N, ..., C), cache -> dx (N, ..., C), dgamma (C,), dbeta (C,)

    y = gamma xhat + beta gives dgamma, dbeta, and gamma dy as the gradient of xhat, which is
    (x - mean) inv_std with inv_std = 1 / sqrt(var + eps). A small step e of one x moves
    - its own xhat by inv_std e;
    - the mean by e / M, so every xhat' of the channel by -inv_std e / M;
    - var by 2 (x - mean) e / M, as sum(x' - mean) = 0, so inv_std by -inv_std^2 xhat e / M, so
      every xhat' by -inv_std xhat xhat' e / M.
    Multiply each move by gamma dy', the gradient of what moves, and add up over the channel.
    """
    xhat, gamma, inv_std = cache
    checks.gradient("batchnorm_backward", dy, xhat.shape)
    M = dy.size // dy.shape[-1]
    dbeta = _channel_sum(dy)  # (C,)
    dgamma = _channel_sum(dy * xhat)  # (C,)
    direct = dy  # (N, ..., C); gamma inv_std, in all three terms, is put in front
    through_mean = -dbeta / M  # (C,): -sum(dy') / M
    through_var = -xhat * (dgamma / M)  # (N, ..., C): -xhat sum(dy' xhat') / M
    dx = gamma * inv_std * (direct + through_mean + through_var)
    return dx, dgamma, dbeta


def batchnorm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
) -> Array:
    """Normalise with a given mean and variance: y = gamma * (x - mean) / sqrt(var + eps) + beta.

    x (N, ..., C), gamma (C,), beta (C,), mean (C,), var (C,), eps -> y (N, ..., C)
    """
    checks.batchnorm(x, eps, gamma=gamma, beta=beta, mean=mean, var=var)
    scale = gamma / np.sqrt(var + float(eps))  # (C,)
    shift = beta - mean * scale  # (C,)
    return x * scale + shift


def _channel_sum(x: Array) -> Array:
    """Sum over all axes but the last, images first: two short sums round less than a long one."""
    return x.reshape(len(x), -1).sum(axis=0).reshape(-1, x.shape[-1]).sum(axis=0)  # (C,)


def relu_forward(x: Array) -> tuple:
    """Replace negative values by 0, y = max(x, 0): x (any shape) -> y, cache."""
    checks.arrays("relu", x=x)
    return np.maximum(x, 0), (x > 0,)


def relu_backward(dy: Array, cache: Cache) -> Array:
    """Pass dy where x > 0, and 0 elsewhere, by choice also at 0: dy (any shape), cache -> dx."""
    (positive,) = cache
    checks.gradient("relu_backward", dy, positive.shape)
    return dy * positive


def max_pool_forward(x: Array, size: int, stride: int, pad: int = 0) -> tuple:
    """Take the largest value of each size x size window. Ties go to the first, row by row.

    x (N, H, W, C), size, stride, pad -> y (N, OH, OW, C), cache
    """
    checks.max_pool(x, size, stride, pad)
    N, H, W, C = x.shape
    OH, OW = output_shape(x, size, size, stride, pad)
    xpad = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-np.inf)
    windows = im2col(xpad, size, size, stride).reshape(N, OH, OW, size * size, C)
    y = windows.max(axis=3)  # (N, OH, OW, C)
    inside = im2col(np.ones((1, H, W, 1), bool), size, size, stride, pad)  # a border never wins
    largest = (windows == y[:, :, :, None]) & inside.reshape(1, OH, OW, size * size, 1)
    winner = largest.argmax(axis=3)  # (N, OH, OW, C): p * size + q of the first largest
    return y, (winner, x.shape, size, stride, pad)


def max_pool_backward(dy: Array, cache: Cache) -> Array:
    """Add each dy to the pixel that won its window: dy (N, OH, OW, C), cache -> dx (N, H, W, C)."""
    winner, (_, H, W, C), size, stride, pad = cache
    checks.gradient("max_pool_backward", dy, winner.shape)
    N, OH, OW, _ = dy.shape
    won = winner[:, :, :, None] == np.arange(size * size)[:, None]  # (N, OH, OW, size * size, C)
    dwindows = (dy[:, :, :, None] * won).reshape(N, OH, OW, size, size, C)
    return col2im(dwindows, H, W, stride, pad)


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
    """K weighted sums of the C features, plus b: x (N, C), w (C, K), b (K,) -> y (N, K), cache."""
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

    For a row z of logits, p = exp(z) / sum(exp(z)) and -log p[label] = log(sum(exp(z))) - z[label].
    Its derivative with respect to z[k] is p[k], minus 1 if k is the label; the mean divides by N.
    """
    checks.labels(logits, labels)
    rows = np.arange(len(logits))
    shifted = logits - logits.real.max(axis=1, keepdims=True)  # same p, and exp cannot overflow
    exp = np.exp(shifted)  # (N, K)
    total = exp.sum(axis=1, keepdims=True)  # (N, 1)
    loss = (np.log(total[:, 0]) - shifted[rows, labels]).mean()
    dlogits = exp / total  # p, (N, K)
    dlogits[rows, labels] -= 1
    return loss, dlogits / len(logits)
