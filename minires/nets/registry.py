"""Networks by name: the only place where a name is parsed."""

from __future__ import annotations

import re

from minires.errors import InputError
from minires.layers.base import Rng
from minires.nets.network import Network
from minires.nets.resnet import IMAGENET_BLOCKS, imagenet_resnet, plain, resnet


def by_name(name: str, *, rng: Rng = 0) -> Network:
    """Network by its name: plain20, resnet56, resnet-20B, imagenet-resnet50.

    Raises
    ------
    InputError
        If there is no such network.
    """
    match = re.fullmatch(r"(plain|resnet|imagenet-resnet)-?(\d+)([ABC]?)", name.strip())
    if not match or (match[1] == "plain" and match[3]):
        raise InputError(
            f"unknown network {name!r}: expected plainN, resnetN or resnetNB with N = 6n + 2 "
            "(plain20, resnet56, resnet20B), or imagenet-resnetN with N in "
            + ", ".join(map(str, IMAGENET_BLOCKS))
        )
    make = {"plain": plain, "resnet": resnet, "imagenet-resnet": imagenet_resnet}[match[1]]
    option = {"shortcut": match[3]} if match[3] else {}
    return make(int(match[2]), **option, rng=rng)
