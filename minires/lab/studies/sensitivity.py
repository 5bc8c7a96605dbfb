"""Sensitivity to a tiny difference: how fast a rounding error grows in training.

Two copies of a net are trained on the same batches. One weight of the second copy differs by the
fraction 1e-14. How fast the copies part depends on depth, shortcuts and the learning rate. The
level of the distance differs between machines, which add in different orders.

Others have trained such copies to the end: Summers and Dinneen 2021 (arXiv 2103.04514) changed one
bit, Kwok et al. 2025 (arXiv 2506.13234) one weight.
"""

from __future__ import annotations

import numpy as np

from minires.data import normalise, per_pixel_mean, shapes10, stream
from minires.layers.base import Array
from minires.nets.registry import by_name
from minires.ops import default_backend
from minires.optim import SGD
from minires.train.step import train_step

# At larger relative distances the copies are different nets, and the distance stops growing.
LINEAR = 1e-3


def sensitivity(
    net: str,
    steps: int = 10,
    *,
    difference: float = 1e-14,
    batch_size: int = 32,
    lr: float = 0.01,
    seed: int = 0,
) -> Array:
    """Relative distance of the weights of two copies in float64, after each step.

    Parameters
    ----------
    net : str
        Such as "plain20".
    steps : int
    difference : float
        The first weight of the second copy is larger by this fraction.
    batch_size : int
    lr : float
    seed : int
        Seed of the weights and the images. shapes10 draws new images for each step, the same ones
        for both copies.

    Returns
    -------
    distances : ndarray of shape (steps,)
        ||w - w'|| / ||w|| over all parameters.
    """
    # The purpose "butterfly" selects the random stream, and with it the bits of the images.
    images, labels = shapes10.images(steps * batch_size, stream(seed, "butterfly", 0))
    x = normalise(images, per_pixel_mean(images)).astype(np.float64)
    copies = [by_name(net, rng=seed).astype("float64").use(default_backend()) for _ in range(2)]
    first = next(iter(copies[1].parameters().values()))
    first.flat[0] *= 1 + difference
    optimizers = [SGD(copy.parameters()) for copy in copies]
    distances = []
    for i in range(0, len(x), batch_size):
        batch = slice(i, i + batch_size)
        for copy, optimizer in zip(copies, optimizers, strict=True):
            train_step(copy, optimizer, x[batch], labels[batch], lr)
        a, b = (np.concatenate([w.ravel() for w in copy.parameters().values()]) for copy in copies)
        distances.append(np.linalg.norm(a - b) / np.linalg.norm(a))
    return np.array(distances)


def growth(distances: Array) -> float:
    """Mean factor by which the distance grows at each step while it is below `LINEAR`."""
    last = max(1, int((distances <= LINEAR).cumprod().sum()) - 1)
    return float((distances[last] / distances[0]) ** (1 / last))
