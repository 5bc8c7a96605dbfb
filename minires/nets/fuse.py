"""Rewrite a network for training: fewer passes over memory, the same numbers to the last bit."""

from __future__ import annotations

import itertools

from minires.layers.base import Layer, Sequential
from minires.layers.core import BatchNorm, BatchNormReLU, Conv2d, FirstConv2d, ReLU
from minires.nets.network import Network
from minires.nets.resnet import Identity, PlainBlock


def fuse(net: Network) -> Network:
    """Leave out what training has no use for; return `net`. Names, parameters, statistics and numbers stay.

    Every batch norm does the work of the ReLU behind it, which then passes on what it gets. A batch norm puts out what
    is rectified then, and ReLUs cost nothing but where two branches have been added. Compiled, on two cores of an AMD
    EPYC (Zen 3), beside another net, a training step of plain-56 takes 0.85 to 0.92 of its time by this, one of
    ResNet-56 0.92 to 0.96.

    The first convolution computes no gradient of the images: `net.backward` returns an empty array.
    """
    first, conv = next(iter(net.children.items()))
    if type(conv) is Conv2d:
        net.children[first] = FirstConv2d(conv)
    for _, layer in list(net.named_layers()):
        if isinstance(layer, PlainBlock) and isinstance(layer.body, Sequential):
            _rectify(layer.body.children, list(layer.body.children)[-1], layer.children, "relu")
            layer.relu = layer.children["relu"]
        if isinstance(layer, Sequential):
            for name, after in itertools.pairwise(list(layer.children)):
                _rectify(layer.children, name, layer.children, after)
    return net


def _rectify(layers: dict[str, Layer], name: str, others: dict[str, Layer], after: str) -> None:
    """Fuse a batch norm with what comes after it, if these are a batch norm and a ReLU."""
    norm, relu = layers[name], others[after]
    if type(norm) is BatchNorm and type(relu) is ReLU:
        layers[name], others[after] = BatchNormReLU(norm), Identity()
        others[after].name = relu.name
