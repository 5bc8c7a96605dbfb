"""How far a rounding error comes: two copies of a net, one weight apart by 1e-14, trained on the same batches."""

from __future__ import annotations

import numpy as np

from minires.data import normalise, per_pixel_mean, shapes10, stream
from minires.layers.base import Array
from minires.nets.registry import by_name
from minires.ops import default_backend
from minires.optim import SGD
from minires.train.step import train_step

LINEAR = 1e-3  # beyond this relative distance two copies are simply different nets, and drift apart no faster


def butterfly(
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
    batch_size, lr, seed : int, float, int
        Both copies see the same new images of shapes10 at every step.

    Returns
    -------
    distances : ndarray of shape (steps,)
        ||w - w'|| / ||w|| over all parameters.
    """
    images, labels = shapes10.images(steps * batch_size, stream(seed, "butterfly", 0))
    x = normalise(images, per_pixel_mean(images)).astype(np.float64)
    copies = [by_name(net, rng=seed).astype("float64").use(default_backend()) for _ in range(2)]
    copies[1].parameters()["conv.w"][0, 0, 0, 0] *= 1 + difference
    optimizers, distances = [SGD(copy.parameters()) for copy in copies], []
    for i in range(0, len(x), batch_size):
        for copy, optimizer in zip(copies, optimizers, strict=True):
            train_step(copy, optimizer, x[i : i + batch_size], labels[i : i + batch_size], lr)
        a, b = (np.concatenate([w.ravel() for w in copy.parameters().values()]) for copy in copies)
        distances.append(np.linalg.norm(a - b) / np.linalg.norm(a))
    return np.array(distances)


def growth(distances: Array) -> float:
    """Factor by which the distance grows at each step, on average, as long as it is below `LINEAR`."""
    last = max(1, int((distances <= LINEAR).cumprod().sum()) - 1)
    return float((distances[last] / distances[0]) ** (1 / last))
