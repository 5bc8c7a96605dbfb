"""The base of every layer, the sequence of layers, and the walks over a whole network."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from minires.errors import InputError
from minires.layers.describe import Description, Shape, in_sequence
from minires.ops import get_ops
from minires.ops.own import with_own

Array = np.ndarray
Rng = np.random.Generator | int


@dataclass(frozen=True)
class Call:
    """One call of one layer, as `Layer.watch` reports it.

    Attributes
    ----------
    name : str
        Dotted name of the layer.
    layer : Layer
    direction : {"forward", "backward"}
    value : ndarray or None
        What the call returned: y or dx. None where a layer computes no dx.
    seconds : float
        Time of the call, including the layers below.
    """

    name: str
    layer: Layer
    direction: Literal["forward", "backward"]
    value: Array | None
    seconds: float


Callback = Callable[[Call], object]
DIRECTIONS = ("forward", "backward")


class Layer:
    """One step of a network: `forward(x, train)` returns y, `backward(dy)` returns dx.

    Attributes
    ----------
    params, grads : dict of str to ndarray
        Parameters and, after backward, their gradients under the same keys. Backward assigns
        gradients, it does not add to them.
    buffers : dict of str to ndarray
        State that is not trained, such as running statistics.
    children : dict of str to Layer
        The layers that this one is made of, in network order.
    backend : str
        Name of the backend whose ops the layer calls, see `use`.
    draws : bool
        Class attribute: True if forward draws random numbers, see `reseed`.
    frozen : bool
        Whether training leaves its parameters as they are, see `nets.freeze`.
    """

    draws: ClassVar[bool] = False
    frozen = False

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.buffers: dict[str, Array] = {}
        self.children: dict[str, Layer] = {}
        self.backend = "numpy"
        self.name = type(self).__name__
        self.seeds: np.random.SeedSequence | None = None
        self._own_ops: SimpleNamespace | None = None
        self._cache: tuple | None = None
        self._watchers: list[tuple[str, Callback]] = []
        self._unwatched: dict[str, Callable[..., Any]] = {}  # methods replaced on the instance

    @property
    def ops(self) -> Any:
        """The backend's ops, or those with some of your own in their place, see `use`."""
        return self._own_ops or get_ops(self.backend)

    def forward(self, x: Array, train: bool = False) -> Array:
        """Compute y; with `train`, store what backward needs and use statistics of the batch."""
        raise NotImplementedError

    def backward(self, dy: Array) -> Any:
        """Return dx for the last training input and assign the gradients of the parameters.

        Each backward consumes the cache of one forward.

        Raises
        ------
        InputError
            Without a `forward(x, train=True)` before it.
        """
        raise NotImplementedError

    def describe(self, x_shape: Shape) -> Description:
        """Say what this layer does to one image of shape (H, W, C), or to C features.

        Raises
        ------
        InputError
            If the class does not define it.
        """
        raise InputError(
            f"{self.name} cannot be described: write {type(self).__name__}.describe(self, x_shape) "
            "that returns a minires.layers.Description with kind, y_shape, macs, window and stride"
        )

    def random(self) -> np.random.Generator:
        """Return a generator at the start of the layer's random stream; only `reseed` changes it.

        Raises
        ------
        InputError
            If `reseed` was never called.
        """
        if self.seeds is None:
            raise InputError(
                f"{self.name} draws random numbers and has no seed yet; "
                "call reseed(np.random.SeedSequence(0)) on the network first"
            )
        return np.random.default_rng(self.seeds)

    def _keep(self, cache: tuple, train: bool) -> None:
        if train:
            self._cache = cache

    def _pop(self) -> tuple:
        if self._cache is None:
            raise InputError(
                f"{self.name}: every backward needs a forward(x, train=True) before it; "
                "there was none"
            )
        cache, self._cache = self._cache, None
        return cache

    # ------------------------------------------------------------------- walks over all layers

    def named_layers(self, name: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield this layer and all below it with their dotted names, in network order."""
        yield name, self
        for key, child in self.children.items():
            yield from child.named_layers(f"{name}.{key}" if name else key)

    def _collect(self, *kinds: str) -> dict[str, Array]:
        return {
            f"{name}.{key}" if name else key: value
            for name, layer in self.named_layers()
            for kind in kinds
            for key, value in getattr(layer, kind).items()
        }

    def parameters(self) -> dict[str, Array]:
        """Every parameter by dotted name, in network order.

        These are the live arrays: changing one changes the network.
        """
        return self._collect("params")

    def gradients(self) -> dict[str, Array]:
        """Every gradient that the last backward assigned, under the names of `parameters`."""
        return self._collect("grads")

    def state(self) -> dict[str, Array]:
        """Copy all that defines the function: parameters and running statistics by dotted name."""
        return {name: value.copy() for name, value in self._collect("params", "buffers").items()}

    def load_state(self, state: Mapping[str, Array]) -> Self:
        """Load a state returned by `state`, in place, and drop all caches; return self.

        Raises
        ------
        InputError
            If names or shapes are those of another network; nothing is changed then.
        """
        own = self._collect("params", "buffers")
        advice = "this state belongs to another network; build that one, or pass its own state"
        missing = [name for name in own if name not in state]
        unknown = [name for name in state if name not in own]
        if missing or unknown:
            raise InputError(
                f"expected {len(own)} arrays, got {len(state)}: {len(missing)} missing "
                f"{missing[:3]}, {len(unknown)} unknown {unknown[:3]}; {advice}"
            )
        for name, value in own.items():
            if np.shape(state[name]) != value.shape:
                raise InputError(
                    f"{name}: expected shape {value.shape}, got {np.shape(state[name])}; {advice}"
                )
            if np.asarray(state[name]).dtype.kind not in "biuf":
                raise InputError(
                    f"{name}: expected real numbers, got {np.asarray(state[name]).dtype}; {advice}"
                )
        for name, value in own.items():
            value[...] = state[name]
        return self.forget()

    def astype(self, dtype: str) -> Self:
        """Convert parameters and running statistics to "float32" or "float64"; return self.

        Arrays obtained earlier from `parameters`, and optimizers built on them, become stale.
        Gradients and caches are dropped.
        """
        if dtype not in ("float32", "float64"):
            raise InputError(f"dtype must be float32 or float64, got {dtype!r}")
        for _, layer in self.named_layers():
            layer.params = {k: v.astype(dtype) for k, v in layer.params.items()}
            layer.buffers = {k: v.astype(dtype) for k, v in layer.buffers.items()}
            layer.grads = {}
            layer._cache = None
        return self

    def use(self, backend: str, **own: Callable[..., Any]) -> Self:
        """Let every layer call the ops of `backend`, and drop all caches; return self.

        Ops of your own, given by name, take the place of the backend's in this network only; the
        next call of `use` removes them. They do not reach fused layers (`nets.fuse`).

        Examples
        --------
        >>> net = resnet(8).use("numpy", conv2d_backward=my_conv2d_backward)
        """
        get_ops(backend)
        own_ops = with_own(backend, own) if own else None
        for _, layer in self.named_layers():
            layer.backend = backend
            layer._own_ops = own_ops
            layer._cache = None
        return self

    def forget(self) -> Self:
        """Drop all caches, when no backward will follow; return self."""
        for _, layer in self.named_layers():
            layer._cache = None
        return self

    def reseed(self, seeds: np.random.SeedSequence) -> Self:
        """Give every layer that draws random numbers a stream of its own; return self.

        A stream depends on `seeds` and on the dotted name of the layer alone. Every forward draws
        from its start, so a dropout mask stays the same until the next call: give one SeedSequence
        per iteration, and masks are a function of seed and iteration.

        Parameters
        ----------
        seeds : SeedSequence
            It is left as it is.
        """
        for name, layer in self.named_layers():
            if layer.draws:
                key = (*seeds.spawn_key, zlib.crc32(name.encode()))
                layer.seeds = np.random.SeedSequence(seeds.entropy, spawn_key=key)
        return self

    @contextmanager
    def watch(self, callback: Callback) -> Iterator[Self]:
        """Report every forward and backward of the layers below this one to `callback`.

        Several callbacks may watch at the same time, and may stop in any order.

        Parameters
        ----------
        callback : callable
            Called with a `Call` after each forward or backward has returned.

        Examples
        --------
        >>> with net.watch(lambda call: print(call.name, call.direction, call.seconds)):
        ...     net.forward(x)
        """
        below = [(layer, (name, callback)) for name, layer in self.named_layers() if name]
        for layer, watcher in below:
            if not layer._watchers:
                layer._unwatched = {k: vars(layer)[k] for k in DIRECTIONS if k in vars(layer)}
                vars(layer).update({k: _reporting(layer, k) for k in DIRECTIONS})
            layer._watchers.append(watcher)
        try:
            yield self
        finally:
            for layer, watcher in below:
                layer._watchers.remove(watcher)
                if not layer._watchers:
                    for direction in DIRECTIONS:
                        del vars(layer)[direction]
                    vars(layer).update(layer._unwatched)


def _reporting(layer: Layer, direction: Any) -> Callable[..., Any]:
    """Wrap a method of one layer so that all of its watchers get what it returns."""
    method = getattr(layer, direction)

    def call(*args: Any, **named: Any) -> Any:
        start = time.perf_counter()
        value = method(*args, **named)
        seconds = time.perf_counter() - start
        for name, callback in tuple(layer._watchers):
            callback(Call(name, layer, direction, value, seconds))
        return value

    return call


def check_integers(owner: str, least: int, pairs: bool = False, **named: object) -> None:
    """Check the arguments of a layer: each is an integer of at least `least`.

    With `pairs`, a pair (rows, columns) is accepted, too.

    Raises
    ------
    InputError
        If one of them is something else.
    """
    for name, value in named.items():
        both = value if pairs and isinstance(value, (tuple, list)) and len(value) == 2 else [value]
        if not all(isinstance(v, (int, np.integer)) and v >= least for v in both):
            choice = ", or a pair (rows, columns) of them" if pairs else ""
            raise InputError(
                f"{owner}: {name} must be an integer of at least {least}{choice}, got {value!r}"
            )


class Sequential(Layer):
    """One layer after the other: y = layer_L(... layer_2(layer_1(x))).

    Parameters
    ----------
    **layers : Layer
        By name, in order.
    """

    def __init__(self, **layers: Layer) -> None:
        super().__init__()
        self.children = layers

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        for layer in self.children.values():
            x = layer.forward(x, train)
        return x

    def backward(self, dy: Array) -> Any:  # noqa: D102
        # a first convolution without `input_gradient` returns None, and so does its sequence
        for layer in reversed(self.children.values()):
            dy = layer.backward(dy)
        return dy

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        parts = {}
        y_shape = x_shape
        for name, layer in self.children.items():
            parts[name] = layer.describe(y_shape)
            y_shape = parts[name].y_shape
        return in_sequence("sequence", x_shape, **parts)


def layer_outputs(net: Layer, x: Array, train: bool = False) -> dict[str, Array]:
    """Run forward; return the output of every layer below `net` by dotted name.

    Layers are in the order in which they finished.
    """
    outputs: dict[str, Any] = {}

    def note(call: Call) -> None:
        if call.direction == "forward":
            outputs[call.name] = call.value

    with net.watch(note):
        net.forward(x, train)
    return outputs
