"""Remove blocks of a trained net, exchange them, and add up gradients by length of path.

Veit and others 2016 (arXiv 1605.06431) read a residual net as a collection of 2^B paths through
B blocks: each path goes through the body of a block or around it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import numpy as np

from minires.layers.base import Array, Layer, Sequential
from minires.layers.core import Identity
from minires.nets.network import Network
from minires.nets.resnet import ResidualBlock


def without_blocks(net: Network) -> Iterator[tuple[str, Network]]:
    """Yield copies of a net, each with one block removed, and the dotted name of that block.

    A removed block passes on its input. In a residual net that is the block without its body: its
    input has passed a ReLU, so the ReLU behind the sum changes nothing. Blocks that change the
    shape stay.
    """
    for stage, block in _same_shape(net):
        changed = copy.deepcopy(net)
        changed.children[stage].children[block] = Identity()
        yield f"{stage}.{block}", changed


def exchanged(net: Network) -> Iterator[tuple[str, Network]]:
    """Yield copies of a net, each with two neighbouring blocks exchanged, and their names."""
    places = list(_same_shape(net))
    for (stage, a), (other, b) in itertools.pairwise(places):
        if stage == other:
            changed = copy.deepcopy(net)
            blocks = changed.children[stage].children
            blocks[a], blocks[b] = blocks[b], blocks[a]
            yield f"{stage}.{a}, {stage}.{b}", changed


def _same_shape(net: Network) -> Iterator[tuple[str, str]]:
    """Names of stages and blocks; a stage after the first begins with a block that changes it."""
    stages = [name for name, part in net.children.items() if isinstance(part, Sequential)]
    for i, stage in enumerate(stages):
        for block in list(net.children[stage].children)[1 if i else 0 :]:
            yield stage, block


def gradients_by_path(net: Network, x: Array, labels: Array) -> Array:
    """Gradient at the input of the first block, split by the number of bodies it went through.

    Backward is linear for a given forward, dx = (S' + F')^T dz in each block. So the gradient is a
    sum over paths, and with G_k the sum over those through k bodies,

        G_k <- S'^T dz_k + F'^T dz_(k-1)   with  dz_k = G_k [z > 0].

    Parameters
    ----------
    net : Network
        Residual.
    x : ndarray of shape (N, H, W, C)
    labels : ndarray of shape (N,)

    Returns
    -------
    parts : ndarray of shape (blocks + 1, N, H, W, C)
        G_k for k = 0 .. blocks; their sum is the gradient.
    """
    _, dy = net.ops.softmax_cross_entropy(net.forward(x, train=True), labels)
    layers = list(_in_order(net))
    first = next(i for i, layer in enumerate(layers) if isinstance(layer, ResidualBlock))
    sums = [dy]
    for layer in reversed(layers[first:]):
        if not isinstance(layer, ResidualBlock):
            sums = [layer.backward(dy) for dy in sums]
            continue
        dz = [_repeated(layer.relu, dy) for dy in sums]
        around = [_repeated(layer.shortcut, d) for d in dz]
        through = [_repeated(layer.body, d) for d in dz]
        none = np.zeros_like(around[0])
        sums = [a + t for a, t in zip([*around, none], [none, *through], strict=True)]
    net.forget()
    return np.array(sums)


def _in_order(net: Network) -> Iterator[Layer]:
    """The layers of a net, with its stages taken apart into blocks."""
    for part in net.children.values():
        yield from part.children.values() if isinstance(part, Sequential) else [part]


def _repeated(layer: Layer, dy: Array) -> Array:
    """Backward of a layer that keeps its cache for the next call."""
    if isinstance(layer, Identity):
        return dy
    caches = [(part, part._cache) for _, part in layer.named_layers()]
    dx = layer.backward(dy)
    for part, cache in caches:
        part._cache = cache
    return dx
