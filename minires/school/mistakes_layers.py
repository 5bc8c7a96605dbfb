"""Mistakes in ReLU, average pooling, linear layer and loss: see `minires.school.mistakes`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray


def _relu(y: Callable[[Array], Array], mask: Callable[[Array], Array] = lambda x: x > 0) -> Any:
    return lambda x: (y(x), (mask(x),))


def _pairs(y: Callable[..., Any]) -> Any:
    return lambda x, w, b: (y(x, w, b), (x, w))


def _linear_backward(dx: Any = None, dw: Any = None, db: Any = None) -> Any:
    def backward(dy: Array, cache: tuple) -> Any:
        x, w = cache
        return (
            dx(dy, x, w) if dx else dy @ w.T,
            dw(dy, x, w) if dw else x.T @ dy,
            db(dy, x, w) if db else dy.sum(axis=0),
        )

    return backward


def _softmax(
    shift: Callable[[Array], Any] = lambda a: a.max(axis=1, keepdims=True),
    loss: Callable[..., Any] | None = None,
    gradient: Callable[..., Any] | None = None,
    axis: int = 1,
) -> Any:
    def function(logits: Array, labels: Array) -> Any:
        rows = np.arange(len(logits))
        z = logits - shift(logits)
        e = np.exp(z)
        p = e / e.sum(axis=axis, keepdims=True)
        onehot = np.zeros_like(p)
        onehot[rows, labels] = 1
        log_p = z - np.log(e.sum(axis=axis, keepdims=True))
        value = loss(p, log_p, rows, labels) if loss else -log_p[rows, labels].mean()
        d = gradient(p, onehot, labels) if gradient else (p - onehot) / len(p)
        return value, d.astype(logits.dtype)

    return function


def _log(add: float) -> Callable[..., Any]:
    return lambda p, log_p, rows, labels: -np.log(p[rows, labels] + add).mean()


LOSSES: dict[str, Any] = {
    "with one maximum for the whole batch, where each row needs its own": _softmax(
        shift=lambda a: a.max()
    ),
    "with the maximum of each class over the batch, not of each row": _softmax(
        shift=lambda a: a.max(axis=0, keepdims=True)
    ),
    "with exp overflowing where logits are large": _softmax(shift=lambda a: 0),
    "with the smallest logit subtracted, so exp overflows": _softmax(
        shift=lambda a: a.min(axis=1, keepdims=True)
    ),
    "with the mean of a row subtracted, so exp can overflow": _softmax(
        shift=lambda a: a.mean(axis=1, keepdims=True)
    ),
    "as -log(p), infinite where p rounds to 0: take the logarithm of the sum": _softmax(
        loss=_log(0)
    ),
    "with the softmax over the batch, not over the classes": _softmax(axis=0),
    "with the logarithm of base 2": _softmax(
        loss=lambda p, log_p, rows, labels: -log_p[rows, labels].mean() / np.log(2)
    ),
    "with the logarithm of base 10": _softmax(
        loss=lambda p, log_p, rows, labels: -log_p[rows, labels].mean() / np.log(10)
    ),
    "with the loss summed over the batch, not averaged": _softmax(
        loss=lambda p, log_p, rows, labels: -log_p[rows, labels].sum()
    ),
    "with the loss averaged over the classes too": _softmax(
        loss=lambda p, log_p, rows, labels: -log_p[rows, labels].sum() / p.size
    ),
    "without the logarithm": _softmax(loss=lambda p, log_p, rows, labels: -p[rows, labels].mean()),
    "with 1 - p, not -log(p)": _softmax(
        loss=lambda p, log_p, rows, labels: (1 - p[rows, labels]).mean()
    ),
    "with every label of the batch in every row": _softmax(
        loss=lambda p, log_p, rows, labels: -log_p[:, labels].mean()
    ),
    "with the logit of the label not subtracted": _softmax(
        loss=lambda p, log_p, rows, labels: -(log_p - log_p.max(axis=1, keepdims=True)).mean()
    ),
    "as the entropy of the softmax": _softmax(
        loss=lambda p, log_p, rows, labels: -(p * log_p).sum() / len(p)
    ),
    "with the label's 1 not subtracted": _softmax(gradient=lambda p, onehot, labels: p / len(p)),
    "with the label's 1 added": _softmax(gradient=lambda p, onehot, labels: (p + onehot) / len(p)),
    "with 1 / N only on the label's 1": _softmax(
        gradient=lambda p, onehot, labels: p - onehot / len(p)
    ),
    "with 1 / N only on the probabilities": _softmax(
        gradient=lambda p, onehot, labels: p / len(p) - onehot
    ),
    "non-zero for the true class alone": _softmax(
        gradient=lambda p, onehot, labels: onehot * (p - 1) / len(p)
    ),
} | {
    f"with {add:g} added inside the logarithm": _softmax(loss=_log(add))
    for add in (1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15)
}

MISTAKES: dict[str, dict[str, Any]] = {
    "relu_forward": {
        "with absolute values": _relu(abs),
        "with the negative values, not the positive ones": _relu(lambda x: np.minimum(x, 0)),
        "with x unchanged": _relu(lambda x: x.copy()),
        "with values above 1 cut off": _relu(lambda x: np.clip(x, 0, 1)),
        "with values above 6 cut off": _relu(lambda x: np.clip(x, 0, 6)),
        "with 1 where x is positive": _relu(lambda x: (x > 0).astype(x.dtype)),
        "with a hundredth of the negative values, as in a leaky ReLU": _relu(
            lambda x: np.where(x > 0, x, x * x.dtype.type(0.01))
        ),
        "with a tenth of the negative values, as in a leaky ReLU": _relu(
            lambda x: np.where(x > 0, x, x * x.dtype.type(0.1))
        ),
        "with x >= 0 in the cache: at 0 the gradient is 0": _relu(
            lambda x: np.maximum(x, 0), lambda x: x >= 0
        ),
        "with x < 0 in the cache, not x > 0": _relu(lambda x: np.maximum(x, 0), lambda x: x < 0),
        "with x in the cache, not x > 0": _relu(lambda x: np.maximum(x, 0), lambda x: x),
        "with y in the cache, not x > 0": _relu(
            lambda x: np.maximum(x, 0), lambda x: np.maximum(x, 0)
        ),
        "with a cache that lets every gradient pass": _relu(
            lambda x: np.maximum(x, 0), lambda x: np.ones(x.shape, bool)
        ),
    },
    "relu_backward": {
        "with the gradient where x was not positive": lambda dy, cache: dy * ~cache[0],
        "with the mask itself, without dy": lambda dy, cache: cache[0].astype(dy.dtype),
        "with the mask of the input and of the gradient": lambda dy, cache: (
            dy * cache[0] * (dy > 0)
        ),
    },
    "global_avg_pool_forward": {
        "with the maximum, not the mean": lambda x: (x.max(axis=(1, 2)), (x.shape,)),
        "with the minimum, not the mean": lambda x: (x.min(axis=(1, 2)), (x.shape,)),
        "with the median, not the mean": lambda x: (np.median(x, axis=(1, 2)), (x.shape,)),
        "with the first pixel, not the mean": lambda x: (x[:, 0, 0].copy(), (x.shape,)),
    },
    "global_avg_pool_backward": {
        "with the whole gradient on the first pixel": lambda dy, cache: _first_pixel(dy, cache[0]),
    },
    "linear_forward": {
        "without b": _pairs(lambda x, w, b: x @ w),
        "with b subtracted": _pairs(lambda x, w, b: x @ w - b),
        "with b twice": _pairs(lambda x, w, b: x @ w + 2 * b),
        "with b in the first row alone": _pairs(
            lambda x, w, b: x @ w + b * (np.arange(len(x)) == 0)[:, None].astype(b.dtype)
        ),
        "with the sum of b in every column": _pairs(lambda x, w, b: x @ w + b.sum()),
        "with w transposed": _pairs(lambda x, w, b: x @ w.T + b),
        "with b multiplied, not added": _pairs(lambda x, w, b: x @ w * b),
        "with b added before w multiplies": _pairs(lambda x, w, b: (x + b) @ w),
        "with y, not x, in the cache": lambda x, w, b: (x @ w + b, (x @ w + b, w)),
        "with w reshaped and not transposed": lambda x, w, b: (
            x @ w + b, (x, np.ascontiguousarray(w.T).reshape(w.shape)),
        ),
    },
    "linear_backward": {
        "with w where its transpose belongs": _linear_backward(dx=lambda dy, x, w: dy @ w),
        "with w reshaped where its transpose belongs": _linear_backward(
            dx=lambda dy, x, w: dy @ np.ascontiguousarray(w).reshape(w.T.shape)
        ),
        "with x where its transpose belongs": _linear_backward(dw=lambda dy, x, w: x @ dy),
        "transposed": _linear_backward(dw=lambda dy, x, w: dy.T @ x),
        "with the first row of dy alone": _linear_backward(db=lambda dy, x, w: dy[0].copy()),
        "with the last row of dy alone": _linear_backward(db=lambda dy, x, w: dy[-1].copy()),
        "with the sum of all of dy in every element": _linear_backward(
            db=lambda dy, x, w: np.full(dy.shape[1:], dy.sum())
        ),
        "with ones: dy is not used": _linear_backward(db=lambda dy, x, w: np.ones_like(dy[0])),
        "with the first image alone": _linear_backward(dw=lambda dy, x, w: x[:1].T @ dy[:1]),
        "with the last image alone": _linear_backward(dw=lambda dy, x, w: x[-1:].T @ dy[-1:]),
    },
    "softmax_cross_entropy": LOSSES,
}  # fmt: skip


def _first_pixel(dy: Array, shape: tuple) -> Array:
    dx = np.zeros(shape, dy.dtype)
    dx[:, 0, 0] = dy
    return dx
