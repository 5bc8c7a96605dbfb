"""Shattered gradients: how alike the input gradients of two neighbouring pictures are.

Balduzzi and others 2017 (arXiv 1702.08591): in a deep plain net the gradient with respect to the
input is almost independent from one input to the next, as in white noise; with shortcuts it stays
correlated over larger distances.
"""

from __future__ import annotations

import numpy as np

from minires.data import normalise, per_pixel_mean, shapes10, stream
from minires.layers.base import Array
from minires.layers.core import recompute_statistics
from minires.nets.freeze import freeze
from minires.nets.registry import by_name
from minires.ops import default_backend


def input_gradients(net: str, points: int = 33, *, seed: int = 0) -> Array:
    """Gradients of one random combination of the logits along a line between two pictures.

    Picture t is (1 - t) a + t b with t = 0 .. 1, at half size. The net is untrained. Batch norm
    uses the statistics of 64 other pictures, so that the gradient of a picture does not depend on
    the others.

    Parameters
    ----------
    net : str
        Such as "plain20".
    points : int
        Pictures on the line.
    seed : int
        Seed of the weights, the pictures and the combination.

    Returns
    -------
    gradients : ndarray of shape (points, H, W, 3)
    """
    rng = stream(seed, "shattered", 0)
    images, _ = shapes10.images(66, rng)
    x = normalise(images, per_pixel_mean(images))[:, ::2, ::2]
    t = np.linspace(0, 1, points, dtype=np.float32)[:, None, None, None]
    line = (1 - t) * x[0] + t * x[1]
    made = by_name(net, rng=seed).use(default_backend())
    recompute_statistics(made, [x[2:]])
    freeze(made, norms="frozen")
    logits = made.forward(line, train=True)
    dy = np.broadcast_to(rng.standard_normal(logits.shape[1]), logits.shape)
    return made.backward(dy.astype(logits.dtype))


def cosines(gradients: Array) -> Array:
    """Mean cosine of two gradients on the line by their distance: 0, 1, 2, ... points.

    Parameters
    ----------
    gradients : ndarray of shape (points, ...)

    Returns
    -------
    cosines : ndarray of shape (points,)
        The first one is 1.
    """
    rows = gradients.reshape(len(gradients), -1).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    products = rows @ rows.T
    return np.array([np.diagonal(products, k).mean() for k in range(len(rows))])
