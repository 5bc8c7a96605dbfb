"""Initial weights other than those that the constructors of the layers draw."""

from __future__ import annotations

import numpy as np

from minires.errors import InputError
from minires.nets.network import Network

HOW = ("he", "normal")
NORMAL_STD = 0.01


def initialise(net: Network, how: str, rng: np.random.Generator) -> Network:
    """Set the initial weights of a new network in place; return it.

    Parameters
    ----------
    net : Network
        As it was constructed.
    how : {"he", "normal"}
        "he" leaves the network as it is: He et al. 2015 (arXiv 1502.01852) for convolutions.
        "normal" draws every weight array `w` from N(0, 0.01^2), in network order, and sets biases
        to 0: AlexNet's way (Krizhevsky et al. 2012, section 5). Batch norm is not touched.
    rng : Generator
        Draws the weights of "normal".

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
