"""Initial weights: He's, which the constructors of the layers draw, or AlexNet's."""

from __future__ import annotations

import numpy as np

from minires.errors import InputError
from minires.nets.network import Network

HOW = ("he", "normal")
NORMAL_STD = 0.01


def initialise(net: Network, how: str, rng: np.random.Generator) -> Network:
    """Set the initial weights of a new network in place, and return the network.

    Parameters
    ----------
    net : Network
        New: its weights are the ones that the constructors drew.
    how : {"he", "normal"}
        "he" keeps the constructors' weights: He et al. 2015 (arXiv 1502.01852) for convolutions.
        "normal" draws every weight array `w` from N(0, 0.01^2), in network order, and sets biases
        to 0, after AlexNet (Krizhevsky et al. 2012, section 5), which begins with biases of 1 in
        some layers. Batch norm is not changed.
    rng : Generator
        Source of the weights of "normal".

    Raises
    ------
    InputError
        If `how` is unknown.
    """
    if how not in HOW:
        raise InputError(f"initial weights must be one of {', '.join(HOW)}, got {how!r}")
    if how == "normal":
        for name, parameter in net.parameters().items():
            kind = name.split(".")[-1]
            if kind == "w":
                parameter[...] = NORMAL_STD * rng.standard_normal(parameter.shape)
            elif kind == "b":
                parameter[...] = 0
    return net
