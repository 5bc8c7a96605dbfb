"""The mathematics of training a ResNet: every forward pass with its backward pass directly below.

Activations are NHWC, filters (KH, KW, C, K). `dx` is the gradient of the loss with respect to `x`.
A forward returns its result and a `cache`, the tuple that its backward needs; no op changes its
arguments or returns a view of them. Do not modify arguments or results before backward has run:
the cache may hold them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minires.ops import checks
from minires.ops.geometry import Pair, channel_groups, pair

Array = np.ndarray
Cache = tuple

CHUNK_BYTES = 1 << 22  # windows unrolled at a time, so that they stay in the processor's cache

# ------------------------------------------------------------------------------ windows <-> columns


def im2col(x: Array, KH: int, KW: int, stride: int | Pair = 1, pad: int | Pair = 0) -> Array:
    """Copy out every window that a KH x KW kernel sees.

    cols[n, i, j, p, q, c] = xpad[n, i*stride + p, j*stride + q, c]

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C)
    KH, KW : int
        Kernel rows and columns.
    stride, pad : int, or (rows, columns)
        Step, and zeros added on every side. Pixels that no full window covers are left out.

    Returns
    -------
    cols : ndarray of shape (N, OH, OW, KH, KW, C)
    """
    SH, SW = pair(stride)
    PH, PW = pair(pad)
    xpad = np.pad(x, ((0, 0), (PH, PH), (PW, PW), (0, 0)))
    windows = sliding_window_view(xpad, (KH, KW), axis=(1, 2))  # (N, rows, columns, C, KH, KW)
    windows = windows[:, ::SH, ::SW]  # (N, OH, OW, C, KH, KW)
    return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3))


def col2im(cols: Array, H: int, W: int, stride: int | Pair = 1, pad: int | Pair = 0) -> Array:
    """Add every window back to where it was read.

    The adjoint of `im2col`: <im2col(x), cols> = <x, col2im(cols)>.

    Parameters
    ----------
    cols : ndarray of shape (N, OH, OW, KH, KW, C)
    H, W : int
        Size of the image that the windows were read from.
    stride, pad : int, or (rows, columns)

    Returns
    -------
    x : ndarray of shape (N, H, W, C)
        A pixel that k windows cover is the sum of k values.
    """
    N, OH, OW, KH, KW, C = cols.shape
    SH, SW = pair(stride)
    PH, PW = pair(pad)
    xpad = np.zeros((N, H + 2 * PH, W + 2 * PW, C), cols.dtype)
    for p in range(KH):
        for q in range(KW):
            xpad[:, p : p + SH * OH : SH, q : q + SW * OW : SW] += cols[:, :, :, p, q]
    return xpad[:, PH : PH + H, PW : PW + W]


def _pieces(x: Array, w: Array, OH: int, OW: int) -> Iterator[tuple[slice, slice, slice]]:
    """Slices of images, of the channels of one group, and of the filters that see these."""
    KH, KW, _, K = w.shape
    N, _, _, C = x.shape
    step = max(1, CHUNK_BYTES // (OH * OW * KH * KW * C * x.itemsize))
    for n in range(0, N, step):
        for c, k in channel_groups(C, K, C // w.shape[2]):
            yield slice(n, n + step), c, k


# -------------------------------------------------------------------------------------- convolution


def conv2d_forward(
    x: Array, w: Array, stride: int | Pair = 1, pad: int | Pair = 0, groups: int = 1
) -> tuple[Array, Cache]:
    """Slide K filters over each image, which is one matrix product of windows and filters.

    y[n, i, j, k] = sum_pqc xpad[n, i*stride + p, j*stride + q, c] w[p, q, c, k]

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C)
    w : ndarray of shape (KH, KW, C, K), same dtype
    stride, pad : int, or (rows, columns)
    groups : int
        Channels and filters are divided into this many groups; filters see the channels of their
        own group only: w has the shape (KH, KW, C / groups, K).

    Returns
    -------
    y : ndarray of shape (N, OH, OW, K), with OH = (H + 2 pad - KH) // stride + 1
    cache : tuple

    Raises
    ------
    InputError
        If shapes or dtypes do not fit, or the batch is empty.
    """
    _, OH, OW, K = shape = checks.conv2d(x, w, stride, pad, groups)
    KH, KW, C, _ = w.shape  # C channels in a group
    y = np.empty(shape, x.dtype)
    for n, c, k in _pieces(x, w, OH, OW):
        cols = im2col(x[n, :, :, c], KH, KW, stride, pad).reshape(-1, KH * KW * C)  # a row a pixel
        np.matmul(cols, w[..., k].reshape(KH * KW * C, -1), out=y[n].reshape(-1, K)[:, k])
    return y, (x, w, stride, pad)


def conv2d_backward(
    dy: Array, cache: Cache, input_gradient: bool = True
) -> tuple[Array | None, Array]:
    """Gradients of y = im2col(x) @ w: dw = im2col(x)^T @ dy and dx = col2im(dy @ w^T).

    Parameters
    ----------
    dy : ndarray of shape (N, OH, OW, K)
    cache : tuple
    input_gradient : bool
        False leaves out dx, which is None then: nobody needs the gradient of the images.

    Returns
    -------
    dx : ndarray of shape (N, H, W, C)
    dw : ndarray of shape (KH, KW, C, K)
    """
    x, w, stride, pad = cache
    checks.conv2d_backward(dy, cache)
    _, H, W, _ = x.shape
    _, OH, OW, _ = dy.shape
    KH, KW, C, _ = w.shape  # C channels in a group
    dx = np.empty_like(x, order="C") if input_gradient else None
    dw = np.zeros(w.shape, w.dtype)
    wT = w.transpose(0, 1, 3, 2)  # (KH, KW, K, C)
    for n, c, k in _pieces(x, w, OH, OW):
        cols = im2col(x[n, :, :, c], KH, KW, stride, pad).reshape(-1, KH * KW * C)  # a row a pixel
        dy_rows = dy[n, :, :, k].reshape(len(cols), -1)
        dw[..., k] += (cols.T @ dy_rows).reshape(KH, KW, C, -1)
        if dx is not None:
            dcols = (dy_rows @ wT[:, :, k]).reshape(KH, KW, -1, OH, OW, C)
            dx[n, :, :, c] = col2im(dcols.transpose(2, 3, 4, 0, 1, 5), H, W, stride, pad)
    return dx, dw


# ------------------------------------------------------------------------------ batch normalisation


def _channel_sum(x: Array) -> Array:
    """Sum over all axes but the last.

    Over images first: inner loops are long, and float32 sums stay short.
    """
    return x.reshape(len(x), -1).sum(axis=0).reshape(-1, x.shape[-1]).sum(axis=0)


def batchnorm_forward(
    x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array, Cache]:
    """Give each channel mean beta and standard deviation |gamma|: y = gamma * xhat + beta.

    xhat = (x - mean) / sqrt(var + eps), with mean and variance over N, H, W (Ioffe & Szegedy 2015,
    algorithm 1).

    Parameters
    ----------
    x : ndarray of shape (N, ..., C)
    gamma, beta : ndarray of shape (C,)
    eps : float

    Returns
    -------
    y : ndarray of the shape of x
    mean, var : ndarray of shape (C,)
        `var` is the biased variance, divided by the number M of values in a channel.
    cache : tuple

    Raises
    ------
    InputError
        If shapes or dtypes do not fit, or the batch is empty.
    """
    checks.batchnorm(x, eps, gamma=gamma, beta=beta)
    M = x.size // x.shape[-1]  # values in a channel
    mean = _channel_sum(x) / M
    centred = x - mean
    var = _channel_sum(centred * centred) / M
    inv_std = 1 / np.sqrt(var + eps)
    xhat = centred * inv_std
    return gamma * xhat + beta, mean, var, (xhat, gamma, inv_std)


def batchnorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Gradients through y, and through the mean and the variance, which depend on every x.

    dx = gamma / sqrt(var + eps) * (dy - sum(dy) / M - xhat * sum(dy * xhat) / M), so the sum of dx
    over a channel is 0.

    Parameters
    ----------
    dy : ndarray of shape (N, ..., C)
    cache : tuple

    Returns
    -------
    dx : ndarray of the shape of dy
    dgamma, dbeta : ndarray of shape (C,)
    """
    xhat, gamma, inv_std = cache
    checks.same_shape("batchnorm_backward", "dy", dy, xhat.shape)
    M = dy.size // dy.shape[-1]
    dbeta = _channel_sum(dy)
    dgamma = _channel_sum(dy * xhat)
    dx = gamma * inv_std * (dy - dbeta / M - xhat * (dgamma / M))
    return dx, dgamma, dbeta


def batchnorm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
) -> Array:
    """Normalise by fixed statistics: y = gamma * (x - mean) / sqrt(var + eps) + beta.

    No statistics of the batch are needed, so this works on a single image.

    Parameters
    ----------
    x : ndarray of shape (N, ..., C)
    gamma, beta, mean, var : ndarray of shape (C,)
    eps : float

    Returns
    -------
    y : ndarray of the shape of x
    """
    checks.batchnorm(x, eps, gamma=gamma, beta=beta, mean=mean, var=var)
    scale = gamma / np.sqrt(var + eps)
    return x * scale + (beta - mean * scale)


# --------------------------------------------------------------------------------------------- ReLU


def relu_forward(x: Array) -> tuple[Array, Cache]:
    """Keep what is positive: y = max(x, 0).

    Parameters
    ----------
    x : ndarray of any shape

    Returns
    -------
    y : ndarray of the shape of x
    cache : tuple
    """
    checks.arrays("relu", x=x)
    return np.maximum(x, 0), (x > 0,)


def relu_backward(dy: Array, cache: Cache) -> Array:
    """Pass the gradient where x was positive: dx = dy * (x > 0).

    Parameters
    ----------
    dy : ndarray of the shape of x
    cache : tuple

    Returns
    -------
    dx : ndarray of the shape of x
    """
    (positive,) = cache
    checks.same_shape("relu_backward", "dy", dy, positive.shape)
    return dy * positive


# ------------------------------------------------------------------------------------------ pooling


def max_pool_forward(x: Array, size: int, stride: int, pad: int = 0) -> tuple[Array, Cache]:
    """Keep the largest value of each window.

    y[n, i, j, c] = max_pq xpad[n, i*stride + p, j*stride + q, c]

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C)
    size, stride, pad : int
        The window is size x size; the padding is -inf and wins only over pixels that are all -inf.

    Returns
    -------
    y : ndarray of shape (N, OH, OW, C)
    cache : tuple

    Raises
    ------
    InputError
        If the window does not fit, or could lie in the padding altogether.
    """
    shape = checks.max_pool(x, size, stride, pad)
    xpad = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-np.inf)
    windows = im2col(xpad, size, size, stride).reshape(*shape[:3], size * size, -1)
    winner = windows.argmax(axis=3)  # (N, OH, OW, C), the first of equals
    y = np.take_along_axis(windows, winner[:, :, :, None], axis=3)[:, :, :, 0]
    return y, (winner, x.shape, size, stride, pad)


def max_pool_backward(dy: Array, cache: Cache) -> Array:
    """Send each gradient to the pixel that won its window; windows that overlap add up.

    Parameters
    ----------
    dy : ndarray of shape (N, OH, OW, C)
    cache : tuple

    Returns
    -------
    dx : ndarray of shape (N, H, W, C)
    """
    winner, (_, H, W, C), size, stride, pad = cache
    checks.same_shape("max_pool_backward", "dy", dy, winner.shape)
    won = winner[:, :, :, None] == np.arange(size * size)[:, None]  # (N, OH, OW, size*size, C)
    dwindows = (dy[:, :, :, None] * won).reshape(*dy.shape[:3], size, size, C)
    return np.ascontiguousarray(col2im(dwindows, H, W, stride, pad))


def global_avg_pool_forward(x: Array) -> tuple[Array, Cache]:
    """Average each channel over the whole image: y[n, c] = sum_ij x[n, i, j, c] / (H W).

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C)

    Returns
    -------
    y : ndarray of shape (N, C)
    cache : tuple
    """
    checks.arrays("global_avg_pool", checks.SMOOTH, x=x)
    checks.rank("global_avg_pool", "x", x, "N, H, W, C")
    return x.mean(axis=(1, 2)), (x.shape,)


def global_avg_pool_backward(dy: Array, cache: Cache) -> Array:
    """Share each gradient among the pixels it was averaged from: dx[n, i, j, c] = dy[n, c] / (H W).

    Parameters
    ----------
    dy : ndarray of shape (N, C)
    cache : tuple

    Returns
    -------
    dx : ndarray of shape (N, H, W, C)
    """
    ((N, H, W, C),) = cache
    checks.same_shape("global_avg_pool_backward", "dy", dy, (N, C))
    return np.broadcast_to((dy / (H * W))[:, None, None], (N, H, W, C)).copy()


# --------------------------------------------------------------------------------- linear, the loss


def linear_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """Affine map: y = x @ w + b.

    Parameters
    ----------
    x : ndarray of shape (N, C)
    w : ndarray of shape (C, K)
    b : ndarray of shape (K,)

    Returns
    -------
    y : ndarray of shape (N, K)
    cache : tuple
    """
    checks.linear(x, w, b)
    return x @ w + b, (x, w)


def linear_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Gradients of y = x @ w + b: dx = dy @ w^T, dw = x^T @ dy, db = the sum of dy over the batch.

    Parameters
    ----------
    dy : ndarray of shape (N, K)
    cache : tuple

    Returns
    -------
    dx : ndarray of shape (N, C)
    dw : ndarray of shape (C, K)
    db : ndarray of shape (K,)
    """
    x, w = cache
    checks.same_shape("linear_backward", "dy", dy, (len(x), w.shape[1]))
    return dy @ w.T, x.T @ dy, dy.sum(axis=0)


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Mean cross-entropy of the labels and its gradient.

    loss = -mean_n log p[n, labels[n]] with p = softmax(logits), and
    dlogits = (p - onehot(labels)) / N: push the true class up, and each other class down in
    proportion to its probability.

    Parameters
    ----------
    logits : ndarray of shape (N, K)
    labels : integer ndarray of shape (N,), values 0 .. K-1

    Returns
    -------
    loss : float
        In nats, a scalar of the logits' dtype; log(K) for a network that knows nothing.
    dlogits : ndarray of shape (N, K)

    Raises
    ------
    InputError
        If a label is out of range.
    """
    checks.labels(logits, labels)
    N = len(logits)
    rows = np.arange(N)
    z = logits - logits.real.max(axis=1, keepdims=True)  # exp cannot overflow
    exp = np.exp(z)
    total = exp.sum(axis=1, keepdims=True)
    loss = (np.log(total[:, 0]) - z[rows, labels]).mean()
    dlogits = exp / total
    dlogits[rows, labels] -= 1
    return loss, dlogits / N
