"""The mathematics of training a ResNet: every forward pass with its backward pass directly below it, in network order.

Activations are NHWC, filters (KH, KW, C, K). `dx` is the gradient of the loss with respect to `x`. A forward returns
its result and a `cache`, the tuple that its backward needs; no op changes its arguments or returns a view of them.
Until backward has run, neither those nor the result may be written to: a cache may hold them as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minires.ops import checks

Array = np.ndarray
Cache = tuple

CHUNK_BYTES = (
    1 << 22
)  # unrolled windows made at a time: they stay in the processor's cache, measured 1.5x faster

# ------------------------------------------------------------------------------------------------ windows <-> columns


def im2col(x: Array, KH: int, KW: int, stride: int = 1, pad: int = 0) -> Array:
    """Copy out every window a KH x KW kernel sees: cols[n, i, j, p, q, c] = xpad[n, i*stride + p, j*stride + q, c].

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C)
    KH, KW, stride, pad : int
        Kernel rows and columns, step, zeros added on every side. Pixels that no full window covers are left out.

    Returns
    -------
    cols : ndarray of shape (N, OH, OW, KH, KW, C)
    """
    xpad = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = sliding_window_view(xpad, (KH, KW), axis=(1, 2))[
        :, ::stride, ::stride
    ]  # (N, OH, OW, C, KH, KW)
    return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3))


def col2im(cols: Array, H: int, W: int, stride: int = 1, pad: int = 0) -> Array:
    """Add every window back to where it was read, the adjoint of `im2col`: <im2col(x), cols> = <x, col2im(cols)>.

    Parameters
    ----------
    cols : ndarray of shape (N, OH, OW, KH, KW, C)
    H, W : int
        Size of the image that the windows were read from.

    Returns
    -------
    x : ndarray of shape (N, H, W, C)
        A pixel that k windows cover is the sum of k values.
    """
    N, OH, OW, KH, KW, C = cols.shape
    xpad = np.zeros((N, H + 2 * pad, W + 2 * pad, C), cols.dtype)
    for p in range(KH):
        for q in range(KW):
            xpad[:, p : p + stride * OH : stride, q : q + stride * OW : stride] += cols[
                :, :, :, p, q
            ]
    return xpad[:, pad : pad + H, pad : pad + W]


def _chunks(N: int, bytes_per_image: int) -> Iterator[slice]:
    step = max(1, CHUNK_BYTES // bytes_per_image)
    return (slice(n, n + step) for n in range(0, N, step))


# -------------------------------------------------------------------------------------------------------- convolution


def conv2d_forward(x: Array, w: Array, stride: int = 1, pad: int = 0) -> tuple[Array, Cache]:
    """Slide K filters over each image: y[n, i, j, k] = sum_pqc xpad[n, i*stride + p, j*stride + q, c] w[p, q, c, k].

    With the windows laid out as rows this is one matrix product, and its result is the next activation as it stands.

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C)
    w : ndarray of shape (KH, KW, C, K), same dtype
    stride, pad : int

    Returns
    -------
    y : ndarray of shape (N, OH, OW, K), with OH = (H + 2 pad - KH) // stride + 1
    cache : tuple

    Raises
    ------
    InputError
        If shapes or dtypes do not fit, or the batch is empty.
    """
    y = np.empty(checks.conv2d(x, w, stride, pad), x.dtype)
    KH, KW, C, K = w.shape
    for part in _chunks(len(x), y[0, :, :, :1].size * w[..., 0].nbytes):
        cols = im2col(x[part], KH, KW, stride, pad).reshape(
            -1, KH * KW * C
        )  # a row per output pixel
        np.matmul(cols, w.reshape(-1, K), out=y[part].reshape(-1, K))
    return y, (x, w, stride, pad)


def conv2d_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """Gradients of y = im2col(x) @ w: dw = im2col(x)^T @ dy and dx = col2im(dy @ w^T).

    Parameters
    ----------
    dy : ndarray of shape (N, OH, OW, K)
    cache : tuple

    Returns
    -------
    dx : ndarray of shape (N, H, W, C)
    dw : ndarray of shape (KH, KW, C, K)
    """
    x, w, stride, pad = cache
    checks.same_shape("conv2d_backward", "dy", dy, checks.conv2d(x, w, stride, pad))
    (N, H, W, C), (_, OH, OW, K), (KH, KW, _, _) = x.shape, dy.shape, w.shape
    dx, dw = np.empty_like(x, order="C"), np.zeros((KH * KW * C, K), w.dtype)
    wT = w.transpose(0, 1, 3, 2)  # (KH, KW, K, C)
    for part in _chunks(N, OH * OW * w[..., 0].nbytes):
        dy_rows = dy[part].reshape(-1, K)  # a row per output pixel
        dw += im2col(x[part], KH, KW, stride, pad).reshape(-1, KH * KW * C).T @ dy_rows
        dcols = (dy_rows @ wT).reshape(KH, KW, -1, OH, OW, C).transpose(2, 3, 4, 0, 1, 5)
        dx[part] = col2im(dcols, H, W, stride, pad)
    return dx, dw.reshape(w.shape)


# ------------------------------------------------------------------------------------------------ batch normalisation


def _channel_sum(x: Array) -> Array:
    """Sum over all axes but the last: images first, so that inner loops are long and float32 sums stay short."""
    return x.reshape(len(x), -1).sum(axis=0).reshape(-1, x.shape[-1]).sum(axis=0)


def batchnorm_forward(
    x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array, Cache]:
    """Give each channel mean beta and standard deviation |gamma| over the batch: y = gamma * xhat + beta.

    xhat = (x - mean) / sqrt(var + eps), the statistics over N, H, W (Ioffe & Szegedy 2015, algorithm 1).

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
    """Gradients through y, and through the mean and the variance that each value of x moves a little.

    dx = gamma / sqrt(var + eps) * (dy - sum(dy) / M - xhat * sum(dy * xhat) / M), so the sum of dx over a channel is 0.

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
    """Normalise by fixed statistics: y = gamma * (x - mean) / sqrt(var + eps) + beta, an image alone is enough.

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


# --------------------------------------------------------------------------------------------------------------- ReLU


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


# ------------------------------------------------------------------------------------------------------------ pooling


def max_pool_forward(x: Array, size: int, stride: int, pad: int = 0) -> tuple[Array, Cache]:
    """Keep the largest value of each window: y[n, i, j, c] = max_pq xpad[n, i*stride + p, j*stride + q, c].

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


# --------------------------------------------------------------------------------------------------- linear, the loss


def linear_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """Weigh the features: y = x @ w + b.

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
    """Surprise at the true labels, loss = -mean_n log p[n, labels[n]] with p = softmax(logits), and its gradient.

    dlogits = (p - onehot(labels)) / N: push up the true class, push down the others by as much as they are believed.

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
    N, rows = len(logits), np.arange(len(logits))
    z = logits - logits.real.max(axis=1, keepdims=True)  # exp cannot overflow
    exp = np.exp(z)
    total = exp.sum(axis=1, keepdims=True)
    loss = (np.log(total[:, 0]) - z[rows, labels]).mean()
    dlogits = exp / total
    dlogits[rows, labels] -= 1
    return loss, dlogits / N
