"""A layer is an op with its parameters, their gradients, running statistics and the cache for backward."""

from minires.layers.base import Array, Layer, Rng, Sequential, layer_outputs
from minires.layers.core import (
    BatchNorm,
    BatchNormReLU,
    Conv2d,
    FirstConv2d,
    GlobalAvgPool,
    Linear,
    MaxPool,
    ReLU,
    recompute_statistics,
)

__all__ = [
    "Array",
    "BatchNorm",
    "BatchNormReLU",
    "Conv2d",
    "FirstConv2d",
    "GlobalAvgPool",
    "Layer",
    "Linear",
    "MaxPool",
    "ReLU",
    "Rng",
    "Sequential",
    "layer_outputs",
    "recompute_statistics",
]
