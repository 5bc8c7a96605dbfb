"""How much the features of a network know about other labels: a linear classifier on top of them.

Yosinski et al. 2014 (arXiv 1411.1792) asked which layers of a network serve another task, Alain and
Bengio 2016 (arXiv 1610.01644) put linear classifiers on every layer.

The letters: N images, C features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minires.errors import InputError
from minires.layers.base import Array
from minires.nets.network import Network

# candidates for the penalty, as shares of N; the features have deviation 1
PENALTIES = tuple(10.0**k for k in range(-4, 2))


def stage_features(net: Network, x: Array, batch_size: int = 250) -> dict[str, Array]:
    """Output of every stage in evaluation mode, averaged over its pixels.

    The features of the last stage are what the network's own linear layer gets.

    Parameters
    ----------
    net : Network
        With children "stage1", "stage2", ...
    x : ndarray of shape (N, H, W, 3)
        Prepared images.
    batch_size : int

    Returns
    -------
    features : dict of str to ndarray of shape (N, C)
        By stage, in order.

    Raises
    ------
    InputError
        If the network has no stages.
    """
    if not any(name.startswith("stage") for name in net.children):
        raise InputError(
            f"{net.title} has no stages to take features from, its parts are "
            f"{', '.join(net.children)}; give a plain or residual net"
        )
    found: dict[str, list[Array]] = {}
    for start in range(0, len(x), batch_size):
        y = x[start : start + batch_size]
        for name, child in net.children.items():
            y = child.forward(y)
            if name.startswith("stage"):
                found.setdefault(name, []).append(y.mean(axis=(1, 2)))
    return {name: np.concatenate(parts) for name, parts in found.items()}


@dataclass(frozen=True)
class Probe:
    """A linear classifier: the class with the largest of ((x - mean) / deviation) w + b.

    Attributes
    ----------
    mean, deviation : ndarray of shape (C,)
        Of the features that it was fitted on.
    w : ndarray of shape (C, K)
    b : ndarray of shape (K,)
    penalty : float
        See `fit`.
    """

    mean: Array
    deviation: Array
    w: Array
    b: Array
    penalty: float

    def __call__(self, x: Array) -> Array:
        """Classes of features (N, C), as integers (N,)."""
        return (((x - self.mean) / self.deviation) @ self.w + self.b).argmax(axis=1)

    def error(self, x: Array, labels: Array) -> float:
        """Share of wrong classes."""
        return float((self(x) != labels).mean())


def fit(x: Array, labels: Array, classes: int, penalty: float | None = None) -> Probe:
    """Fit a linear classifier by least squares with a penalty (ridge regression).

    With Z the features, shifted and scaled to mean 0 and deviation 1, and T the labels as columns
    of 0 and 1 minus their mean b,

        w = (Z' Z + penalty N I)^-1 Z' T.

    Parameters
    ----------
    x : ndarray of shape (N, C)
    labels : ndarray of shape (N,), int64
    classes : int
    penalty : float, optional
        By default the one of `PENALTIES` with the smallest squared error when each image is
        predicted by a fit to the others. That error follows from one fit: the residual of image i
        divided by 1 - H_ii, where H = 1/N + Z (Z' Z + penalty N I)^-1 Z' maps T to its predictions.

    Returns
    -------
    probe : Probe
    """
    x = np.asarray(x, np.float64)
    mean = x.mean(axis=0)
    deviation = x.std(axis=0)
    deviation[deviation == 0] = 1.0  # a feature that is constant says nothing
    z = (x - mean) / deviation  # (N, C)
    target = np.eye(classes)[labels]
    b = target.mean(axis=0)
    target = target - b  # (N, K)
    squares, directions = np.linalg.eigh(z.T @ z)
    rotated = z @ directions  # (N, C)
    part = rotated.T @ target  # (C, K)
    candidates = PENALTIES if penalty is None else (penalty,)
    errors = []
    for candidate in candidates:
        inverse = 1 / (squares + candidate * len(z))
        residual = target - rotated @ (inverse[:, None] * part)
        left = 1 - 1 / len(z) - (rotated * rotated * inverse).sum(axis=1)
        errors.append(float(((residual / left[:, None]) ** 2).mean()))
    best = candidates[int(np.argmin(errors))]
    w = directions @ (part / (squares + best * len(z))[:, None])
    return Probe(mean, deviation, w, b, best)


def errors_by_labels(
    known: Array,
    labels: Array,
    test: Array,
    test_labels: Array,
    *,
    counts: tuple[int, ...],
    draws: int,
    classes: int = 10,
    seed: int = 0,
) -> Array:
    """Test error of classifiers that were fitted on few labels.

    Parameters
    ----------
    known, test : ndarray of shape (N, C), (M, C)
        Features.
    labels, test_labels : ndarray of int64
    counts : tuple of int
        How many labels a classifier gets.
    draws : int
        How often images are drawn for each count.
    classes, seed : int

    Returns
    -------
    errors : ndarray of shape (len(counts), draws)
    """
    found = np.empty((len(counts), draws))
    for k in range(draws):
        order = np.random.default_rng([seed, k]).permutation(len(known))
        for i, count in enumerate(counts):
            rows = order[:count]
            found[i, k] = fit(known[rows], labels[rows], classes).error(test, test_labels)
    return found
