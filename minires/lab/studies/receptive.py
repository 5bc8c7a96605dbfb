"""Effective receptive field: which pixels move one unit of a map, and by how much.

An audit gives the receptive field: the pixels that can reach a unit. Luo et al. 2016
(arXiv 1701.04128) measured how much of it matters: they send a gradient back from the unit.
"""

from __future__ import annotations

import numpy as np

from minires.errors import InputError
from minires.layers.base import Array, Rng
from minires.layers.core import recompute_statistics
from minires.nets.freeze import freeze
from minires.nets.network import Network


def influence(net: Network, part: str, x: Array, rng: Rng) -> Array:
    """Squared gradient of the unit in the middle of a map, by pixel of the images.

    From all channels of the unit a random gradient is sent back, dy ~ N(0, 1). Then the mean of
    dx^2 over images and colours is the mean of (dy_k / dx)^2 over the channels k, up to a factor.
    Batch norm has statistics of these images and passes gradients as in evaluation: its own
    backward pass would connect every pixel to every other one.

    Parameters
    ----------
    net : Network
        Its batch norms are frozen, in place.
    part : str
        A child of the network that gives a map, such as "stage3".
    x : ndarray of shape (N, H, W, 3)
    rng : Generator or seed
        Draws dy.

    Returns
    -------
    power : ndarray of shape (H, W)
        Its sum is 1.

    Raises
    ------
    InputError
        If the network has no such part, or the part gives no map.
    """
    if part not in net.children:
        raise InputError(
            f"{net.title} has no part {part!r}: its parts are {', '.join(net.children)}"
        )
    recompute_statistics(net, [x])
    freeze(net, norms="frozen")
    names = list(net.children)
    layers = [net.children[name] for name in names[: names.index(part) + 1]]
    y = x
    for layer in layers:
        y = layer.forward(y, train=True)
    if y.ndim != 4:
        raise InputError(f"{part} of {net.title} gives no map, got shape {y.shape}")
    dy = np.zeros_like(y)
    middle = dy[:, y.shape[1] // 2, y.shape[2] // 2]  # (N, K)
    middle[...] = np.random.default_rng(rng).standard_normal(middle.shape)
    for layer in reversed(layers):
        dy = layer.backward(dy)
    power = (dy.astype(np.float64) ** 2).mean(axis=(0, 3))
    return power / power.sum()


def side_of(power: Array, share: float = 0.95) -> int:
    """Side in pixels of the smallest square about the centre of mass that holds a share of it.

    Parameters
    ----------
    power : ndarray of shape (H, W)
        As `influence` returns it, up to a factor.
    share : float
        Below 1.

    Returns
    -------
    side : int
        Odd. The square may reach over the edge of the image.
    """
    power = power / power.sum()
    rows, columns = (np.arange(n) for n in power.shape)
    middle_row = round(float((power.sum(axis=1) * rows).sum()))
    middle_column = round(float((power.sum(axis=0) * columns).sum()))
    away = np.maximum(abs(rows[:, None] - middle_row), abs(columns[None, :] - middle_column))
    inside = np.cumsum(np.bincount(away.ravel(), weights=power.ravel()))
    return 2 * int(np.searchsorted(inside, share)) + 1
