"""Fine-tuning in a few steps: what a trained network learns on other images, and what it forgets.

The networks are small and the images few, so that each function takes seconds.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np

from minires.data import batch_indices, even_batches, scenes
from minires.data.pictures import centre_crop
from minires.layers.base import Array
from minires.layers.core import recompute_statistics
from minires.nets.freeze import freeze, head_of, trained_parameters
from minires.nets.network import Network
from minires.optim import SGD
from minires.train.step import train_step

State = Mapping[str, Array]


def landscapes(n: int, rng: np.random.Generator, size: int = 32) -> tuple[Array, Array]:
    """Draw small landscapes, ten kinds of them, see `minires.data.scenes`.

    Parameters
    ----------
    n : int
    rng : Generator
        The same state draws the same images.
    size : int
        Rows and columns.

    Returns
    -------
    images : ndarray of shape (n, size, size, 3), uint8
    labels : ndarray of shape (n,), int64
        Indices into `scenes.CLASSES`.
    """
    labels = rng.integers(0, len(scenes.CLASSES), n)
    drawn = [centre_crop(scenes.draw(scenes.CLASSES[k], size, rng), size) for k in labels]
    return np.stack(drawn), labels


def fine_tune(
    net: Network,
    x: Array,
    labels: Array,
    *,
    steps: int,
    lr: float,
    batch_size: int = 50,
    frozen: Sequence[str] = (),
    norms: str = "train",
    seed: int = 0,
) -> Array:
    """Train a network on prepared images for some steps, in place, without crops and flips.

    Parameters
    ----------
    net : Network
    x : ndarray of shape (N, H, W, 3)
    labels : ndarray of shape (N,), int64
    steps, lr, batch_size
        SGD with momentum 0.9 and weight decay 1e-4.
    frozen : list of str
        Parts that are not trained.
    norms : {"train", "frozen"}
        "frozen" keeps the statistics, gamma and beta of every batch norm.
    seed : int
        Of the order of the images.

    Returns
    -------
    losses : ndarray of shape (steps,)
        Of each batch, before its step.

    Raises
    ------
    FloatingPointError
        If a loss is not finite.
    """
    freeze(net, frozen, norms)
    optimizer = SGD(trained_parameters(net))
    losses = np.empty(steps)
    for i in range(steps):
        rows = batch_indices(seed, i, batch_size, len(x))
        losses[i], _ = train_step(net, optimizer, x[rows], labels[rows], lr)
    return losses


def error(net: Network, x: Array, labels: Array, batch_size: int = 250) -> float:
    """Share of wrong classes, in evaluation mode."""
    wrong = 0
    for start in range(0, len(x), batch_size):
        logits = net.forward(x[start : start + batch_size])
        wrong += int((logits.argmax(axis=1) != labels[start : start + batch_size]).sum())
    return wrong / len(x)


def error_with_head(net: Network, head: State, x: Array, labels: Array, known: Array) -> float:
    """Error of a network on an earlier task: with its earlier last layer.

    Batch norm gets statistics of the earlier images, so that the error shows what happened to the
    weights. The network itself does not change.

    Parameters
    ----------
    net : Network
        No part of it is frozen.
    head : dict of str to ndarray
        State with the earlier last layer, such as that of the whole network before fine-tuning.
    x, labels : ndarray
        Test images of the earlier task.
    known : ndarray
        Training images of the earlier task, for the statistics.
    """
    earlier = copy.deepcopy(net)
    name = f"{head_of(net)}."
    state = earlier.state()
    state |= {key: value for key, value in head.items() if key.startswith(name)}
    earlier.load_state(state)
    with_statistics_of(earlier, known)
    return error(earlier, x, labels)


def with_statistics_of(net: Network, x: Array, batch_size: int = 250) -> Network:
    """Recompute batch norm's statistics on prepared images, in place."""
    rows = even_batches(np.arange(len(x)), batch_size)
    recompute_statistics(net, [x[part] for part in rows])
    return net
