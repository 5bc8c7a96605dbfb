"""The deeper net that cannot be worse: a trained plain net with identity layers added (section 1 of the paper).

That such a net exists is the paper's argument that degradation is a matter of finding solutions, not of having them.
"""

from __future__ import annotations

import numpy as np

from minires.errors import InputError
from minires.layers.base import Array, layer_outputs
from minires.layers.core import BatchNorm
from minires.nets.network import Network
from minires.nets.resnet import plain


def deepen(net: Network, depth: int, x: Array | None = None) -> Network:
    """Plain net of `depth` layers that computes what `net` computes, in evaluation mode.

    Each stage keeps its blocks, the one that strides and widens among them, and gets blocks of identity layers behind
    them. What arrives there has been through a ReLU, so the ReLUs of the new blocks change nothing; their kernels are
    1 in the centre from each channel to itself, and batch norm has gamma = sqrt(var + eps), beta = mean.

    Parameters
    ----------
    net : Network
        A plain net of section 4.2; it is left as it is.
    depth : int
        6n + 2, not less than that of `net`.
    x : ndarray of shape (N, 32, 32, 3), optional
        Images as the net sees them. With them, mean and var are those of the channels at each place, and the new layers
        are identities in training too, as far as a batch has these statistics. Without them, mean 0 and var 1.

    Returns
    -------
    deeper : Network

    Raises
    ------
    InputError
        If `net` is not plain, or deeper already.
    """
    deeper = plain(depth)
    have, want = (len(n.children["stage1"].children) for n in (net, deeper))
    if net.facts.family != "plain" or want < have:
        raise InputError(
            f"expected a plain net of at most {depth} layers to deepen, got {net.title}"
        )
    outputs = layer_outputs(net, x) if x is not None else {}
    state = deeper.state() | net.state()
    for name, layer in deeper.named_layers():
        if not isinstance(layer, BatchNorm) or f"{name}.gamma" in net.state():
            continue
        stage, conv = name.split(".")[0], name.replace(".bn", ".conv")
        C = len(layer.params["gamma"])
        y = outputs.get(f"{stage}.block{have}")
        mean, var = (
            (np.zeros(C), np.ones(C))
            if y is None
            else (y.mean(axis=(0, 1, 2)), y.var(axis=(0, 1, 2)))
        )
        state[f"{conv}.w"] = np.zeros((3, 3, C, C))
        state[f"{conv}.w"][1, 1] = np.eye(C)
        state |= {f"{name}.running_mean": mean, f"{name}.running_var": var}
        state |= {f"{name}.gamma": np.sqrt(var + layer.eps), f"{name}.beta": mean}
    return deeper.astype(str(state["fc.w"].dtype)).use(net.backend).load_state(state)
