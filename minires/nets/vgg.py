"""The networks of 16 and 19 layers by the Visual Geometry Group: only 3x3 convolutions.

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015,
arXiv 1409.1556, table 1, columns D and E. The ResNet paper compares its networks with these.

Its multiply-adds for VGG-16 and VGG-19, 15.3 and 19.6 billion, count different things: the first
number fits the convolutions alone (15,346,630,656; with the linear layers 15,470,264,320), the
second one all layers (19,632,062,464; the convolutions alone 19,508,428,800).
"""

from __future__ import annotations

import numpy as np

from minires.errors import InputError
from minires.layers.base import Layer, Rng
from minires.layers.core import BatchNorm, Conv2d, MaxPool, ReLU
from minires.nets.alexnet import classifier, feature_count
from minires.nets.network import Facts, Network

PAPER = "Simonyan and Zisserman 2015, arXiv 1409.1556"
WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # of each stage
SMALLEST = 32  # rows and columns: five poolings halve them to one pixel


def vgg(depth: int, batch_norm: bool = False, *, rng: Rng = 0) -> Network:
    """VGG-16 (138,357,544 parameters) or VGG-19 (143,667,240).

    Parameters
    ----------
    depth : int
        16 or 19 weighted layers.
    batch_norm : bool
        Normalise after each convolution, as torchvision's vgg16_bn does. The convolutions keep
        their biases there, though batch norm cancels them.
    rng : Generator or seed
        Draws the initial weights.

    Returns
    -------
    net : Network

    Raises
    ------
    InputError
        If the depth is another one.
    """
    return build_vgg(vgg_facts(depth, "bn" if batch_norm else ""), rng)


def build_vgg(facts: Facts, rng: Rng) -> Network:
    """The network that these facts describe."""
    rng = np.random.default_rng(rng)
    if min(facts.input_shape[:2]) < SMALLEST:
        raise InputError(
            f"{facts.name}: expected images of at least {SMALLEST}x{SMALLEST}, got "
            f"{facts.input_shape}; choose larger images"
        )
    layers: dict[str, Layer] = {}
    C = facts.input_shape[2]
    for stage, K in enumerate(WIDTHS, start=1):
        for i in range(1, CONVOLUTIONS[facts.depth][stage - 1] + 1):
            layers[f"conv{stage}_{i}"] = Conv2d(C, K, 3, pad=1, bias=True, rng=rng)
            if facts.variant == "bn":
                layers[f"bn{stage}_{i}"] = BatchNorm(K)
            layers[f"relu{stage}_{i}"] = ReLU()
            C = K
        layers[f"pool{stage}"] = MaxPool(2, 2)  # 112, 56, 28, 14 and 7 rows and columns
    inputs = feature_count(layers, facts)
    return Network(facts, **layers, **classifier(inputs, facts.classes, rng, facts.depth - 2))


def vgg_facts(depth: int, variant: str = "") -> Facts:
    """Facts of `vgg(depth, batch_norm)`; the variant is "bn" with batch norm."""
    if depth not in CONVOLUTIONS:
        known = " or ".join(map(str, CONVOLUTIONS))
        raise InputError(f"the depth of vgg must be {known}, got {depth!r}; see table 1")
    name = f"vgg{depth}{variant}"
    return Facts(name, "vgg", int(depth), (224, 224, 3), 1000, PAPER, variant)
