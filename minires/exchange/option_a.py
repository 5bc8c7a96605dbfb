"""Option A with zeros on both sides of the channels, made into ours, with zeros at the end.

Where K channels follow C, ours are [x, 0 ... 0] and others' [0 ... 0, x, 0 ... 0] with (K - C) // 2
zeros in front. Both networks compute the same function if the channels of every block are permuted.
"""

from __future__ import annotations

import numpy as np

from minires.layers.base import Sequential
from minires.nets.network import Network
from minires.nets.resnet import ResidualBlock, ZeroPadShortcut

Array = np.ndarray


def zeros_to_the_end(net: Network, state: dict[str, Array]) -> dict[str, Array]:
    """Permute the channels of a state that was trained with zeros on both sides.

    Channel i of our stream is channel p[i] of theirs. p is 0 ... C - 1 up to the first padding,
    and [(K - C) // 2 + p, the others] after one that makes K channels of C.

    Parameters
    ----------
    net : Network
        With option A: no shortcut has weights.
    state : dict of str to ndarray
        Under our names and in our layout.
    """
    found = dict(state)
    p: Array | None = None
    for name, layer in net.named_layers():
        if not isinstance(layer, ResidualBlock) or not isinstance(layer.body, Sequential):
            continue
        first, *_, conv, norm = [key for key, part in layer.body.children.items() if part.params]
        if p is not None:
            _take(found, f"{name}.body.{first}.w", p, axis=2)
        if isinstance(layer.shortcut, ZeroPadShortcut):
            C = found[f"{name}.body.{first}.w"].shape[2]
            p = _after_padding(np.arange(C) if p is None else p, layer.shortcut.K)
        if p is not None:
            _take(found, f"{name}.body.{conv}.w", p, axis=3)
            for key in ("gamma", "beta", "running_mean", "running_var"):
                _take(found, f"{name}.body.{norm}.{key}", p, axis=0)
    if p is not None:
        _take(found, "fc.w", p, axis=0)
    return found


def _after_padding(p: Array, K: int) -> Array:
    before = (K - len(p)) // 2
    real = before + p
    return np.concatenate([real, np.setdiff1d(np.arange(K), real)])


def _take(state: dict[str, Array], name: str, p: Array, axis: int) -> None:
    state[name] = state[name].take(p, axis)
