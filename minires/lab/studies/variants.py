"""Variants of the residual block, and how fast the gradient grows through them at the start.

He and others 2016, "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027), tried them on
ResNet-110 (tables 1 and 2). Here they are compared before any training.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minires.layers.base import Array, Layer, Rng, Sequential
from minires.layers.core import BatchNorm, Conv2d, ReLU
from minires.nets.network import Network
from minires.nets.resnet import ResidualBlock, make_shortcut, resnet


class Weighted(Layer):
    """y = factor * layer(x).

    Parameters
    ----------
    layer : Layer
    factor : float
    """

    def __init__(self, layer: Layer, factor: float) -> None:
        super().__init__()
        self.layer, self.factor = layer, factor
        self.children = {"layer": layer}

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        return x.dtype.type(self.factor) * self.layer.forward(x, train)

    def backward(self, dy: Array) -> Array:  # noqa: D102
        return self.layer.backward(dy.dtype.type(self.factor) * dy)


class Gated(Layer):
    """y = relu((1 - g) S(x) + f F(x)) with a gate g = sigmoid(conv1x1(x) + bias).

    f = g in an exclusive gate; f = 1 in a gate of the shortcut only.

    Parameters
    ----------
    block : ResidualBlock
        Its body F and shortcut S are used; C -> K channels.
    gate : Conv2d
        C -> K channels, 1x1, with the stride of the block.
    bias : float
        Where the gate starts: sigmoid(-6) = 0.0025 leaves the shortcut open.
    exclusive : bool
    """

    def __init__(self, block: ResidualBlock, gate: Conv2d, bias: float, exclusive: bool) -> None:
        super().__init__()
        self.body, self.shortcut, self.gate = block.body, block.shortcut, gate
        self.relu = ReLU()
        self.bias, self.exclusive = bias, exclusive
        self.children = {"body": self.body, "shortcut": self.shortcut, "gate": gate}
        self.children["relu"] = self.relu

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        g = 1 / (1 + np.exp(-(self.gate.forward(x, train) + x.dtype.type(self.bias))))
        F = self.body.forward(x, train)
        S = self.shortcut.forward(x, train)
        self._keep((g, F, S), train)
        return self.relu.forward((1 - g) * S + (g * F if self.exclusive else F), train)

    def backward(self, dy: Array) -> Array:  # noqa: D102
        g, F, S = self._pop()
        dz = self.relu.backward(dy)
        dF = dz * g if self.exclusive else dz
        dg = dz * (F - S) if self.exclusive else -dz * S
        dx = self.body.backward(dF) + self.shortcut.backward(dz * (1 - g))
        return dx + self.gate.backward(dg * g * (1 - g))


class PostSum(Layer):
    """y = after(F(x) + S(x)): a block with other layers behind the sum.

    Parameters
    ----------
    body, shortcut, after : Layer
    """

    def __init__(self, body: Layer, shortcut: Layer, after: Layer) -> None:
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut, after
        self.children = {"body": body, "shortcut": shortcut, "after": after}

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        z = self.body.forward(x, train) + self.shortcut.forward(x, train)
        return self.after.forward(z, train)

    def backward(self, dy: Array) -> Array:  # noqa: D102
        dz = self.after.backward(dy)
        return self.body.backward(dz) + self.shortcut.backward(dz)


Change = Callable[[ResidualBlock, np.random.Generator], Layer]


def _sizes(block: ResidualBlock) -> tuple[int, int, int]:
    """Channels before and after a basic block, and its stride."""
    conv = block.body.children["conv1"]
    C, K = conv.params["w"].shape[2:]
    return C, K, getattr(block.shortcut, "stride", 1)


def _scaled(shortcut: float, body: float) -> Change:
    return lambda block, rng: ResidualBlock(
        Weighted(block.body, body), Weighted(block.shortcut, shortcut)
    )


def _gated(bias: float, exclusive: bool) -> Change:
    def change(block: ResidualBlock, rng: np.random.Generator) -> Layer:
        C, K, stride = _sizes(block)
        return Gated(block, Conv2d(C, K, 1, stride, rng=rng), bias, exclusive)

    return change


def _projected(block: ResidualBlock, rng: np.random.Generator) -> Layer:
    C, K, stride = _sizes(block)
    return ResidualBlock(block.body, Conv2d(C, K, 1, stride, rng=rng))


def _norm_after_sum(block: ResidualBlock, rng: np.random.Generator) -> Layer:
    parts = dict(block.body.children)
    norm = parts.pop("bn2")
    return PostSum(Sequential(**parts), block.shortcut, Sequential(bn=norm, relu=ReLU()))


def _relu_before_sum(block: ResidualBlock, rng: np.random.Generator) -> Layer:
    body = Sequential(**block.body.children, relu2=ReLU())
    return PostSum(body, block.shortcut, Sequential())


def _full_preactivation(block: ResidualBlock, rng: np.random.Generator) -> Layer:
    C, K, stride = _sizes(block)
    old = block.body.children
    body = Sequential(
        bn1=BatchNorm(C), relu1=ReLU(), conv1=old["conv1"],
        bn2=BatchNorm(K), relu2=ReLU(), conv2=old["conv2"],
    )  # fmt: skip
    return PostSum(body, make_shortcut("A", C, K, stride, rng), Sequential())


# the change of a block, and the error of ResNet-110 on CIFAR-10 in the paper (tables 1 and 2, in
# percent, median of five runs); None where it did not converge to an error below 20 %
VARIANTS: dict[str, tuple[Change, float | None]] = {
    "original": (lambda block, rng: block, 6.61),
    "no shortcut": (_scaled(0.0, 1.0), None),
    "shortcut x 0.5": (_scaled(0.5, 1.0), None),
    "shortcut x 0.5, body x 0.5": (_scaled(0.5, 0.5), 12.35),
    "exclusive gate": (_gated(-6, exclusive=True), 8.70),
    "shortcut gate, bias 0": (_gated(0, exclusive=False), 12.86),
    "shortcut gate, bias -6": (_gated(-6, exclusive=False), 6.91),
    "1x1 convolution": (_projected, 12.22),
    "batch norm after the sum": (_norm_after_sum, 8.17),
    "ReLU before the sum": (_relu_before_sum, 7.84),
    "full pre-activation": (_full_preactivation, 6.37),
}


def vary(depth: int, variant: str, rng: Rng = 0) -> Network:
    """ResNet in which every block is changed in one way; the convolutions have the same weights.

    Parameters
    ----------
    depth : int
        6n + 2.
    variant : str
        A key of `VARIANTS`.
    rng : Generator or seed

    Returns
    -------
    net : Network
    """
    net = resnet(depth, rng=rng)
    change, _ = VARIANTS[variant]
    drawn = np.random.default_rng(rng)
    for part in net.children.values():
        for name, block in part.children.items():
            if isinstance(block, ResidualBlock):
                part.children[name] = change(block, drawn)
    return net


def gradients_by_block(net: Network, x: Array, labels: Array) -> Array:
    """Root mean square of the gradient at the input of every block of an untrained net.

    Returns
    -------
    rms : ndarray of shape (blocks,)
        First block first.
    """
    _, dy = net.ops.softmax_cross_entropy(net.forward(x, train=True), labels)
    found = []
    for part in reversed(net.children.values()):
        if not isinstance(part, Sequential):
            dy = part.backward(dy)
            continue
        for block in reversed(part.children.values()):
            dy = block.backward(dy)
            found.append(float(np.sqrt(np.square(dy, dtype=np.float64).mean())))
    return np.array(found[::-1])
