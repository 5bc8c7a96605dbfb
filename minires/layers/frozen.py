"""Layers that training leaves as they are, for a network that is fine-tuned on other data.

The letters: N images of H rows and W columns with C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minires.layers.base import Array, Layer
from minires.layers.core import BatchNorm
from minires.layers.describe import Description, Shape


class FrozenBatchNorm(BatchNorm):
    """Batch normalisation by its running statistics in training, too: y = scale x + shift.

    scale = gamma / sqrt(var + eps), shift = beta - mean scale. Nothing of it is trained, so
    backward computes dx = scale dy alone. The paper freezes batch norm like this for detection
    (appendix A), where a batch has few images.

    Parameters
    ----------
    norm : BatchNorm
        Its parameters and running statistics are shared.
    """

    frozen = True

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__(len(norm.params["gamma"]), norm.eps, norm.momentum)
        self.params, self.buffers = norm.params, norm.buffers
        self.backend, self.name = norm.backend, norm.name

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        gamma, beta = self.params["gamma"], self.params["beta"]
        mean, var = self.buffers["running_mean"], self.buffers["running_var"]
        self._keep(((gamma / np.sqrt(var + self.eps)).astype(x.dtype),), train)
        return self.ops.batchnorm_inference(x, gamma, beta, mean, var, self.eps)

    def backward(self, dy: Array) -> Array:  # noqa: D102
        (scale,) = self._pop()
        return dy * scale

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        return Description("batch norm, frozen", x_shape)


class Frozen(Layer):
    """A layer at the beginning of a network that is not trained, nor is any layer before it.

    It computes as in evaluation: no caches, statistics as they are, no dropout. Backward ends here:
    it returns None, as nothing before needs a gradient. Walks over the network see the layer
    itself, under its own name.

    Parameters
    ----------
    layer : Layer
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.children = layer.children
        for _, below in layer.named_layers():
            below.frozen = True

    def named_layers(self, name: str = "") -> Iterator[tuple[str, Layer]]:  # noqa: D102
        yield from self.layer.named_layers(name)

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        return self.layer.forward(x, train=False)

    def backward(self, dy: Array | None) -> Any:  # noqa: D102
        return None

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        return self.layer.describe(x_shape)
