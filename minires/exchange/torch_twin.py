"""The same networks in idiomatic PyTorch, to compare speed and results.

PyTorch is optional; without it, importing this module raises an error that says how to install it.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.layers.alexnet import AvgPool, Dropout, Flatten, LocalResponseNorm, Tanh
from minires.layers.base import Array, Layer, Sequential
from minires.layers.core import BatchNorm, Conv2d, GlobalAvgPool, Identity, Linear, MaxPool, ReLU
from minires.layers.fused import BatchNormReLU
from minires.nets.fold import FOLDED, not_exported
from minires.nets.network import Network
from minires.nets.resnet import PlainBlock, ResidualBlock, ZeroPadShortcut

try:
    import torch
    import torch.nn.functional as F  # noqa: N812 (PyTorch's own name for it)
    from torch import nn
except Exception as e:  # a broken installation raises OSError and others
    if importlib.util.find_spec("torch") is None:
        reason = 'PyTorch is not installed; it is optional: pip install -e ".[peers]"'
    else:
        words = " ".join(str(e).split())
        reason = f"PyTorch cannot be imported ({type(e).__name__}: {words}); install it again"
    raise InputError(reason) from e

MODULES: dict[type[Layer], Callable[[Any], Any]] = {}  # layer class -> function that makes a module


def register(layer_class: type[Layer], make: Callable[[Any], Any]) -> None:
    """Register the PyTorch version of the layers of a class and of its subclasses.

    Parameters
    ----------
    layer_class : class
        A later call for the same class replaces an earlier one.
    make : callable
        `make(layer)` returns a `torch.nn.Module` with copies of the layer's parameters, in the
        order of `layer.parameters()`. Images are (N, C, H, W) there; w of a convolution is
        (K, C, KH, KW), w of a linear layer (K, C).

    Raises
    ------
    InputError
        If `make` is not a function or `layer_class` is not a subclass of `Layer`. `Layer` itself is
        refused, because a rule for all layers would hide unknown ones.
    """
    a_class = isinstance(layer_class, type) and issubclass(layer_class, Layer)
    if not a_class or layer_class is Layer:
        raise InputError(f"expected a class derived from Layer, got {layer_class!r}")
    if not callable(make):
        raise InputError(f"{layer_class.__name__}: make must be a function, got {make!r}")
    MODULES[layer_class] = make


def module(layer: Layer) -> Any:
    """Return the PyTorch module of a layer, with copies of its parameters.

    Raises
    ------
    InputError
        If neither the class of the layer nor one of its base classes is registered.
    """
    for known in type(layer).__mro__:
        if known in MODULES:
            return MODULES[known](layer)
    name = type(layer).__name__
    raise InputError(
        f"no PyTorch module is known for the layer {name}; "
        f"call torch_twin.register({name}, make) with make(layer) -> torch.nn.Module"
    )


def as_torch(net: Network) -> nn.Module:
    """Return the PyTorch twin of `net` in training mode.

    It has copies of the parameters and of the running statistics. Images are (N, C, H, W) there.

    Raises
    ------
    InputError
        If the network has a layer whose class is not registered, see `register`.
    """
    return module(net)


def prepare(how: str) -> Any:
    """Set PyTorch's number of threads; return the memory format that `how` names."""
    torch.set_num_threads(_threads())
    return torch.contiguous_format if "contiguous" in how else torch.channels_last


def _threads() -> int:
    """Threads of PyTorch: OMP_NUM_THREADS, else one for each processor of this process."""
    if chosen := os.environ.get("OMP_NUM_THREADS", ""):
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ------------------------------------------------------------------------------- comparison


def gradients(net: Network, twin: nn.Module) -> dict[str, Array]:
    """Gradients of the twin, with the names and the layout of minires."""
    return _named(net, [p.grad for p in twin.parameters()])


def parameters(net: Network, twin: nn.Module) -> dict[str, Array]:
    """Parameters of the twin, with the names and the layout of minires."""
    return _named(net, [p.detach() for p in twin.parameters()])


def _named(net: Network, tensors: list[Any]) -> dict[str, Array]:
    """Name tensors and convert their layout; both libraries list the body before the shortcut."""
    found = {}
    for (name, p), t in zip(net.parameters().items(), tensors, strict=True):
        a = t.numpy()
        a = a.transpose(2, 3, 1, 0) if p.ndim == 4 else a.T if p.ndim == 2 else a
        found[name] = np.ascontiguousarray(a)
    return found


# ------------------------------------------------------------------------------- the modules


def _tensor(a: Array) -> Any:
    """Copy an array into PyTorch's layout."""
    layout = {4: (3, 2, 0, 1), 2: (1, 0)}.get(a.ndim)
    return torch.from_numpy(np.array(a.transpose(layout) if layout else a, order="C"))


def _conv(layer: Conv2d) -> Any:
    KH, KW, C, K = layer.params["w"].shape
    groups = layer.groups
    conv = nn.Conv2d(
        C * groups, K, (KH, KW), layer.stride, layer.pad, groups=groups, bias="b" in layer.params
    )
    conv.weight.data = _tensor(layer.params["w"])
    if conv.bias is not None:
        conv.bias.data = _tensor(layer.params["b"])
    return conv


def _norm(layer: BatchNorm) -> Any:
    norm = nn.BatchNorm2d(len(layer.params["gamma"]), layer.eps, layer.momentum)
    norm.weight.data = _tensor(layer.params["gamma"])
    norm.bias.data = _tensor(layer.params["beta"])
    norm.running_mean = _tensor(layer.buffers["running_mean"])
    norm.running_var = _tensor(layer.buffers["running_var"])
    return norm.to(norm.weight.dtype)


def _linear(layer: Linear) -> Any:
    linear = nn.Linear(*layer.params["w"].shape)
    linear.weight.data = _tensor(layer.params["w"])
    linear.bias.data = _tensor(layer.params["b"])
    return linear


def _sequence(*modules: Any) -> Any:
    """Return the modules as a sequence, in which ReLUs work in place where that is safe."""
    for before, after in itertools.pairwise(modules):
        if isinstance(_last(before), (nn.BatchNorm2d, nn.Conv2d, nn.Linear)):
            _in_place(after)  # nothing else reads the output of these
    return nn.Sequential(*modules)


def _last(made: Any) -> Any:
    """Return the module that computes the output of a sequence."""
    while isinstance(made, nn.Sequential) and len(made):
        made = made[-1]
    return made


def _in_place(made: Any) -> Any:
    if isinstance(made, nn.ReLU):
        made.inplace = True
    return made


class _ZeroPad(nn.Module):
    def __init__(self, layer: ZeroPadShortcut) -> None:
        super().__init__()
        self.K, self.stride = layer.K, layer.stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sampled = x[:, :, :: self.stride, :: self.stride]
        return F.pad(sampled, (0, 0, 0, 0, 0, self.K - x.shape[1]))


class _Residual(nn.Module):
    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.body = module(block.body)
        self.shortcut = module(block.shortcut)
        self.relu = _in_place(module(block.relu))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


class _Flatten(nn.Module):
    """Features in the order of minires, channels last, so that linear weights are the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def _response_norm(layer: LocalResponseNorm) -> Any:
    """PyTorch divides alpha by the size of the window."""
    return nn.LocalResponseNorm(layer.n, layer.alpha * layer.n, layer.beta, layer.k)


def _avg_pool(layer: AvgPool) -> Any:
    return nn.AvgPool2d(layer.size, layer.stride, layer.pad, count_include_pad=False)


MODULES |= {
    AvgPool: _avg_pool,
    BatchNorm: _norm,
    BatchNormReLU: lambda layer: _sequence(_norm(layer), nn.ReLU()),
    Conv2d: _conv,
    GlobalAvgPool: lambda layer: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    Dropout: lambda layer: nn.Dropout(layer.rate),
    Flatten: lambda layer: _Flatten(),
    Identity: lambda layer: nn.Identity(),
    Linear: _linear,
    LocalResponseNorm: _response_norm,
    MaxPool: lambda layer: nn.MaxPool2d(layer.size, layer.stride, layer.pad),
    PlainBlock: lambda block: _sequence(module(block.body), module(block.relu)),
    ReLU: lambda layer: nn.ReLU(),
    ResidualBlock: _Residual,
    Sequential: lambda layer: _sequence(*map(module, layer.children.values())),
    Tanh: lambda layer: nn.Tanh(),
    ZeroPadShortcut: _ZeroPad,
}
MODULES |= dict.fromkeys(FOLDED, not_exported)
