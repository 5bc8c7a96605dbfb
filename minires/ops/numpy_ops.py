"""The mathematics of a ResNet: each forward pass, with its backward pass directly below it.

A batch x holds N images of H rows, W columns and C channels: x (N, H, W, C). A convolution has K
filters w (KH, KW, C, K). It multiplies every window of x, KH by KW pixels with their C channels, by
each filter and sums up: y (N, OH, OW, K), with OH = (H + 2 pad - KH) // stride + 1, OW likewise.
pad is the width of a border around x, stride the step from window to window; each is one number, or
a pair (rows, columns). Indices: image n, output row i and column j, row p and column q of a window,
channel c, filter k.

The loss L is one number. dx is its gradient dL/dx, an array of the same shape as x; likewise dy and
dw. A forward returns its results and a cache, the tuple that its backward needs. A backward
computes the gradients from dy and the cache. The sum y = a + b, in residual networks, needs no
function here: da = dy and db = dy.

Arrays are float32 or float64. A gradient check may add an imaginary number to x (lesson 2 shows the
complex step); `.real` in the loss serves it. Arguments that do not fit an op raise `InputError`. No
op changes its arguments. Do not change them, or results, before backward has run: the cache may
hold them.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minires.ops import checks
from minires.ops.geometry import Array, Cache, Size, output_shape, pair
from minires.ops.parts import backward_in_parts, forward_in_parts


def im2col(x: Array, KH: int, KW: int, stride: Size = 1, pad: Size = 0) -> Array:
    """Copy every KH x KW window of x; the name is short for "image to columns".

    x (N, H, W, C), KH, KW, stride, pad -> cols (N, OH, OW, KH, KW, C)

    cols[n, i, j, p, q, c] = xpad[n, i*SH + p, j*SW + q, c], where xpad is x with a border of zeros,
    PH rows and PW columns wide, and (SH, SW) is the stride. Pixels in no whole window are left out.
    """
    SH, SW = pair(stride)
    PH, PW = pair(pad)
    xpad = np.pad(x, ((0, 0), (PH, PH), (PW, PW), (0, 0)))  # (N, H + 2 PH, W + 2 PW, C)
    windows = sliding_window_view(xpad, (KH, KW), axis=(1, 2))  # at stride 1: (N, ., ., C, KH, KW)
    windows = windows[:, ::SH, ::SW]  # (N, OH, OW, C, KH, KW)
    return windows.transpose(0, 1, 2, 4, 5, 3).copy()  # (N, OH, OW, KH, KW, C)


def col2im(cols: Array, H: int, W: int, stride: Size = 1, pad: Size = 0) -> Array:
    """Add every window back to the pixels it was copied from: the backward of im2col.

    cols (N, OH, OW, KH, KW, C), H, W, stride, pad -> x (N, H, W, C)

    xpad[n, i*SH + p, j*SW + q, c] += cols[n, i, j, p, q, c], and the border is cut off at the end.
    im2col copies a pixel into each window that covers it. A pixel acts on L through each of these
    copies, so its gradient is the sum of theirs.
    """
    N, OH, OW, KH, KW, C = cols.shape
    SH, SW = pair(stride)
    PH, PW = pair(pad)
    xpad = np.zeros((N, H + 2 * PH, W + 2 * PW, C), cols.dtype)
    for p in range(KH):
        for q in range(KW):  # for one p and one q, no two windows share a pixel: += is safe
            xpad[:, p : p + SH * OH : SH, q : q + SW * OW : SW] += cols[:, :, :, p, q]
    return xpad[:, PH : PH + H, PW : PW + W]  # (N, H, W, C)


@forward_in_parts  # calls this for some of the images at a time, and joins the y
def conv2d_forward(x: Array, w: Array, stride: Size = 1, pad: Size = 0) -> tuple:
    """Multiply each window by each filter, element by element, and sum the products.

    x (N, H, W, C), w (KH, KW, C, K), stride, pad -> y (N, OH, OW, K), cache

    y[n, i, j, k] = sum over p, q, c of cols[n, i, j, p, q, c] w[p, q, c, k], cols = im2col(x, ...)

    Make each window a row of one matrix, and each filter a column of another, called W (not the
    width). Then the sum is a matrix product: y = rows @ W.
    groups : the decorator adds this. Each filter then sees C / groups channels, see `parts.py`.
    """
    KH, KW, C, K = w.shape
    cols = im2col(x, KH, KW, stride, pad)  # (N, OH, OW, KH, KW, C)
    rows = cols.reshape(-1, KH * KW * C)  # (N*OH*OW, KH*KW*C)
    W = w.reshape(KH * KW * C, K)
    y = rows @ W  # (N*OH*OW, K)
    return y.reshape(*cols.shape[:3], K), (x, w, stride, pad)


@backward_in_parts  # calls this for the same images at a time; joins the dx, adds up the dw
def conv2d_backward(dy: Array, cache: Cache, input_gradient: bool = True) -> tuple:
    """Differentiate y = rows @ W, then go from rows back to the pixels.

    dy (N, OH, OW, K), cache -> dx (N, H, W, C), dw (KH, KW, C, K)

    dw[p, q, c, k] = sum over n, i, j of cols[n, i, j, p, q, c] dy[n, i, j, k]: every window uses w
    dcols[n, i, j, p, q, c] = sum over k of dy[n, i, j, k] w[p, q, c, k]: every filter uses cols
    dx = col2im(dcols)
    input_gradient : if False, dx is None. The first layer needs no gradient with respect to images.
    """
    x, w, stride, pad = cache
    KH, KW, C, K = w.shape
    N, OH, OW, _ = dy.shape
    rows = im2col(x, KH, KW, stride, pad).reshape(-1, KH * KW * C)  # as in forward
    W = w.reshape(KH * KW * C, K)
    dy_rows = dy.reshape(-1, K)  # (N*OH*OW, K)
    dW = rows.T @ dy_rows  # (KH*KW*C, K)
    dw = dW.reshape(KH, KW, C, K)
    if not input_gradient:
        return None, dw
    drows = dy_rows @ W.T  # (N*OH*OW, KH*KW*C)
    dcols = drows.reshape(N, OH, OW, KH, KW, C)
    return col2im(dcols, x.shape[1], x.shape[2], stride, pad), dw


def batchnorm_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple:
    """Normalise each channel by its mean and variance over the batch (Ioffe & Szegedy 2015).

    x (N, ..., C), gamma (C,), beta (C,), eps -> y (N, ..., C), mean (C,), var (C,), cache

    y = gamma * xhat + beta, with xhat = (x - mean) / sqrt(var + eps). mean is the mean of the M
    values of a channel, M = N*H*W for images; var is the mean of their (x - mean)^2. The small
    number eps keeps the root above 0. Training keeps averages of mean and var for inference.
    """
    eps = checks.batchnorm(x, eps, gamma=gamma, beta=beta)
    M = x.size // x.shape[-1]
    mean = _channel_sum(x) / M  # (C,)
    centred = x - mean  # (N, ..., C)
    var = _channel_sum(centred * centred) / M  # (C,)
    inv_std = 1 / np.sqrt(var + eps)  # (C,)
    xhat = centred * inv_std  # (N, ..., C)
    return gamma * xhat + beta, mean, var, (xhat, gamma, inv_std)


def batchnorm_backward(dy: Array, cache: Cache) -> tuple:
    """Add up the three paths from x to the loss: direct, through the mean, through the variance.

    dy (N, ..., C), cache -> dx (N, ..., C), dgamma (C,), dbeta (C,)

    From y = gamma xhat + beta: dbeta = sum(dy), dgamma = sum(dy xhat) and dxhat = gamma dy, where
    xhat = (x - mean) inv_std and inv_std = 1 / sqrt(var + eps). A small change e in one x changes
    - its own xhat by inv_std e;
    - the mean by e / M, and so all M values of xhat by -inv_std e / M; xhat' is any one of them;
    - var by 2 (x - mean) e / M (the change of the mean adds 0, as sum(x - mean) = 0), inv_std by
      -inv_std^3 (x - mean) e / M, and so each xhat', its own too, by -inv_std xhat xhat' e / M.
    Each change of an xhat' times its gradient gamma dy', summed over all xhat', is dx e.
    """
    xhat, gamma, inv_std = cache
    checks.gradient("batchnorm_backward", dy, xhat.shape, xhat.dtype)
    M = dy.size // dy.shape[-1]
    dbeta = _channel_sum(dy)  # (C,)
    dgamma = _channel_sum(dy * xhat)  # (C,)
    direct = dy  # (N, ..., C); the factor gamma inv_std, in all terms, comes last
    through_mean = -dbeta / M  # (C,): minus the mean of dy
    through_var = -xhat * (dgamma / M)  # (N, ..., C): minus xhat times the mean of dy * xhat
    dx = gamma * inv_std * (direct + through_mean + through_var)
    return dx, dgamma, dbeta


def batchnorm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
) -> Array:
    """Normalise by statistics kept from training: y = gamma * (x - mean) / sqrt(var + eps) + beta.

    x (N, ..., C), gamma (C,), beta (C,), mean (C,), var (C,), eps -> y (N, ..., C)
    """
    eps = checks.batchnorm(x, eps, gamma=gamma, beta=beta, mean=mean, var=var)
    scale = gamma / np.sqrt(var + eps)  # (C,)
    shift = beta - mean * scale  # (C,)
    return x * scale + shift


def _channel_sum(x: Array) -> Array:
    """Sum over all axes but the last, images first: two short sums round less than one long sum."""
    return x.reshape(len(x), -1).sum(axis=0).reshape(-1, x.shape[-1]).sum(axis=0)  # (C,)


def relu_forward(x: Array) -> tuple:
    """Replace negative values by 0, y = max(x, 0): x (any shape) -> y, cache."""
    checks.relu(x)
    return np.maximum(x, 0), (x > 0,)


def relu_backward(dy: Array, cache: Cache) -> Array:
    """Pass dy where x > 0 and 0 elsewhere (0 at x = 0 is a choice): dy (any shape), cache -> dx."""
    (positive,) = cache
    checks.gradient("relu_backward", dy, positive.shape)
    return dy * positive


def max_pool_forward(x: Array, size: int, stride: int, pad: int = 0) -> tuple:
    """Take each channel's largest value in every window; ties go to the first, row by row.

    x (N, H, W, C), size, stride, pad (numbers) -> y (N, OH, OW, C), cache
    """
    checks.max_pool(x, size, stride, pad)
    N, H, W, C = x.shape
    OH, OW = output_shape(x, size, size, stride, pad)
    xpad = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-np.inf)
    windows = im2col(xpad, size, size, stride).reshape(N, OH, OW, size * size, C)
    y = windows.max(axis=3)  # (N, OH, OW, C)
    # the border is -inf; where a whole window of x is -inf too, the tie must go to a pixel of x
    inside = im2col(np.ones((1, H, W, 1), bool), size, size, stride, pad)
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
    checks.gradient("linear_backward", dy, (len(x), w.shape[1]), x.dtype)
    dx = dy @ w.T  # dx[n, c] = sum_k dy[n, k] w[c, k]
    dw = x.T @ dy  # dw[c, k] = sum_n x[n, c] dy[n, k]
    db = dy.sum(axis=0)  # b was added to every row
    return dx, dw, db


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple:
    """Mean of -log p[label] over the batch, where p is the softmax of a row of logits.

    logits (N, K), labels (N,) integers 0 .. K-1 -> loss, dlogits (N, K)

    For a row z of logits, p = exp(z) / sum(exp(z)) and -log p[label] = log(sum(exp(z))) - z[label].
    Its derivative with respect to z[k] is p[k], minus 1 if k is the label. The mean divides by N.
    """
    checks.labels(logits, labels)
    each = np.arange(len(logits))
    shifted = logits - logits.real.max(axis=1, keepdims=True)  # cancels in p; exp cannot overflow
    exp = np.exp(shifted)  # (N, K)
    total = exp.sum(axis=1, keepdims=True)  # (N, 1)
    loss = (np.log(total[:, 0]) - shifted[each, labels]).mean()
    dlogits = exp / total  # p, (N, K)
    dlogits[each, labels] -= 1
    return loss, dlogits / len(logits)
