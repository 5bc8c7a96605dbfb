"""The networks of the paper. A block adds its input to what its body makes of it; depth is data.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, arXiv 1512.03385; sections in the docstrings are its.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from minires.errors import InputError
from minires.layers.base import Array, Layer, Rng, Sequential
from minires.layers.core import BatchNorm, Conv2d, GlobalAvgPool, Linear, MaxPool, ReLU
from minires.nets.network import Facts, Network

Option = Literal["A", "B", "C"]

PAPER = "He et al. 2015, arXiv 1512.03385"

CIFAR_WIDTHS = (16, 32, 64)  # section 4.2
IMAGENET_BLOCKS = {  # table 1
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResidualBlock(Layer):
    """y = relu(F(x) + x): the body F learns what to add to its input (equation 1, figure 2).

    Parameters
    ----------
    body, shortcut : Layer
        Same output shape.
    """

    def __init__(self, body: Layer, shortcut: Layer) -> None:
        super().__init__()
        self.body, self.shortcut, self.relu = body, shortcut, ReLU()
        self.children = {"body": self.body, "shortcut": self.shortcut, "relu": self.relu}

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        return self.relu.forward(
            self.body.forward(x, train) + self.shortcut.forward(x, train), train
        )

    def backward(self, dy: Array) -> Array:  # noqa: D102
        dz = self.relu.backward(dy)
        return self.body.backward(dz) + self.shortcut.backward(dz)


class PlainBlock(Layer):
    """y = relu(H(x)): the residual block's twin, the same body and no shortcut.

    Parameters
    ----------
    body : Layer
    """

    def __init__(self, body: Layer) -> None:
        super().__init__()
        self.body = body
        self.relu: Layer = ReLU()
        self.children = {"body": self.body, "relu": self.relu}

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        return self.relu.forward(self.body.forward(x, train), train)

    def backward(self, dy: Array) -> Array:  # noqa: D102
        dz = self.relu.backward(dy)
        return self.body.backward(dz)


class Identity(Layer):
    """The shortcut between equal shapes: y = x."""

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        return x

    def backward(self, dy: Array) -> Array:  # noqa: D102
        return dy


class ZeroPadShortcut(Layer):
    """Option A where the shape changes: every stride-th pixel, and zeros for the channels that are new.

    y[n, i, j, c] = x[n, i*stride, j*stride, c] for c < C, and 0 for C <= c < K. It has no parameters.

    Parameters
    ----------
    K, stride : int
    """

    def __init__(self, K: int, stride: int) -> None:
        super().__init__()
        self.K, self.stride = K, stride

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        sampled = x[:, :: self.stride, :: self.stride]
        y = np.zeros((*sampled.shape[:3], self.K), x.dtype)
        y[..., : x.shape[3]] = sampled
        self._keep((x.shape,), train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        (shape,) = self._pop()
        dx = np.zeros(shape, dy.dtype)
        dx[:, :: self.stride, :: self.stride] = dy[..., : shape[3]]
        return dx


def _conv_norm(
    C: int, K: int, size: int, stride: int, rng: Rng, i: int | str = ""
) -> dict[str, Layer]:
    conv = Conv2d(C, K, size, stride, pad=size // 2, rng=rng)
    return {f"conv{i}": conv, f"bn{i}": BatchNorm(K)}


def basic_body(C: int, K: int, stride: int, rng: Rng) -> Sequential:
    """Two 3x3 convolutions with a ReLU between them (figure 5, left)."""
    return Sequential(
        **_conv_norm(C, K, 3, stride, rng, 1), relu1=ReLU(), **_conv_norm(K, K, 3, 1, rng, 2)
    )


def bottleneck_body(C: int, K: int, stride: int, rng: Rng) -> Sequential:
    """1x1 down to K/4 channels, 3x3, 1x1 up to K (figure 5, right); the first 1x1 strides, as in the paper."""
    narrow = _conv_norm(C, K // 4, 1, stride, rng, 1)
    middle = _conv_norm(K // 4, K // 4, 3, 1, rng, 2)
    return Sequential(
        **narrow, relu1=ReLU(), **middle, relu2=ReLU(), **_conv_norm(K // 4, K, 1, 1, rng, 3)
    )


def make_shortcut(option: str, C: int, K: int, stride: int, rng: Rng) -> Layer:
    """Shortcut of section 4.1: A never has parameters, B projects where the shape changes, C projects always."""
    changes = stride != 1 or C != K
    if option == "C" or (option == "B" and changes):
        return Sequential(**_conv_norm(C, K, 1, stride, rng))
    return ZeroPadShortcut(K, stride) if changes else Identity()


def _stage(
    blocks: int, C: int, K: int, stride: int, option: str | None, bottleneck: bool, rng: Rng
) -> Sequential:
    """Blocks of one map size; the first one changes the shape. `option` None makes them plain."""
    make_body, made = bottleneck_body if bottleneck else basic_body, dict[str, Layer]()
    for i in range(1, blocks + 1):
        body = make_body(C, K, stride, rng)
        shortcut = make_shortcut(option, C, K, stride, rng) if option else None
        made[f"block{i}"] = ResidualBlock(body, shortcut) if shortcut else PlainBlock(body)
        C, stride = K, 1
    return Sequential(**made)


def plain_facts(depth: int) -> Facts:
    """Facts of `plain(depth)`."""
    return _cifar_facts("plain", depth, "")


def resnet_facts(depth: int, shortcut: str = "A") -> Facts:
    """Facts of `resnet(depth, shortcut)`."""
    _check_option(shortcut)
    return _cifar_facts("resnet", depth, "" if shortcut == "A" else shortcut)


def _cifar_facts(family: str, depth: int, variant: str) -> Facts:
    if not isinstance(depth, (int, np.integer)) or depth < 8 or depth % 6 != 2:
        raise InputError(
            "depth must be 6n + 2 with n >= 1 (8, 14, 20, 32, 44, 56, 110, ...), "
            f"got {depth!r}; paper, section 4.2"
        )
    name = f"{family}{depth}{variant}"
    return Facts(name, family, int(depth), (32, 32, 3), 10, PAPER, variant)


def build_cifar(facts: Facts, rng: Rng) -> Network:
    """Network of section 4.2 that these facts describe: plain, or with shortcuts."""
    rng = np.random.default_rng(rng)
    n = (facts.depth - 2) // 6
    c1, c2, c3 = CIFAR_WIDTHS
    option = None if facts.family == "plain" else facts.variant or "A"
    return Network(
        facts,
        **_conv_norm(facts.input_shape[2], c1, 3, 1, rng),
        relu=ReLU(),
        stage1=_stage(n, c1, c1, 1, option, False, rng),  # (N, 32, 32, 16)
        stage2=_stage(n, c1, c2, 2, option, False, rng),  # (N, 16, 16, 32)
        stage3=_stage(n, c2, c3, 2, option, False, rng),  # (N, 8, 8, 64)
        pool=GlobalAvgPool(),
        fc=Linear(c3, facts.classes, rng=rng),
    )


def resnet(depth: int, shortcut: Option = "A", *, rng: Rng = 0) -> Network:
    """Residual network for CIFAR-10 (section 4.2): 6n + 2 weighted layers, 3n shortcuts.

    Parameters
    ----------
    depth : int
        6n + 2: 20, 32, 44, 56, 110 in the paper.
    shortcut : {"A", "B", "C"}
        A: identity with zero padding, the paper's choice; B: projections where the shape changes; C: all projections.
    rng : Generator or seed
        Draws the initial weights.

    Returns
    -------
    net : Network
        Float32, on the NumPy backend; see `Layer.astype` and `Layer.use`.

    Raises
    ------
    InputError
        If the depth is not 6n + 2 or the shortcut unknown.
    """
    return build_cifar(resnet_facts(depth, shortcut), rng)


def plain(depth: int, *, rng: Rng = 0) -> Network:
    """`resnet(depth)` without the shortcuts: the same layers, and for the same rng the same initial weights.

    Parameters
    ----------
    depth : int
        6n + 2.
    rng : Generator or seed

    Returns
    -------
    net : Network
    """
    return build_cifar(plain_facts(depth), rng)


def imagenet_resnet(depth: int, shortcut: Option | None = None, *, rng: Rng = 0) -> Network:
    """Residual network for ImageNet (table 1), to be read and audited: 1000 classes, 224x224 images.

    Parameters
    ----------
    depth : int
        18 or 34 (basic blocks), 50, 101 or 152 (bottlenecks).
    shortcut : {"A", "B", "C"}, optional
        By default the one that table 1 counts: A up to 34 layers, B beyond.
    rng : Generator or seed

    Returns
    -------
    net : Network

    Raises
    ------
    InputError
        If the depth is another one or the shortcut unknown.
    """
    return build_imagenet(imagenet_facts(depth, shortcut), rng)


def imagenet_facts(depth: int, shortcut: str | None = None) -> Facts:
    """Facts of `imagenet_resnet(depth, shortcut)`."""
    if depth not in IMAGENET_BLOCKS:
        raise InputError(
            f"depth must be one of {', '.join(map(str, IMAGENET_BLOCKS))}, "
            f"got {depth!r}; see table 1"
        )
    counted = _counted_shortcut(depth)
    _check_option(shortcut or counted)
    variant = "" if shortcut in (None, counted) else str(shortcut)
    name = f"imagenet-resnet{depth}{variant}"
    return Facts(name, "imagenet-resnet", int(depth), (224, 224, 3), 1000, PAPER, variant)


def build_imagenet(facts: Facts, rng: Rng) -> Network:
    """Network of table 1 that these facts describe."""
    rng = np.random.default_rng(rng)
    bottleneck = facts.depth >= 50
    option = facts.variant or _counted_shortcut(facts.depth)
    stages: dict[str, Layer] = {}
    C = 64
    for i, blocks in enumerate(IMAGENET_BLOCKS[facts.depth]):
        K = 64 * 2**i * (4 if bottleneck else 1)
        stride = 1 if i == 0 else 2
        stages[f"stage{i + 1}"] = _stage(blocks, C, K, stride, option, bottleneck, rng)
        C = K
    stem = {
        **_conv_norm(facts.input_shape[2], 64, 7, 2, rng),
        "relu": ReLU(),
        "maxpool": MaxPool(3, 2, 1),
    }
    fc = Linear(C, facts.classes, rng=rng)
    return Network(facts, **stem, **stages, pool=GlobalAvgPool(), fc=fc)


def _counted_shortcut(depth: int) -> str:
    """The shortcut that table 1 counts: A up to 34 layers, B beyond."""
    return "B" if depth >= 50 else "A"


def _check_option(shortcut: str) -> None:
    if shortcut not in ("A", "B", "C"):
        raise InputError(f"shortcut must be A, B or C, got {shortcut!r}")
