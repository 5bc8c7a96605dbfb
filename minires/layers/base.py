"""The base of every layer, the sequence of layers, and the walks over a whole network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Self

import numpy as np

from minires.errors import InputError
from minires.ops import get_ops

Array = np.ndarray
Rng = np.random.Generator | int


class Layer:
    """One step of a network: `forward(x, train)` computes y, `backward(dy)` returns dx and assigns `grads`.

    Attributes
    ----------
    params, grads : dict of str to ndarray
        Parameters and, after backward, their gradients under the same keys.
    buffers : dict of str to ndarray
        State that is not trained, such as running statistics.
    children : dict of str to Layer
        The layers this one is made of, in network order.
    backend : str
        Whose ops it calls, see `use`.
    """

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.buffers: dict[str, Array] = {}
        self.children: dict[str, Layer] = {}
        self.backend = "numpy"
        self.name = type(self).__name__
        self._cache: tuple | None = None

    @property
    def ops(self) -> ModuleType:
        """The backend's module of ops."""
        return get_ops(self.backend)

    def forward(self, x: Array, train: bool = False) -> Array:
        """Compute the output; with `train`, keep what backward needs and use the statistics of the batch."""
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        """Return the gradient of the loss with respect to the last training input, and assign those of the parameters.

        Raises
        ------
        InputError
            If no `forward(x, train=True)` came before; every backward uses up one forward.
        """
        raise NotImplementedError

    def _keep(self, cache: tuple, train: bool) -> None:
        if train:
            self._cache = cache

    def _pop(self) -> tuple:
        if self._cache is None:
            raise InputError(
                f"{self.name}: every backward needs a forward(x, train=True) before it; there was none"
            )
        cache, self._cache = self._cache, None
        return cache

    # ------------------------------------------------------------------------------------- walks over all layers

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
        """Every parameter by dotted name, in network order: the live arrays, so changing one changes the network."""
        return self._collect("params")

    def gradients(self) -> dict[str, Array]:
        """Every gradient that the last backward assigned, under the names of `parameters`."""
        return self._collect("grads")

    def state(self) -> dict[str, Array]:
        """Copy of everything that defines the function: parameters and running statistics by dotted name."""
        return {name: value.copy() for name, value in self._collect("params", "buffers").items()}

    def load_state(self, state: Mapping[str, Array]) -> Self:
        """Take over what `state` returned, in place; return self.

        Raises
        ------
        InputError
            If names or shapes are those of another network; nothing is changed then.
        """
        own = self._collect("params", "buffers")
        advice = "this state belongs to another network; build that one, or pass its own state"
        missing, unknown = [k for k in own if k not in state], [k for k in state if k not in own]
        if missing or unknown:
            raise InputError(
                f"expected {len(own)} arrays, got {len(state)}: {len(missing)} missing {missing[:3]}, "
                f"{len(unknown)} unknown {unknown[:3]}; {advice}"
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
        return self

    def astype(self, dtype: str) -> Self:
        """Convert parameters and running statistics to "float32" or "float64"; return self.

        The arrays are new: those that `parameters` gave before, and an optimizer made of them, no longer belong to it.
        Gradients are dropped, and what forward kept.
        """
        if dtype not in ("float32", "float64"):
            raise InputError(f"dtype must be float32 or float64, got {dtype!r}")
        for _, layer in self.named_layers():
            layer.params = {k: v.astype(dtype) for k, v in layer.params.items()}
            layer.buffers = {k: v.astype(dtype) for k, v in layer.buffers.items()}
            layer.grads, layer._cache = {}, None
        return self

    def use(self, backend: str) -> Self:
        """Let every layer call the ops of `backend`, and drop what forward kept; return self."""
        get_ops(backend)
        for _, layer in self.named_layers():
            layer.backend, layer._cache = backend, None
        return self

    def forget(self) -> Self:
        """Drop what forward kept for a backward that will not come; return self."""
        for _, layer in self.named_layers():
            layer._cache = None
        return self


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

    def backward(self, dy: Array) -> Array:  # noqa: D102
        for layer in reversed(self.children.values()):
            dy = layer.backward(dy)
        return dy


def layer_outputs(net: Layer, x: Array, train: bool = False) -> dict[str, Array]:
    """Run forward and return what every layer below `net` put out, by dotted name, in the order they finished."""
    seen: dict[str, Array] = {}

    def spy(name: str, forward: Any) -> Any:
        def forward_and_note(x: Array, train: bool = False) -> Array:
            seen[name] = forward(x, train)
            return seen[name]

        return forward_and_note

    layers = [(name, layer) for name, layer in net.named_layers() if name]
    try:
        for name, layer in layers:
            vars(layer)["forward"] = spy(name, layer.forward)  # hides the method of this one layer
        net.forward(x, train)
    finally:
        for _, layer in layers:
            vars(layer).pop("forward", None)
    return seen
