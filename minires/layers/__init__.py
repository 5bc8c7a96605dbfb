"""A layer is an op with its parameters, their gradients, running statistics and a cache."""

from minires.layers.alexnet import AvgPool, Dropout, Flatten, LocalResponseNorm, Tanh
from minires.layers.base import Array, Call, Layer, Rng, Sequential, layer_outputs
from minires.layers.core import (
    BatchNorm,
    Conv2d,
    GlobalAvgPool,
    Identity,
    Linear,
    MaxPool,
    ReLU,
    recompute_statistics,
)
from minires.layers.describe import Description, in_sequence
from minires.layers.fused import BatchNormReLU

__all__ = [
    "Array",
    "AvgPool",
    "BatchNorm",
    "BatchNormReLU",
    "Call",
    "Conv2d",
    "Description",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Identity",
    "Layer",
    "Linear",
    "LocalResponseNorm",
    "MaxPool",
    "ReLU",
    "Rng",
    "Sequential",
    "Tanh",
    "in_sequence",
    "layer_outputs",
    "recompute_statistics",
]
