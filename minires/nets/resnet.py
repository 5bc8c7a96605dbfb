"""The networks of the paper: a block adds its input to what its body computes; depth is data.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, arXiv 1512.03385. Sections,
tables and figures in this file are those of the paper.

The letters: N images of H rows and W columns with C channels; K filters, so K channels of the
output. A weighted layer is a convolution or the linear layer; n blocks of two make a stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from minires.errors import InputError
from minires.layers.base import Array, Layer, Rng, Sequential
from minires.layers.core import BatchNorm, Conv2d, GlobalAvgPool, Identity, Linear, MaxPool, ReLU
from minires.layers.describe import Description, Shape, image, in_sequence
from minires.nets.network import Facts, Network

Option = Literal["A", "B", "C"]
Body = Callable[[int, int, int, Rng], Sequential]  # make_body(C, K, stride, rng)

PAPER = "He et al. 2015, arXiv 1512.03385"

CIFAR_WIDTHS = (16, 32, 64)  # section 4.2
IMAGENET_BLOCKS = {  # table 1
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
TORCHVISION = "-torchvision"  # the variant of these networks that torchvision and others publish


# ------------------------------------------------------------------------------------- blocks


class ResidualBlock(Layer):
    """y = relu(F(x) + x): the body F learns what to add to its input (equation 1, figure 2).

    Parameters
    ----------
    body, shortcut : Layer
        Same output shape.
    """

    def __init__(self, body: Layer, shortcut: Layer) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut
        self.relu: Layer = ReLU()
        self.children = {"body": self.body, "shortcut": self.shortcut, "relu": self.relu}

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        return self.relu.forward(
            self.body.forward(x, train) + self.shortcut.forward(x, train), train
        )

    def backward(self, dy: Array) -> Array:  # noqa: D102
        dz = self.relu.backward(dy)
        return self.body.backward(dz) + self.shortcut.backward(dz)

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        body = self.body.describe(x_shape)
        shortcut = replace(self.shortcut.describe(x_shape), side=True)
        relu = self.relu.describe(body.y_shape)
        return in_sequence("residual block", x_shape, body=body, shortcut=shortcut, relu=relu)


class PlainBlock(Layer):
    """y = relu(H(x)): the twin of the residual block, with the same body and no shortcut.

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

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        body = self.body.describe(x_shape)
        relu = self.relu.describe(body.y_shape)
        return in_sequence("plain block", x_shape, body=body, relu=relu)


# ------------------------------------------------------------------------------------- bodies


def _conv_norm(
    C: int, K: int, size: int, stride: int, rng: Rng, i: int | str = ""
) -> dict[str, Layer]:
    """Make a convolution that keeps the map size for stride 1, and its batch norm."""
    conv = Conv2d(C, K, size, stride, pad=size // 2, rng=rng)
    return {f"conv{i}": conv, f"bn{i}": BatchNorm(K)}


def basic_body(C: int, K: int, stride: int, rng: Rng) -> Sequential:
    """Two 3x3 convolutions with a ReLU between them (figure 5, left)."""
    return Sequential(
        **_conv_norm(C, K, 3, stride, rng, 1),
        relu1=ReLU(),
        **_conv_norm(K, K, 3, 1, rng, 2),
    )


def bottleneck_body(
    C: int, K: int, stride: int, rng: Rng, stride_in_3x3: bool = False
) -> Sequential:
    """1x1 down to K/4 channels, 3x3, 1x1 up to K (figure 5, right); the first 1x1 strides."""
    narrow = K // 4
    first, second = (1, stride) if stride_in_3x3 else (stride, 1)
    return Sequential(
        **_conv_norm(C, narrow, 1, first, rng, 1),
        relu1=ReLU(),
        **_conv_norm(narrow, narrow, 3, second, rng, 2),
        relu2=ReLU(),
        **_conv_norm(narrow, K, 1, 1, rng, 3),
    )


# ---------------------------------------------------------------------------------- shortcuts


class ZeroPadShortcut(Layer):
    """Option A where the shape changes: every stride-th pixel, and zeros for the new channels.

    y[n, i, j, c] = x[n, i*stride, j*stride, c] for c < C, and 0 for C <= c < K. No parameters.

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

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        H, W = image(self.name, x_shape)
        s = self.stride
        y_shape = (-(-H // s), -(-W // s), self.K)  # rounded up: pixel 0 is always taken
        return Description("zero padding", y_shape, stride=(s, s))


def make_shortcut(option: str, C: int, K: int, stride: int, rng: Rng) -> Layer:
    """Shortcut of section 4.1: A without parameters; B projects where shapes change, C always."""
    changes = stride != 1 or C != K
    if option == "C" or (option == "B" and changes):
        return Sequential(**_conv_norm(C, K, 1, stride, rng))
    return ZeroPadShortcut(K, stride) if changes else Identity()


# ----------------------------------------------------------------------------------- networks


def _stage(
    blocks: int, C: int, K: int, stride: int, option: str | None, make_body: Body, rng: Rng
) -> Sequential:
    """Blocks of one map size; the first one changes the shape. `option` None makes them plain."""
    made: dict[str, Layer] = {}
    for i in range(1, blocks + 1):
        body = make_body(C, K, stride, rng)
        if option is None:
            made[f"block{i}"] = PlainBlock(body)
        else:
            made[f"block{i}"] = ResidualBlock(body, make_shortcut(option, C, K, stride, rng))
        C, stride = K, 1
    return Sequential(**made)


def resnet(depth: int, shortcut: Option = "A", *, rng: Rng = 0) -> Network:
    """Residual network for CIFAR-10 (section 4.2): 6n + 2 weighted layers, 3n shortcuts.

    Parameters
    ----------
    depth : int
        6n + 2: 20, 32, 44, 56, 110 in the paper.
    shortcut : {"A", "B", "C"}
        A: identity with zero padding, the paper's choice; B: projections where the shape changes;
        C: projections only.
    rng : Generator or seed
        Draws the initial weights.

    Returns
    -------
    net : Network
        In float32, on the NumPy backend; see `Layer.astype` and `Layer.use`.

    Raises
    ------
    InputError
        If the depth is not 6n + 2 or the shortcut unknown.
    """
    return build_cifar(resnet_facts(depth, shortcut), rng)


def plain(depth: int, *, rng: Rng = 0) -> Network:
    """`resnet(depth)` without shortcuts: the same layers, with the same weights for the same rng.

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
        stage1=_stage(n, c1, c1, 1, option, basic_body, rng),  # (N, 32, 32, 16)
        stage2=_stage(n, c1, c2, 2, option, basic_body, rng),  # (N, 16, 16, 32)
        stage3=_stage(n, c2, c3, 2, option, basic_body, rng),  # (N, 8, 8, 64)
        pool=GlobalAvgPool(),  # (N, 64)
        fc=Linear(c3, facts.classes, rng=rng),
    )


def imagenet_resnet(
    depth: int, shortcut: Option | Literal["-torchvision"] | None = None, *, rng: Rng = 0
) -> Network:
    """Residual network for ImageNet (table 1): 1000 classes, 224x224 images.

    Parameters
    ----------
    depth : int
        18 or 34 (basic blocks), 50, 101 or 152 (bottlenecks).
    shortcut : {"A", "B", "C", "-torchvision"}, optional
        By default the one that table 1 counts: A up to 34 layers, B beyond. "-torchvision" is the
        network whose weights torchvision, timm and Hugging Face publish: option B, and bottlenecks
        that stride in the 3x3 convolution.
    rng : Generator or seed

    Returns
    -------
    net : Network

    Raises
    ------
    InputError
        If the paper has no such depth, or the shortcut is unknown.
    """
    return build_imagenet(imagenet_facts(depth, shortcut), rng)


def imagenet_plain(depth: int, *, rng: Rng = 0) -> Network:
    """`imagenet_resnet(depth)` without shortcuts (figure 3, middle; table 2): 18 or 34 layers.

    Parameters
    ----------
    depth : int
    rng : Generator or seed

    Returns
    -------
    net : Network

    Raises
    ------
    InputError
        If the paper has no plain network of that depth.
    """
    return build_imagenet(imagenet_plain_facts(depth), rng)


def build_imagenet(facts: Facts, rng: Rng) -> Network:
    """Network of table 1 that these facts describe: plain, or with shortcuts."""
    rng = np.random.default_rng(rng)
    bottleneck = facts.depth >= 50
    make_body: Body = bottleneck_body if bottleneck else basic_body
    option: str | None = facts.variant or _counted_shortcut(facts.depth)
    if facts.family == "imagenet-plain":
        option = None
    elif facts.variant == TORCHVISION:
        option = "B"
        make_body = partial(bottleneck_body, stride_in_3x3=True) if bottleneck else basic_body
    stages: dict[str, Layer] = {}
    C = 64
    for i, blocks in enumerate(IMAGENET_BLOCKS[facts.depth]):
        K = 64 * 2**i * (4 if bottleneck else 1)
        stride = 1 if i == 0 else 2
        stages[f"stage{i + 1}"] = _stage(blocks, C, K, stride, option, make_body, rng)
        C = K
    return Network(
        facts,
        **_conv_norm(facts.input_shape[2], 64, 7, 2, rng),  # (N, 112, 112, 64)
        relu=ReLU(),
        maxpool=MaxPool(3, 2, 1),  # (N, 56, 56, 64)
        **stages,  # 56, 28, 14 and 7 rows and columns
        pool=GlobalAvgPool(),
        fc=Linear(C, facts.classes, rng=rng),
    )


# ------------------------------------------------------------------ facts: what a name stands for


def plain_facts(depth: int) -> Facts:
    """Facts of `plain(depth)`."""
    return _cifar_facts("plain", depth)


def resnet_facts(depth: int, shortcut: str = "A") -> Facts:
    """Facts of `resnet(depth, shortcut)`."""
    _check_option(shortcut)
    return _cifar_facts("resnet", depth, "" if shortcut == "A" else shortcut)


def _cifar_facts(family: str, depth: int, variant: str = "") -> Facts:
    if not isinstance(depth, (int, np.integer)) or depth < 8 or depth % 6 != 2:
        raise InputError(
            "depth must be 6n + 2 with n >= 1 (8, 14, 20, 32, 44, 56, 110, ...), "
            f"got {depth!r}; paper, section 4.2"
        )
    name = f"{family}{depth}{variant}"
    return Facts(name, family, int(depth), (32, 32, 3), 10, PAPER, variant)


def imagenet_facts(depth: int, shortcut: str | None = None) -> Facts:
    """Facts of `imagenet_resnet(depth, shortcut)`."""
    _check_depth(depth, IMAGENET_BLOCKS, "table 1")
    counted = _counted_shortcut(depth)
    if shortcut != TORCHVISION:
        _check_option(shortcut or counted)
    return _imagenet_facts("imagenet-resnet", depth, shortcut if shortcut != counted else None)


def imagenet_plain_facts(depth: int) -> Facts:
    """Facts of `imagenet_plain(depth)`."""
    _check_depth(depth, (18, 34), "table 2")
    return _imagenet_facts("imagenet-plain", depth)


def _imagenet_facts(family: str, depth: int, variant: str | None = None) -> Facts:
    name = f"{family}{depth}{variant or ''}"
    return Facts(name, family, int(depth), (224, 224, 3), 1000, PAPER, variant or "")


def _check_depth(depth: int, known: Iterable[int], table: str) -> None:
    if depth not in known:
        raise InputError(
            f"depth must be one of {', '.join(map(str, known))}, got {depth!r}; see {table}"
        )


def _counted_shortcut(depth: int) -> str:
    """The shortcut that table 1 counts: A up to 34 layers, B beyond."""
    return "B" if depth >= 50 else "A"


def _check_option(shortcut: str) -> None:
    if shortcut not in ("A", "B", "C"):
        raise InputError(f"shortcut must be A, B or C, got {shortcut!r}")
