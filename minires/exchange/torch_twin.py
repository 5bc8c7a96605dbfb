"""The same networks in PyTorch, written as its users would: to compare speed and numbers, never to train ours.

PyTorch is optional; importing this file without it fails with a message that says how to get it.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.layers.core import Conv2d
from minires.nets.network import Network
from minires.nets.resnet import ResidualBlock, ZeroPadShortcut

try:
    import torch
    import torch.nn.functional as F  # noqa: N812 (PyTorch's own name for it)
    from torch import nn
except ImportError as e:
    raise InputError('PyTorch is not installed; it is optional: pip install -e ".[peers]"') from e

Array = np.ndarray


class _Block(nn.Module):
    def __init__(self, block: Any) -> None:
        super().__init__()
        parts = block.body.children
        self.body = nn.Sequential(*(module for part in parts.values() for module in _module(part)))
        self.residual = isinstance(block, ResidualBlock)
        self.projection = None
        self.pad = self.stride = 0
        if self.residual and isinstance(block.shortcut, ZeroPadShortcut):
            first = parts["conv1"].params["w"]
            self.pad, self.stride = block.shortcut.K - first.shape[2], block.shortcut.stride
        elif self.residual and block.shortcut.children:
            self.projection = nn.Sequential(
                *(m for part in block.shortcut.children.values() for m in _module(part))
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        if self.projection is not None:
            y = y + self.projection(x)
        elif self.pad or self.stride:
            y = y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.pad))
        elif self.residual:
            y = y + x
        return F.relu(y, inplace=True)


def _module(layer: Any) -> list[nn.Module]:
    """PyTorch's modules for a layer of ours, with its parameters."""
    kind = type(layer).__name__
    if isinstance(layer, Conv2d):
        KH, KW, C, K = layer.params["w"].shape
        conv = nn.Conv2d(C, K, (KH, KW), layer.stride, layer.pad, bias=False)
        conv.weight.data = torch.from_numpy(
            np.ascontiguousarray(layer.params["w"].transpose(3, 2, 0, 1))
        )
        return [conv]
    if kind == "BatchNorm":
        norm = nn.BatchNorm2d(len(layer.params["gamma"]), layer.eps, layer.momentum)
        norm.weight.data, norm.bias.data = (
            torch.from_numpy(layer.params[k].copy()) for k in ("gamma", "beta")
        )
        return [norm.to(norm.weight.dtype)]
    if kind == "Linear":
        linear = nn.Linear(*layer.params["w"].shape)
        linear.weight.data = torch.from_numpy(np.ascontiguousarray(layer.params["w"].T))
        linear.bias.data = torch.from_numpy(layer.params["b"].copy())
        return [linear]
    if kind in ("ResidualBlock", "PlainBlock"):
        return [_Block(layer)]
    if kind == "GlobalAvgPool":
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if kind == "ReLU":
        return [nn.ReLU(inplace=True)]
    if kind == "MaxPool":
        return [nn.MaxPool2d(layer.size, layer.stride, layer.pad)]
    return [module for child in layer.children.values() for module in _module(child)]


def prepare(how: str) -> Any:
    """Give PyTorch as many threads as this process has processors; returns the memory format that `how` names."""
    torch.set_num_threads(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return torch.contiguous_format if "contiguous" in how else torch.channels_last


def as_torch(net: Network) -> nn.Module:
    """Return the PyTorch twin of `net`, with copies of its parameters, in training mode; images are NCHW there."""
    return nn.Sequential(*_module(net))


def gradients(net: Network, twin: nn.Module) -> dict[str, Array]:
    """Gradients that PyTorch assigned, under our names and in our layout."""
    return _named(net, [p.grad for p in twin.parameters()])


def parameters(net: Network, twin: nn.Module) -> dict[str, Array]:
    """Parameters of the twin, under our names and in our layout."""
    return _named(net, [p.detach() for p in twin.parameters()])


def _named(net: Network, tensors: list[Any]) -> dict[str, Array]:
    """Both walk the layers in the same order, body before shortcut."""
    found = {}
    for (name, p), t in zip(net.parameters().items(), tensors, strict=True):
        a = t.numpy()
        a = a.transpose(2, 3, 1, 0) if p.ndim == 4 else a.T if p.ndim == 2 else a
        found[name] = np.ascontiguousarray(a)
    return found
