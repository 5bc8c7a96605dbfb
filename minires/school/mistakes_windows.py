"""Mistakes in functions that look at an image through windows: see `minires.school.mistakes`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minires.ops.numpy_ops import col2im, im2col

Array = np.ndarray


def padded(x: Array, before: int, after: int, mode: Any = "constant", **more: Any) -> Array:
    """Pad the rows and the columns of images."""
    return np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)), mode, **more)


PADDINGS: dict[str, Callable[[Array, int], Array]] = {
    "with all of the padding at the bottom and the right": lambda x, pad: padded(x, 0, 2 * pad),
    "with all of the padding at the top and the left": lambda x, pad: padded(x, 2 * pad, 0),
    "with a padding of copies of the border, not of zeros": lambda x, pad: padded(
        x, pad, pad, "edge"
    ),
    "with a padding of ones, not of zeros": lambda x, pad: padded(x, pad, pad, constant_values=1),
    "with a padding that reflects the image, not of zeros": lambda x, pad: padded(
        x, pad, pad, "reflect"
    ),
}

# on windows of shape (N, OH, OW, KH, KW, C)
ORDERS: dict[str, Callable[[Array], Array]] = {
    "with rows and columns inside each window swapped": lambda a: a.swapaxes(3, 4),
    "with each window flipped in both directions": lambda a: a[:, :, :, ::-1, ::-1],
    "with the rows of each window flipped": lambda a: a[:, :, :, ::-1],
    "with the columns of each window flipped": lambda a: a[:, :, :, :, ::-1],
    "with rows and columns of the windows' places swapped": lambda a: a.swapaxes(1, 2),
    "with each window laid out as (C, KH, KW), not as (KH, KW, C)": lambda a: a.transpose(
        0, 1, 2, 5, 3, 4
    ),
    "with the images and the rows mixed up": lambda a: a.swapaxes(0, 1),
}

# on filters of shape (KH, KW, C, K)
FILTERS: dict[str, Callable[[Array], Array]] = {
    "with rows and columns of the kernel swapped": lambda w: w.swapaxes(0, 1),
    "with the kernel flipped in both directions": lambda w: w[::-1, ::-1],
    "with the rows of the kernel flipped": lambda w: w[::-1],
    "with the columns of the kernel flipped": lambda w: w[:, ::-1],
    "with the filters reshaped to (K, -1) and transposed: their axis K is the last": lambda w: (
        w.reshape(w.shape[3], -1).T
    ),
    "with the filters as (C, KH, KW, K), not as (KH, KW, C, K)": lambda w: w.transpose(2, 0, 1, 3),
    "with channels and filters of w swapped": lambda w: w.swapaxes(2, 3),
    "with the first channel only": lambda w: np.where(np.arange(w.shape[2])[:, None] == 0, w, 0),
    "with the first pixel of the kernel only": lambda w: np.where(
        np.arange(w.shape[0] * w.shape[1]).reshape(*w.shape[:2], 1, 1) == 0, w, 0
    ),
}


def _reordered(order: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Change the order of the elements, and reshape the result to the old shape."""
    return lambda a: np.ascontiguousarray(order(a)).reshape(a.shape)


def _conv(x: Array, w: Array, stride: int) -> Array:
    """Convolution without padding."""
    KH, KW, _, K = w.shape
    cols = im2col(x, KH, KW, stride)
    return (cols.reshape(-1, w.size // K) @ w.reshape(-1, K)).reshape(*cols.shape[:3], K)


def _on_padding(pad: Callable[[Array, int], Array]) -> tuple[Any, Any]:
    def im2col_(x: Array, KH: int, KW: int, stride: int = 1, pad_: int = 0, **more: int) -> Array:
        return im2col(pad(x, more.get("pad", pad_)), KH, KW, stride)

    def conv(x: Array, w: Array, stride: int = 1, pad_: int = 0, **more: int) -> Any:
        y = _conv(pad(x, more.get("pad", pad_)), w, stride)
        return y, (x, w, stride, more.get("pad", pad_))

    return im2col_, conv


def _on_windows(order: Callable[[Array], Array]) -> tuple[Any, Any]:
    change = _reordered(order)

    def im2col_(x: Array, KH: int, KW: int, stride: int = 1, pad: int = 0) -> Array:
        return change(im2col(x, KH, KW, stride, pad))

    def col2im_(cols: Array, H: int, W: int, stride: int = 1, pad: int = 0) -> Array:
        return col2im(change(cols), H, W, stride, pad)

    return im2col_, col2im_


def _on_filters(order: Callable[[Array], Array]) -> tuple[Any, Any]:
    change = _reordered(order)

    def forward(x: Array, w: Array, stride: int = 1, pad: int = 0) -> Any:
        return _conv(padded(x, pad, pad), change(w), stride), (x, w, stride, pad)

    def backward(dy: Array, cache: tuple) -> Any:
        x, w, stride, pad = cache
        _, dw = _gradients(dy, x, w, stride, pad)
        return _gradients(dy, x, change(w), stride, pad)[0], change(dw)

    return forward, backward


def _gradients(dy: Array, x: Array, w: Array, stride: int, pad: int) -> tuple[Array, Array]:
    KH, KW, _, K = w.shape
    cols = im2col(x, KH, KW, stride, pad)
    rows = dy.reshape(-1, K)
    dw = (cols.reshape(len(rows), -1).T @ rows).reshape(w.shape)
    dcols = (rows @ w.reshape(-1, K).T).reshape(*cols.shape)
    return col2im(dcols, x.shape[1], x.shape[2], stride, pad), dw


# ------------------------------------------------------------------------------ windows put back


def _average(cols: Array, H: int, W: int, stride: int = 1, pad: int = 0) -> Array:
    total = col2im(cols, H, W, stride, pad)
    return total / np.maximum(col2im(np.ones_like(cols), H, W, stride, pad), 1)


def _put_back(cols: Array, H: int, W: int, stride: int, pad: int, add: Any) -> Array:
    N, OH, OW, KH, KW, C = cols.shape
    x = np.zeros((N, H + 2 * pad, W + 2 * pad, C), cols.dtype)
    for p in range(KH):
        for q in range(KW):
            part = x[:, p : p + stride * OH : stride, q : q + stride * OW : stride]
            part[...] = add(part, cols[:, :, :, p, q])
    return x


def _overwritten(cols: Array, H: int, W: int, stride: int = 1, pad: int = 0) -> Array:
    x = _put_back(cols, H, W, stride, pad, lambda old, new: new)
    return x[:, pad : pad + H, pad : pad + W]


def _largest(cols: Array, H: int, W: int, stride: int = 1, pad: int = 0) -> Array:
    x = _put_back(cols, H, W, stride, pad, np.maximum)
    return x[:, pad : pad + H, pad : pad + W]


def _not_cropped(cols: Array, H: int, W: int, stride: int = 1, pad: int = 0) -> Array:
    return _put_back(cols, H, W, stride, pad, np.add)[:, :H, :W]


def _in_conv(put_back: Any) -> Any:
    """Use another col2im in the backward of a convolution."""

    def backward(dy: Array, cache: tuple) -> Any:
        x, w, stride, pad = cache
        KH, KW, C, K = w.shape
        dcols = (dy.reshape(-1, K) @ w.reshape(-1, K).T).reshape(*dy.shape[:3], KH, KW, C)
        dw = _gradients(dy, x, w, stride, pad)[1]
        return put_back(dcols, x.shape[1], x.shape[2], stride, pad), dw

    return backward


def _in_pooling(put_back: Any, share: Any = None) -> Any:
    """Use another col2im, or another share of the windows' gradients, in max pooling."""

    def backward(dy: Array, cache: tuple) -> Array:
        winner, (_, H, W, C), size, stride, pad = cache
        won = winner[:, :, :, None] == np.arange(size * size)[:, None]
        if share is not None:
            won = share(won, size)
        dwindows = (dy[:, :, :, None] * won).reshape(*dy.shape[:3], size, size, C)
        return put_back(dwindows.astype(dy.dtype), H, W, stride, pad)

    return backward


def _winners_overwritten(dy: Array, cache: tuple) -> Array:
    """Assign, where gradients of windows that share a winner must add up."""
    winner, (N, H, W, C), size, stride, pad = cache
    dx = np.zeros((N, H + 2 * pad, W + 2 * pad, C), dy.dtype)
    n, i, j, c = np.indices(dy.shape)
    dx[n, i * stride + winner // size, j * stride + winner % size, c] = dy
    return dx[:, pad : pad + H, pad : pad + W]


PUT_BACK: dict[str, Any] = {
    "averaged, not added up, where windows overlap": _average,
    "with windows that overlap overwriting each other": _overwritten,
    "with the largest, not the sum, where windows overlap": _largest,
    "with the padding's rows and columns not cropped at the top and the left": _not_cropped,
}

# ------------------------------------------------------------------------------------ max pooling


def _pool(
    best: Any = None, fill: Any = None, winner: Callable[[Array, int], Array] = lambda a, size: a
) -> Any:
    """Pool by `best` of each window, pad by `fill`, and store a changed winner."""

    def forward(x: Array, size: int, stride: int, pad: int = 0) -> Any:
        value = -np.inf if fill is None else fill(x)
        xpad = padded(x, pad, pad, constant_values=value)
        windows = im2col(xpad, size, size, stride)
        windows = windows.reshape(*windows.shape[:3], size * size, -1)
        y = windows.max(axis=3) if best is None else best(windows).astype(x.dtype)
        return y, (winner(windows.argmax(axis=3), size), x.shape, size, stride, pad)

    return forward


def _finite_mean(windows: Array) -> Array:
    return np.where(np.isfinite(windows), windows, 0).mean(axis=3)


POOLS = {
    "with the mean of each window, not the largest value": _pool(_finite_mean),
    "with the sum of each window, not the largest value": _pool(
        lambda a: np.where(np.isfinite(a), a, 0).sum(axis=3)
    ),
    "with the smallest value of each window": _pool(lambda a: a.min(axis=3)),
    "with the largest absolute value of each window": _pool(lambda a: abs(a).max(axis=3)),
    "with the first pixel of each window": _pool(lambda a: a[:, :, :, 0]),
    "with the middle pixel of each window": _pool(lambda a: a[:, :, :, a.shape[3] // 2]),
    "with a padding of 0, which wins over negative pixels": _pool(fill=lambda x: 0),
    "with a padding of the smallest x, which wins nothing but is no -inf": _pool(
        fill=lambda x: x.min()
    ),
    "with rows and columns of the winner swapped": _pool(
        winner=lambda a, size: a % size * size + a // size
    ),
    "with a winner counted from 1": _pool(winner=lambda a, size: a + 1),
    "with a winner of 8 bits, too few for a large window": _pool(
        winner=lambda a, size: a.astype(np.int8)
    ),
    "with an unsigned winner of 8 bits, too few for a large window": _pool(
        winner=lambda a, size: a.astype(np.uint8)
    ),
    "with all winners 0": _pool(winner=lambda a, size: 0 * a),
} | {
    f"with a padding of {value:g}, which wins over smaller pixels": _pool(
        fill=lambda x, value=value: value
    )
    for value in (-1, -10, -100, -999, -1000, -9999, -1e4, -1e5, -1e6, -1e9, -1e10, -1e20, -1e30)
}

SHARES = {
    "with the gradient given to every pixel of the window": lambda won, size: np.ones_like(won),
    "with the gradient shared by all pixels of the window, as for an average": lambda won, size: (
        np.full_like(won, 1 / size**2, np.float64)
    ),
    "with rows and columns inside the window swapped": lambda won, size: (
        won.reshape(*won.shape[:3], size, size, -1).swapaxes(3, 4).reshape(won.shape)
    ),
    "with the gradient given to the first pixel of the window": lambda won, size: (
        (np.arange(size * size)[:, None] == 0) & np.ones_like(won)
    ),
    "with the window flipped": lambda won, size: won[:, :, :, ::-1],
}

MISTAKES: dict[str, dict[str, Any]] = {
    "im2col": {says: _on_padding(pad)[0] for says, pad in PADDINGS.items()}
    | {says: _on_windows(order)[0] for says, order in ORDERS.items()},
    "col2im": PUT_BACK | {says: _on_windows(order)[1] for says, order in ORDERS.items()},
    "conv2d_forward": {says: _on_padding(pad)[1] for says, pad in PADDINGS.items()}
    | {says: _on_filters(change)[0] for says, change in FILTERS.items()},
    "conv2d_backward": {says: _in_conv(put_back) for says, put_back in PUT_BACK.items()}
    | {says: _on_filters(change)[1] for says, change in FILTERS.items()},
    "max_pool_forward": POOLS,
    "max_pool_backward": {says: _in_pooling(put_back) for says, put_back in PUT_BACK.items()}
    | {says: _in_pooling(col2im, share) for says, share in SHARES.items()}
    | {"with windows that share a winner overwriting each other": _winners_overwritten},
}
