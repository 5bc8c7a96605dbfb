"""The same networks as functions of JAX, to compare speed and results.

Images, filters and weights have the layout and the names of minires, so parameters and gradients
are the same dictionaries. JAX is optional; without it, importing this module raises an error that
says how to install it.

>>> net = by_name("resnet8")
>>> step = jax.value_and_grad(lambda p: loss(net, p, buffers(net), x, labels), has_aux=True)
>>> (value, statistics), gradients = jax.jit(step)(net.parameters())

x is (N, H, W, C) and labels (N,), whole numbers from 0 to the number of classes - 1. JAX computes
in float32, whatever it is given, unless `jax.config.update("jax_enable_x64", True)` was called.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from minires.errors import InputError
from minires.layers.alexnet import AvgPool, Dropout, Flatten, LocalResponseNorm, Tanh
from minires.layers.base import Layer, Sequential
from minires.layers.core import BatchNorm, Conv2d, GlobalAvgPool, Identity, Linear, MaxPool, ReLU
from minires.layers.fused import BatchNormReLU
from minires.nets.fold import FOLDED, not_exported
from minires.nets.network import Network
from minires.nets.resnet import PlainBlock, ResidualBlock, ZeroPadShortcut
from minires.ops.geometry import pair

try:
    import jax
    import jax.numpy as jnp
    from jax import lax
except Exception as e:  # a broken installation raises OSError and others
    if importlib.util.find_spec("jax") is None:
        reason = 'JAX is not installed; it is optional: pip install -e ".[jax]"'
    else:
        words = " ".join(str(e).split())
        reason = f"JAX cannot be imported ({type(e).__name__}: {words}); install it again"
    raise InputError(reason) from e

Values = dict[str, Any]  # arrays by the name that minires gives them


class Pass:
    """One forward pass of a network: what its layers read, beside x, and what they leave.

    Parameters
    ----------
    net : Layer
    parameters, buffers : dict of str to Array
        By dotted name, as in `net.parameters()`.
    train : bool
    key : Array, optional
        Of JAX's random numbers, for dropout in training.

    Attributes
    ----------
    moved : dict of str to Array
        Running statistics after a pass in training; layers fill it.
    """

    def __init__(
        self, net: Layer, parameters: Values, buffers: Values, train: bool, key: Any = None
    ) -> None:
        self.parameters, self.buffers = parameters, buffers
        self.train, self.key = train, key
        self.moved: Values = {}
        self.names = {id(layer): name for name, layer in net.named_layers()}

    def name(self, layer: Layer, key: str) -> str:
        """Dotted name of a parameter or a buffer."""
        return f"{self.names[id(layer)]}.{key}".lstrip(".")

    def parameter(self, layer: Layer, key: str) -> Any:
        """Return a parameter of a layer, such as "w"."""
        return self.parameters[self.name(layer, key)]


Function = Callable[[Any, Any, Pass], Any]
FUNCTIONS: dict[type[Layer], Function] = {}  # layer class -> function of layer, x and pass


def register(layer_class: type[Layer], function: Function) -> None:
    """Register what the layers of a class, and of its subclasses, compute.

    Parameters
    ----------
    layer_class : class
        A later call for the same class replaces an earlier one.
    function : callable
        `function(layer, x, pass_)` returns y. It may read the layer's settings, but takes arrays
        from the pass: `pass_.parameter(layer, "w")` is the parameter w.

    Raises
    ------
    InputError
        If `function` is not one or `layer_class` is not a subclass of `Layer`. `Layer` itself is
        refused, because a rule for all layers would hide unknown ones.
    """
    a_class = isinstance(layer_class, type) and issubclass(layer_class, Layer)
    if not a_class or layer_class is Layer:
        raise InputError(f"expected a class derived from Layer, got {layer_class!r}")
    if not callable(function):
        raise InputError(f"{layer_class.__name__}: expected a function, got {function!r}")
    FUNCTIONS[layer_class] = function


def forward(layer: Layer, x: Any, pass_: Pass) -> Any:
    """Return y of a layer or a network. It may be traced, differentiated and compiled by JAX.

    Raises
    ------
    InputError
        If neither the class of the layer nor one of its base classes is registered.
    """
    for known in type(layer).__mro__:
        if known in FUNCTIONS:
            return FUNCTIONS[known](layer, x, pass_)
    name = type(layer).__name__
    raise InputError(
        f"no JAX function is known for the layer {name}; "
        f"call jax_twin.register({name}, function) with function(layer, x, pass_) -> y"
    )


def buffers(net: Network) -> Values:
    """Return copies of the running statistics by name."""
    parameters = net.parameters()
    return {name: value for name, value in net.state().items() if name not in parameters}


def loss(
    net: Network, parameters: Values, buffers: Values, x: Any, labels: Any, key: Any = None
) -> tuple[Any, Values]:
    """Mean cross-entropy of a training pass, and the running statistics after it."""
    pass_ = Pass(net, parameters, buffers, True, key)
    logits = forward(net, x, pass_)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -chosen.mean(), pass_.moved


# ------------------------------------------------------------------------------- the functions


def _conv(layer: Conv2d, x: Any, pass_: Pass) -> Any:
    PH, PW = pair(layer.pad)
    y = lax.conv_general_dilated(
        x,
        pass_.parameter(layer, "w"),
        pair(layer.stride),
        ((PH, PH), (PW, PW)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=layer.groups,
    )
    return y + pass_.parameter(layer, "b") if "b" in layer.params else y


def _norm(layer: BatchNorm, x: Any, pass_: Pass) -> Any:
    names = [pass_.name(layer, key) for key in ("running_mean", "running_var")]
    mean, var = running = [pass_.buffers[name] for name in names]
    if pass_.train:
        M = x[..., 0].size
        mean = x.mean(axis=(0, 1, 2))
        var = x.var(axis=(0, 1, 2))
        for name, old, batch in zip(names, running, (mean, var * (M / (M - 1))), strict=True):
            pass_.moved[name] = (1 - layer.momentum) * old + layer.momentum * batch
    scale = pass_.parameter(layer, "gamma") * lax.rsqrt(var + layer.eps)
    return (x - mean) * scale + pass_.parameter(layer, "beta")


def _linear(layer: Linear, x: Any, pass_: Pass) -> Any:
    return x @ pass_.parameter(layer, "w") + pass_.parameter(layer, "b")


def _windows(layer: MaxPool | AvgPool) -> tuple[tuple, tuple, tuple]:
    """Sizes, strides and padding of windows over (N, H, W, C)."""
    size, stride, pad = (pair(s) for s in (layer.size, layer.stride, layer.pad))
    around = tuple((p, p) for p in (0, *pad, 0))
    return (1, *size, 1), (1, *stride, 1), around


def _max_pool(layer: MaxPool, x: Any, pass_: Pass) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, *_windows(layer))


def _avg_pool(layer: AvgPool, x: Any, pass_: Pass) -> Any:
    total, count = (lax.reduce_window(a, 0.0, lax.add, *_windows(layer))
                    for a in (x, jnp.ones_like(x)))  # fmt: skip
    return total / count


def _response_norm(layer: LocalResponseNorm, x: Any, pass_: Pass) -> Any:
    around = ((0, 0),) * 3 + ((layer.n // 2, layer.n // 2),)
    squares = lax.reduce_window(x * x, 0.0, lax.add, (1, 1, 1, layer.n), (1,) * 4, around)
    return x * (layer.k + layer.alpha * squares) ** -layer.beta


def _dropout(layer: Dropout, x: Any, pass_: Pass) -> Any:
    if not pass_.train:
        return x
    if pass_.key is None:
        raise InputError(f"{layer.name}: dropout in training needs a key of JAX's random numbers")
    pass_.key, own = jax.random.split(pass_.key)
    kept = jax.random.bernoulli(own, 1 - layer.rate, x.shape)
    return jnp.where(kept, x / (1 - layer.rate), 0)


def _zero_pad(layer: ZeroPadShortcut, x: Any, pass_: Pass) -> Any:
    sampled = x[:, :: layer.stride, :: layer.stride]
    return jnp.pad(sampled, ((0, 0),) * 3 + ((0, layer.K - x.shape[3]),))


def _residual(block: ResidualBlock, x: Any, pass_: Pass) -> Any:
    f = forward(block.body, x, pass_)
    return forward(block.relu, f + forward(block.shortcut, x, pass_), pass_)


def _sequence(layer: Sequential, x: Any, pass_: Pass) -> Any:
    for child in layer.children.values():
        x = forward(child, x, pass_)
    return x


FUNCTIONS |= {
    AvgPool: _avg_pool,
    BatchNorm: _norm,
    BatchNormReLU: lambda layer, x, pass_: jax.nn.relu(_norm(layer, x, pass_)),
    Conv2d: _conv,
    GlobalAvgPool: lambda layer, x, pass_: x.mean(axis=(1, 2)),
    Dropout: _dropout,
    Flatten: lambda layer, x, pass_: x.reshape(len(x), -1),
    Identity: lambda layer, x, pass_: x,
    Linear: _linear,
    LocalResponseNorm: _response_norm,
    MaxPool: _max_pool,
    PlainBlock: lambda block, x, pass_: forward(block.relu, forward(block.body, x, pass_), pass_),
    ReLU: lambda layer, x, pass_: jax.nn.relu(x),
    ResidualBlock: _residual,
    Sequential: _sequence,
    Tanh: lambda layer, x, pass_: jnp.tanh(x),
    ZeroPadShortcut: _zero_pad,
}
FUNCTIONS |= dict.fromkeys(FOLDED, lambda layer, x, pass_: not_exported(layer))
