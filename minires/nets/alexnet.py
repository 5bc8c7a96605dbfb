"""AlexNet, its single tower, and a four-layer network for CIFAR-10.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS
2012. Sections and figures in this file are those of the paper.

The letters: N images of H rows and W columns with C channels; K filters, so K channels of the
output.
"""

from __future__ import annotations

import numpy as np

from minires.errors import InputError
from minires.layers.alexnet import Dropout, Flatten, LocalResponseNorm, Tanh
from minires.layers.base import Layer, Rng, Sequential
from minires.layers.core import BatchNorm, Conv2d, Linear, MaxPool, ReLU
from minires.nets.network import Facts, Network

PAPER = "Krizhevsky et al. 2012, NIPS"
TORCHVISION = "Krizhevsky 2014, arXiv 1404.5997"
TORCHVISION_VARIANT = "-torchvision"
SMALLEST = 67  # rows and columns that leave one pixel after the last pooling
CIFAR_VARIANTS = ("tanh", "bn", "nolrn", "pool2", "dropout")  # in the order of a canonical name


# ---------------------------------------------------------------------------- networks for ImageNet


def alexnet(image_size: int = 227, *, rng: Rng = 0) -> Network:
    """AlexNet with the two groups of the paper (figure 2): 60,965,224 parameters.

    The paper gives 224 x 224 images, from which 11 x 11 windows at stride 4 make no whole number of
    outputs: (224 - 11) / 4 + 1 = 54.25. With 227 it is the paper's 55, without padding.

    Convolutions 2, 4 and 5 have two groups: each half of the filters sees one half of the channels,
    those on its own GPU. Convolution 3 and the linear layers see all channels.

    Parameters
    ----------
    image_size : int
        Rows and columns of an image, at least 67. The features before the linear layers are
        6 x 6 x 256 for 227 and 1 x 1 x 256 for 67.
    rng : Generator or seed
        Draws the initial weights: He's, see `Conv2d`. The paper draws all from N(0, 0.01^2), and
        begins with biases of 1 behind convolutions 2, 4, 5 and in the hidden linear layers.

    Returns
    -------
    net : Network

    Raises
    ------
    InputError
        If the images are too small.
    """
    return build_alexnet(alexnet_facts(image_size), rng)


def alexnet_torchvision(*, rng: Rng = 0) -> Network:
    """The single tower of torchvision's `alexnet`: 61,100,840 parameters, no LRN, no groups.

    It has fewer filters, takes images of 224 x 224 with a border of 2, and drops out before the
    linear layers, not behind them.

    Parameters
    ----------
    rng : Generator or seed
        Draws the initial weights.

    Returns
    -------
    net : Network
    """
    return build_alexnet(torchvision_facts(), rng)


def build_alexnet(facts: Facts, rng: Rng) -> Network:
    """AlexNet in the variant and for the images that these facts describe."""
    rng = np.random.default_rng(rng)
    if min(facts.input_shape[:2]) < SMALLEST:
        raise InputError(
            f"{facts.name}: expected images of at least {SMALLEST}x{SMALLEST}, got "
            f"{facts.input_shape}; train alexnet-cifar on small ones"
        )
    one_tower = facts.variant == TORCHVISION_VARIANT
    make_features = _single_tower if one_tower else _two_towers
    features = make_features(facts.input_shape[2], rng)
    inputs = feature_count(features, facts)
    return Network(facts, **features, **classifier(inputs, facts.classes, rng, 6, one_tower))


def _two_towers(C: int, rng: Rng) -> dict[str, Layer]:
    """The five convolutions of the paper (section 3.5)."""
    return {
        "conv1": Conv2d(C, 96, 11, 4, bias=True, rng=rng),  # (N, 55, 55, 96)
        "relu1": ReLU(),
        "lrn1": LocalResponseNorm(),
        "pool1": MaxPool(3, 2),  # (N, 27, 27, 96)
        "conv2": Conv2d(96, 256, 5, pad=2, groups=2, bias=True, rng=rng),
        "relu2": ReLU(),
        "lrn2": LocalResponseNorm(),
        "pool2": MaxPool(3, 2),  # (N, 13, 13, 256)
        "conv3": Conv2d(256, 384, 3, pad=1, bias=True, rng=rng),
        "relu3": ReLU(),
        "conv4": Conv2d(384, 384, 3, pad=1, groups=2, bias=True, rng=rng),
        "relu4": ReLU(),
        "conv5": Conv2d(384, 256, 3, pad=1, groups=2, bias=True, rng=rng),
        "relu5": ReLU(),
        "pool5": MaxPool(3, 2),  # (N, 6, 6, 256)
    }


def _single_tower(C: int, rng: Rng) -> dict[str, Layer]:
    """The five convolutions of torchvision's version."""
    return {
        "conv1": Conv2d(C, 64, 11, 4, 2, bias=True, rng=rng),  # (N, 55, 55, 64)
        "relu1": ReLU(),
        "pool1": MaxPool(3, 2),  # (N, 27, 27, 64)
        "conv2": Conv2d(64, 192, 5, pad=2, bias=True, rng=rng),
        "relu2": ReLU(),
        "pool2": MaxPool(3, 2),  # (N, 13, 13, 192)
        "conv3": Conv2d(192, 384, 3, pad=1, bias=True, rng=rng),
        "relu3": ReLU(),
        "conv4": Conv2d(384, 256, 3, pad=1, bias=True, rng=rng),
        "relu4": ReLU(),
        "conv5": Conv2d(256, 256, 3, pad=1, bias=True, rng=rng),
        "relu5": ReLU(),
        "pool5": MaxPool(3, 2),  # (N, 6, 6, 256)
    }


def feature_count(features: dict[str, Layer], facts: Facts) -> int:
    """How many numbers these layers make of an image."""
    described = Sequential(**features, flat=Flatten()).describe(facts.input_shape)
    return described.y_shape[0]


def classifier(
    inputs: int, classes: int, rng: Rng, first: int, drop_inputs: bool = False
) -> dict[str, Layer]:
    """Two hidden linear layers of 4096 with ReLU and dropout, and the output layer.

    Parameters
    ----------
    inputs, classes : int
    rng : Generator
    first : int
        Number of the first linear layer, in its name.
    drop_inputs : bool
        Drop out the inputs of the first two linear layers, not their outputs.
    """
    layers: dict[str, Layer] = {"flat": Flatten()}
    for i, C in ((first, inputs), (first + 1, 4096)):
        dropped = {f"drop{i}": Dropout(0.5)}
        linear = {f"fc{i}": Linear(C, 4096, rng=rng), f"relu{i}": ReLU()}
        layers |= dropped | linear if drop_inputs else linear | dropped
    layers[f"fc{first + 2}"] = Linear(4096, classes, rng=rng)
    return layers


# ---------------------------------------------------------------------------- networks for CIFAR-10


def alexnet_cifar(*variants: str, rng: Rng = 0) -> Network:
    """Four-layer network for 32 x 32 images, on which ReLU and tanh race (figure 1).

    The paper does not publish the architecture of its four-layer network for CIFAR-10. This one is
    ours, after the examples of cuda-convnet, the author's program of that time: three convolutions
    of 5 x 5 with 32, 32 and 64 filters, each with a max pooling that halves the map; local response
    normalisation after the first two; one linear layer.

    Parameters
    ----------
    *variants : str
        "tanh": tanh in place of ReLU. "bn": batch norm between convolution and activation, which
        then has no bias. "nolrn": no local response normalisation. "pool2": windows of 2 x 2 that
        do not overlap, in place of 3 x 3 with a border of 1; maps and parameters are the same.
        "dropout": half of the features in front of the linear layer.
    rng : Generator or seed
        Draws the initial weights: the same for all variants of one seed, but for batch norm's.

    Returns
    -------
    net : Network

    Raises
    ------
    InputError
        If a variant is unknown or given twice.
    """
    return build_cifar(cifar_facts(*variants), rng)


def build_cifar(facts: Facts, rng: Rng) -> Network:
    """The four-layer network in the variants that these facts name."""
    rng = np.random.default_rng(rng)
    variants = set(facts.variant.split("-"))
    layers: dict[str, Layer] = {}
    C = facts.input_shape[2]
    for i, K in ((1, 32), (2, 32), (3, 64)):
        norm = "bn" in variants
        layers[f"conv{i}"] = Conv2d(C, K, 5, pad=2, bias=not norm, rng=rng)
        if norm:
            layers[f"bn{i}"] = BatchNorm(K)
        layers[f"act{i}"] = Tanh() if "tanh" in variants else ReLU()
        if i < 3 and "nolrn" not in variants:
            layers[f"lrn{i}"] = LocalResponseNorm()
        layers[f"pool{i}"] = MaxPool(2, 2) if "pool2" in variants else MaxPool(3, 2, 1)
        C = K  # (N, 16, 16, 32), (N, 8, 8, 32), (N, 4, 4, 64)
    inputs = feature_count(layers, facts)
    layers["flat"] = Flatten()  # (N, 1024)
    if "dropout" in variants:
        layers["drop"] = Dropout(0.5)
    return Network(facts, **layers, fc=Linear(inputs, facts.classes, rng=rng))


# ------------------------------------------------------------------- facts: what a name stands for


def alexnet_facts(image_size: int = 227) -> Facts:
    """Facts of `alexnet(image_size)`."""
    if not isinstance(image_size, (int, np.integer)) or image_size < SMALLEST:
        raise InputError(
            f"alexnet: image_size must be an integer of at least {SMALLEST}, got {image_size!r}; "
            "the paper's windows fit 227"
        )
    side = int(image_size)
    return Facts("alexnet", "alexnet", 8, (side, side, 3), 1000, PAPER)


def torchvision_facts() -> Facts:
    """Facts of `alexnet_torchvision()`."""
    name = f"alexnet{TORCHVISION_VARIANT}"
    return Facts(name, "alexnet", 8, (224, 224, 3), 1000, TORCHVISION, TORCHVISION_VARIANT)


def cifar_facts(*variants: str) -> Facts:
    """Facts of `alexnet_cifar(*variants)`."""
    unknown = [v for v in variants if v not in CIFAR_VARIANTS]
    if unknown or len(set(variants)) < len(variants):
        raise InputError(
            f"the variants of alexnet-cifar are {', '.join(CIFAR_VARIANTS)}, each at most once, "
            f"got {', '.join(map(repr, variants))}; correct them"
        )
    ordered = [v for v in CIFAR_VARIANTS if v in variants]
    variant = "".join(f"-{v}" for v in ordered)
    name = f"alexnet-cifar{variant}"
    return Facts(name, "alexnet-cifar", 4, (32, 32, 3), 10, f"after {PAPER}", variant)
