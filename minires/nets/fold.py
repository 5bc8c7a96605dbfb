"""Rewrite a trained network for fast inference: no batch norm is left."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NoReturn

import numpy as np

from minires.errors import InputError
from minires.layers.base import Array, Layer, Sequential
from minires.layers.core import BatchNorm, Conv2d, Identity, ReLU
from minires.layers.describe import Description, Shape
from minires.layers.fused import BatchNormReLU
from minires.nets.fuse import FusedResidualBlock
from minires.nets.network import Network
from minires.nets.resnet import PlainBlock, ResidualBlock

TRAINING = "a folded network is for inference only; train the network that it was folded from"


class FoldedConv2d(Conv2d):
    """A convolution with all that follows it: batch norm, the shortcut's addition, ReLU.

    With batch norm's scale s = gamma / sqrt(running_var + eps), its output is
    s * conv2d(x, w) + beta - s * running_mean = conv2d(x, s * w) + (beta - s * running_mean).

    Compiled ops transform the filters at the first call and keep them as the layer's cache. To
    change w afterwards, assign another array to params["w"], or call `forget`, as `load_state`
    does.

    Parameters
    ----------
    conv : Conv2d
        Its parameters are copied.
    norm : BatchNorm, optional
        The batch norm after it, whose running statistics are folded into w and b.
    rectify : bool
        Compute max(y, 0) at the end.
    """

    def __init__(self, conv: Conv2d, norm: BatchNorm | None = None, rectify: bool = False) -> None:
        Layer.__init__(self)
        self.stride, self.pad, self.groups = conv.stride, conv.pad, conv.groups
        self.backend, self.name, self.rectify = conv.backend, conv.name, rectify
        w = conv.params["w"]
        b = conv.params.get("b", np.zeros(w.shape[3], w.dtype))
        if norm is not None:
            s = norm.params["gamma"] / np.sqrt(norm.buffers["running_var"] + norm.eps)
            w = w * s
            b = norm.params["beta"] + s * (b - norm.buffers["running_mean"])
        self.params = {"w": w.astype(conv.params["w"].dtype), "b": b.astype(conv.params["w"].dtype)}

    def forward(self, x: Array, train: bool = False, shortcut: Array | None = None) -> Array:
        """Compute y; `shortcut`, of the shape of y, is added before the ReLU."""
        if train:
            raise InputError(f"{self.name}: {TRAINING}")
        w, b = self.params["w"], self.params["b"]
        cache = self._cache  # another thread may change it meanwhile
        if cache is None or cache[0] is not w:
            cache = self._cache = (w, {})
        kept = cache[1]
        return self.ops.conv2d_inference(
            x, w, b, self.stride, self.pad, self.groups, shortcut, self.rectify, kept
        )

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle without the kept filters: another processor needs them in other order."""
        return self.__dict__ | {"_cache": None}

    def backward(self, dy: Array) -> NoReturn:
        """Raise `InputError`: there is nothing to differentiate."""
        raise InputError(f"{self.name}: {TRAINING}")

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        plain = super().describe(x_shape)
        return Description(
            plain.kind + " + relu" * self.rectify,
            plain.y_shape,
            plain.macs,
            window=plain.window,
            stride=plain.stride,
        )


class FoldedResidualBlock(ResidualBlock):
    """y = max(F(x) + x, 0), where the last convolution of F adds x and rectifies."""

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        *first, last = self.body.children.values()
        f = x
        for layer in first:
            f = layer.forward(f, train)
        return last.forward(f, train, self.shortcut.forward(x, train))  # type: ignore[call-arg]


def fold(net: Network) -> Network:
    """Return an inference-only copy of a network: equal results to rounding, fewer passes.

    Each batch norm that follows a convolution moves into its weights, and the ReLU or the addition
    after it into the last loop of the op. A frozen batch norm stays a layer. `net` stays as it is.

    Parameters
    ----------
    net : Network
        Its running statistics should be final. Layers of unknown classes are copied unchanged, and
        so are folded ones. Ops given by `net.use` do not reach the copy.

    Returns
    -------
    folded : Network
        `folded.forward(x)` equals `net.forward(x)` to rounding. `train=True` raises `InputError`.

    Raises
    ------
    InputError
        If `net` is of a class with a forward of its own.
    """
    if type(net).forward is not Sequential.forward:
        raise InputError(
            f"expected a network that calls its layers in turn, got a {type(net).__name__} with a "
            "forward of its own; fold the networks inside it"
        )
    folded = Network(net.facts, **_sequence(net.children))
    return folded.use(net.backend)


def _sequence(layers: dict[str, Layer]) -> dict[str, Layer]:
    """Fold the layers of a sequence; a folded convolution takes the place of up to three."""
    left = list(layers.items())
    made: dict[str, Layer] = {}
    while left:
        name, layer = left.pop(0)
        if type(layer) is not Conv2d:
            made[name] = _fold(layer)
            continue
        norm, rectify = None, False
        if left and type(left[0][1]) in (BatchNorm, BatchNormReLU):
            norm = left.pop(0)[1]
            rectify = isinstance(norm, BatchNormReLU)
        if left and type(left[0][1]) is ReLU:
            left.pop(0)
            rectify = True
        made[name] = FoldedConv2d(layer, norm, rectify)  # type: ignore[arg-type]
    return made


def _fold(layer: Layer) -> Layer:
    """Fold one layer that is not a convolution: by the table of containers, or copy it."""
    return CONTAINERS.get(type(layer).forward, _copy)(layer)


def _copy(layer: Any) -> Layer:
    return deepcopy(layer).forget()


def _residual(block: Any) -> Layer:
    if type(block.relu) is not ReLU:
        return _copy(block)
    body = _fold(block.body)
    shortcut = _fold(block.shortcut)
    last = list(body.children.values())[-1] if body.children else None
    if not isinstance(last, FoldedConv2d) or last.rectify:
        return ResidualBlock(body, shortcut)
    last.rectify = True
    return FoldedResidualBlock(body, shortcut)


def _plain(block: Any) -> Layer:
    body = _fold(block.body)
    if type(block.relu) is Identity:  # as in a fused network, where batch norm rectifies
        return body
    if type(block.relu) is not ReLU:
        return _copy(block)
    last = list(body.children.values())[-1] if body.children else None
    if not isinstance(last, FoldedConv2d):
        return PlainBlock(body)
    last.rectify = True
    return body


CONTAINERS: dict[Callable, Callable[[Any], Layer]] = {  # by what a container computes
    ResidualBlock.forward: _residual,
    FusedResidualBlock.forward: _residual,
    PlainBlock.forward: _plain,
    Sequential.forward: lambda layer: Sequential(**_sequence(layer.children)),
}


def not_exported(layer: Layer) -> NoReturn:
    """Raise `InputError`: other libraries get the network that a folded one was made from."""
    raise InputError(
        f"{layer.name or type(layer).__name__}: a folded network runs in minires only; pass the "
        "network that it was folded from"
    )


FOLDED: tuple[type[Layer], ...] = (FoldedConv2d, FoldedResidualBlock)
