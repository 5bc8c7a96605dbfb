"""A deeper net that is no worse: a trained plain net with identity layers added (section 1).

The paper argues that, because such a net exists, degradation is a problem of training: the
solution is there, and training does not find it.
"""

from __future__ import annotations

import numpy as np

from minires.errors import InputError
from minires.layers.base import Array, layer_outputs
from minires.layers.core import BatchNorm
from minires.nets.network import Network
from minires.nets.registry import fit
from minires.nets.resnet import build_cifar, plain_facts


def deepen(net: Network, depth: int, x: Array | None = None) -> Network:
    """Plain net of `depth` layers that computes what `net` computes, in evaluation mode.

    New blocks of identity layers follow the blocks of each stage. Their input has passed a ReLU, so
    the ReLUs of the new blocks change nothing. Their filters copy each channel: 1 in the centre
    from a channel to itself, 0 elsewhere. Batch norm has gamma = sqrt(var + eps) and beta = mean.

    Parameters
    ----------
    net : Network
        A plain net of section 4.2; it is not changed.
    depth : int
        6n + 2, not less than that of `net`.
    x : ndarray of shape (N, 32, 32, 3), optional
        Prepared images. If they are given, mean and var are those of the channels at the end of
        each stage. The new layers are then identities in training too, to the extent that a batch
        has these statistics. Without images, mean is 0 and var is 1.

    Returns
    -------
    deeper : Network

    Raises
    ------
    InputError
        If `net` is not plain, or deeper than `depth`.
    """
    facts = plain_facts(depth)
    if net.facts.family != "plain" or net.facts.depth > depth:
        raise InputError(
            f"expected a plain net of at most {depth} layers to deepen, got {net.title}"
        )
    deeper = build_cifar(fit(facts, net.facts.input_shape, net.facts.classes), rng=0)
    outputs = layer_outputs(net, x) if x is not None else {}
    last = f"block{(net.facts.depth - 2) // 6}"  # of each stage of `net`
    known = net.state()
    state = deeper.state() | known
    for name, layer in deeper.named_layers():
        if isinstance(layer, BatchNorm) and f"{name}.gamma" not in known:
            stage = name.split(".")[0]
            mean, var = _statistics(outputs.get(f"{stage}.{last}"), len(layer.params["gamma"]))
            state[f"{name.replace('.bn', '.conv')}.w"] = _centred_identity(len(mean))
            state |= {f"{name}.running_mean": mean, f"{name}.running_var": var}
            state |= {f"{name}.gamma": np.sqrt(var + layer.eps), f"{name}.beta": mean}
    return deeper.astype(str(state["fc.w"].dtype)).use(net.backend).load_state(state)


def _statistics(y: Array | None, C: int) -> tuple[Array, Array]:
    """Mean and variance of the channels of y; 0 and 1 if there is no y."""
    if y is None:
        return np.zeros(C), np.ones(C)
    return y.mean(axis=(0, 1, 2)), y.var(axis=(0, 1, 2))


def _centred_identity(C: int) -> Array:
    """Filters (3, 3, C, C) that copy each channel."""
    w = np.zeros((3, 3, C, C))
    w[1, 1] = np.eye(C)
    return w
