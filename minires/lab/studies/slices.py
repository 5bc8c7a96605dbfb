"""One-dimensional slices of the loss along random directions, normalised filter by filter.

Li and others 2018 (arXiv 1712.09913), section 4: a random direction has a meaning for a network
only if each of its filters has the length of the network's filter, because the length of filters
in front of a batch norm changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minires.layers.base import Array, Rng
from minires.nets.network import Network


def direction(net: Network, rng: Rng) -> dict[str, Array]:
    """Random direction in which every filter has the length of the net's filter.

    Weights of convolutions and of the linear layer get standard normal numbers, scaled for each
    filter k:  d_k <- d_k ||w_k|| / ||d_k||. All other parameters keep their values: 0.

    Returns
    -------
    direction : dict of str to ndarray
        By parameter name.
    """
    rng = np.random.default_rng(rng)
    found = {}
    for name, w in net.parameters().items():
        if w.ndim == 1:
            found[name] = np.zeros_like(w)
            continue
        d = rng.standard_normal(w.shape).astype(w.dtype)
        axes = tuple(range(w.ndim - 1))
        found[name] = d * np.sqrt((w * w).sum(axis=axes) / (d * d).sum(axis=axes))
    return found


def losses_along(
    net: Network, along: dict[str, Array], distances: Sequence[float], x: Array, labels: Array
) -> Array:
    """Loss of one batch at w + a d for every distance a; the net's weights are restored.

    Batch norm uses the statistics of the batch, as in training.

    Parameters
    ----------
    net : Network
    along : dict of str to ndarray
        d, by parameter name.
    distances : sequence of float
    x : ndarray of shape (N, H, W, C)
    labels : ndarray of shape (N,)

    Returns
    -------
    losses : ndarray of shape (distances,)
    """
    before = net.state()
    parameters = net.parameters()
    found = []
    for a in distances:
        for name, w in parameters.items():
            w[...] = before[name] + w.dtype.type(a) * along[name]
        logits = net.forward(x, train=True)
        found.append(float(net.ops.softmax_cross_entropy(logits, labels)[0]))
    net.load_state(before).forget()
    return np.array(found)
