"""Mistakes in batch normalisation: see `minires.school.mistakes`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray


def _statistics(x: Array, axes: Any = None) -> tuple[Array, Array]:
    """Mean and variance over all axes but the last, or over some, in float64."""
    axes = tuple(range(x.ndim - 1)) if axes is None else axes
    exact = x.astype(np.float64)
    return exact.mean(axes, keepdims=True), exact.var(axes, keepdims=True)


def _norm(
    axes: Any = None,
    spread: Callable[..., Any] = lambda var, eps, M: np.sqrt(var + eps),
    y: Callable[..., Any] = lambda xhat, gamma, beta, x, std: gamma * xhat + beta,
    var: Callable[..., Any] = lambda var, eps, M: var,
    cache: Callable[..., Any] = lambda xhat, gamma, inv, x, y: (xhat, gamma, inv),
) -> Any:
    """Batch normalisation with one part computed in another way."""

    def forward(x: Array, gamma: Array, beta: Array, eps: float) -> Any:
        M = x.size // x.shape[-1]
        mean, true_var = _statistics(x)
        over, variance = _statistics(x, axes)
        std = spread(variance, eps, M)
        xhat = (x - over) / std
        out = y(xhat, gamma, beta, x, std)
        kept = cache(xhat, gamma, (1 / std).reshape(-1)[-gamma.size :], x, out)
        made = out, mean.reshape(-1), var(true_var, eps, M).reshape(-1)
        return *(a.astype(x.dtype) for a in made), tuple(a.astype(x.dtype) for a in kept)

    return forward


SPREADS: dict[str, Callable[..., Any]] = {
    "without eps": lambda var, eps, M: np.sqrt(var),
    "divided by the variance, not by its root": lambda var, eps, M: var + eps,
    "with eps added to the standard deviation, not to the variance": lambda var, eps, M: (
        np.sqrt(var) + eps
    ),
    "with eps squared": lambda var, eps, M: np.sqrt(var + eps * eps),
    "with the variance divided by M - 1, not by M": lambda var, eps, M: np.sqrt(
        var * M / max(M - 1, 1) + eps
    ),
    "with the larger of variance and eps, not their sum": lambda var, eps, M: np.sqrt(
        np.maximum(var, eps)
    ),
    "not divided by the standard deviation": lambda var, eps, M: np.ones_like(var),
}
OUTPUTS: dict[str, Callable[..., Any]] = {
    "without beta": lambda xhat, gamma, beta, x, std: gamma * xhat,
    "without gamma": lambda xhat, gamma, beta, x, std: xhat + beta,
    "without gamma and beta": lambda xhat, gamma, beta, x, std: xhat,
    "with beta added before gamma multiplies": lambda xhat, gamma, beta, x, std: (
        gamma * (xhat + beta)
    ),
    "with gamma and beta swapped": lambda xhat, gamma, beta, x, std: beta * xhat + gamma,
    "with beta subtracted": lambda xhat, gamma, beta, x, std: gamma * xhat - beta,
    "with gamma added and not multiplied": lambda xhat, gamma, beta, x, std: gamma + xhat + beta,
    "without the mean subtracted": lambda xhat, gamma, beta, x, std: gamma * (x / std) + beta,
}
VARIANCES: dict[str, Callable[..., Any]] = {
    "as the standard deviation, not the variance": lambda var, eps, M: np.sqrt(var),
    "with eps in the variance that is returned": lambda var, eps, M: var + eps,
    "as sqrt(var + eps), not the variance": lambda var, eps, M: np.sqrt(var + eps),
    "divided by M - 1, not by M": lambda var, eps, M: var * M / max(M - 1, 1),
}
CACHES: dict[str, Callable[..., Any]] = {
    "with x, not xhat, in the cache": lambda xhat, gamma, inv, x, y: (x, gamma, inv),
    "with y, not xhat, in the cache": lambda xhat, gamma, inv, x, y: (y, gamma, inv),
    "with x - mean, not xhat, in the cache": lambda xhat, gamma, inv, x, y: (
        xhat / inv, gamma, inv,
    ),
    "with std, not 1 / std, in the cache": lambda xhat, gamma, inv, x, y: (
        xhat, gamma, 1 / inv,
    ),
    "with the variance, not 1 / std, in the cache": lambda xhat, gamma, inv, x, y: (
        xhat, gamma, inv**-2.0,
    ),
    "with 1 / variance, not 1 / std, in the cache": lambda xhat, gamma, inv, x, y: (
        xhat, gamma, inv**2,
    ),
}  # fmt: skip
AXES = {
    "with the statistics of the batch axis alone, separate for every pixel": (0,),
    "with the statistics of each image alone": (1, 2),
    "with the statistics of each pixel over its channels": (-1,),
    "with one mean and variance for all channels": (0, 1, 2, 3),
}


def _norm_backward(dx: Callable[..., Any], sums: Callable[..., Any] | None = None) -> Any:
    def backward(dy: Array, cache: tuple) -> Any:
        xhat, gamma, inv = cache
        axes = tuple(range(dy.ndim - 1))
        M = dy.size // dy.shape[-1]
        dbeta = dy.sum(axes)
        dgamma = (dy * xhat).sum(axes)
        return dx(dy, xhat, dbeta, dgamma, M) * gamma * inv, dgamma, dbeta

    return backward


BACKWARDS = {
    "with the path through the mean added, not subtracted": lambda dy, xhat, db, dg, M: (
        dy + db / M - xhat * dg / M
    ),
    "with the path through the variance added, not subtracted": lambda dy, xhat, db, dg, M: (
        dy - db / M + xhat * dg / M
    ),
    "with sums where means belong: the division by M is missing": lambda dy, xhat, db, dg, M: (
        dy - db - xhat * dg
    ),
    "with the path through the variance without xhat": lambda dy, xhat, db, dg, M: (
        dy - db / M - dg / M
    ),
    "with the path through the variance twice": lambda dy, xhat, db, dg, M: (
        dy - db / M - 2 * xhat * dg / M
    ),
    "with half of the path through the variance": lambda dy, xhat, db, dg, M: (
        dy - db / M - xhat * dg / (2 * M)
    ),
    "with the path through the variance not divided by M": lambda dy, xhat, db, dg, M: (
        dy - db / M - xhat * dg
    ),
    "with the path through the mean not divided by M": lambda dy, xhat, db, dg, M: (
        dy - db - xhat * dg / M
    ),
}


def _norm_backward_result(change: Callable[..., Any]) -> Any:
    def backward(dy: Array, cache: tuple) -> Any:
        xhat, gamma, inv = cache
        axes = tuple(range(dy.ndim - 1))
        M = dy.size // dy.shape[-1]
        dbeta = dy.sum(axes)
        dgamma = (dy * xhat).sum(axes)
        dx = gamma * inv * (dy - dbeta / M - xhat * (dgamma / M))
        return change(dx, dgamma, dbeta, gamma, inv)

    return backward


RESULTS = {
    "without the division by the standard deviation": lambda dx, dg, db, gamma, inv: (
        dx / inv, dg, db,
    ),
    "divided by the variance, not by its root": lambda dx, dg, db, gamma, inv: (dx * inv, dg, db),
    "multiplied by the standard deviation, not divided": lambda dx, dg, db, gamma, inv: (
        dx / inv**2, dg, db,
    ),
    "with gamma twice": lambda dx, dg, db, gamma, inv: (dx * gamma, dg, db),
    "with dgamma and dbeta swapped": lambda dx, dg, db, gamma, inv: (dx, db, dg),
    "with dgamma multiplied by gamma": lambda dx, dg, db, gamma, inv: (dx, dg * gamma, db),
    "with dgamma for x - mean, not for xhat": lambda dx, dg, db, gamma, inv: (dx, dg / inv, db),
}  # fmt: skip


def _inference(
    spread: Callable[..., Any] | None = None, out: Callable[..., Any] | None = None
) -> Any:
    def function(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float) -> Array:
        M = x.size // x.shape[-1]
        std = np.sqrt(var + eps) if spread is None else spread(var, eps, M)
        xhat = (x - mean) / std
        y = gamma * xhat + beta if out is None else out(xhat, gamma, beta, x, std)
        return np.asarray(y, x.dtype)

    return function


def _of_batch(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float) -> Array:
    return _norm()(x, gamma, beta, eps)[0]


def _one_pass(x: Array, gamma: Array, beta: Array, eps: float) -> Any:
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    var = (x * x).mean(axes) - mean * mean
    inv = 1 / np.sqrt(var + eps)
    xhat = (x - mean) * inv
    return gamma * xhat + beta, mean, var, (xhat, gamma, inv)


ONE_PASS = "with the variance as mean(x^2) - mean(x)^2, which cancels where the mean is large"

MISTAKES: dict[str, dict[str, Any]] = {
    "batchnorm_forward": {says: _norm(spread=f) for says, f in SPREADS.items()}
    | {says: _norm(y=f) for says, f in OUTPUTS.items()}
    | {says: _norm(var=f) for says, f in VARIANCES.items()}
    | {says: _norm(cache=f) for says, f in CACHES.items()}
    | {says: _norm(axes=axes) for says, axes in AXES.items()}
    | {ONE_PASS: _one_pass},
    "batchnorm_backward": {says: _norm_backward(f) for says, f in BACKWARDS.items()}
    | {says: _norm_backward_result(f) for says, f in RESULTS.items()},
    "batchnorm_inference": {says: _inference(f) for says, f in SPREADS.items()}
    | {says: _inference(out=f) for says, f in OUTPUTS.items()}
    | {"with the statistics of the batch, not those given": _of_batch},
}
