"""Rewrite a network for faster training, with the same results."""

from __future__ import annotations

import itertools
from typing import Any

from minires.layers.base import Array, Layer, Sequential
from minires.layers.core import BatchNorm, Conv2d, Identity, ReLU
from minires.layers.fused import BatchNormReLU
from minires.nets.network import Network
from minires.nets.resnet import PlainBlock, ResidualBlock, ZeroPadShortcut


class FusedResidualBlock(ResidualBlock):
    """A residual block whose addition and ReLU are one op: bitwise the same results.

    The ReLU is never called. Neither is a shortcut of option A: it has no parameters, and the op
    reads x.

    Parameters
    ----------
    block : ResidualBlock
        Its body and its shortcut are shared.
    """

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__(block.body, block.shortcut)
        self.backend, self.name, self.relu.name = block.backend, block.name, block.relu.name
        self.relu.backend = block.backend
        self.stride = _stride_of_option_a(block.shortcut)

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        f = self.body.forward(x, train)
        if self.stride is None:
            y, cache = self.ops.add_relu_forward(f, self.shortcut.forward(x, train))
        else:
            y, cache = self.ops.add_relu_forward(f, x, self.stride)
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Any:  # noqa: D102
        dz = self.ops.add_relu_backward(dy, self._pop())
        dx = self.body.backward(dz)
        if self.stride is None:
            return self.ops.add_shortcut_gradient(dx, self.shortcut.backward(dz))
        return self.ops.add_shortcut_gradient(dx, dz, self.stride)


def _stride_of_option_a(shortcut: Layer) -> int | None:
    """Stride of a shortcut without parameters; None for another one."""
    if type(shortcut) is Identity:
        return 1
    return shortcut.stride if type(shortcut) is ZeroPadShortcut else None


def fuse(net: Network) -> Network:
    """Fuse each batch norm with the ReLU after it, and each addition; skip the images' gradient.

    The network is changed in place and returned. Names, parameters, running statistics and all
    results stay bitwise the same, with these exceptions:

    - a fused batch norm returns the output of its ReLU, and the ReLU becomes an `Identity`;
    - a residual block adds and rectifies in one op: its ReLU, and a shortcut without parameters,
      are not called;
    - the first convolution computes no gradient of its input, so `net.backward` returns None.
    """
    first = next(iter(net.children.values()))
    if isinstance(first, Conv2d):
        first.input_gradient = False
    for _, layer in list(net.named_layers()):
        if isinstance(layer, PlainBlock) and isinstance(layer.body, Sequential):
            _rectify(layer.body.children, list(layer.body.children)[-1], layer.children, "relu")
            layer.relu = layer.children["relu"]
        if isinstance(layer, Sequential):
            for name, after in itertools.pairwise(list(layer.children)):
                _rectify(layer.children, name, layer.children, after)
            for name, child in layer.children.items():
                if type(child) is ResidualBlock and type(child.relu) is ReLU:
                    layer.children[name] = FusedResidualBlock(child)
    return net


def _rectify(layers: dict[str, Layer], name: str, others: dict[str, Layer], after: str) -> None:
    """Fuse `layers[name]` with `others[after]` if they are a batch norm and a ReLU."""
    norm = layers[name]
    relu = others[after]
    if type(norm) is BatchNorm and type(relu) is ReLU:
        layers[name] = BatchNormReLU(norm)
        others[after] = Identity()
        others[after].name = relu.name
