"""Networks by name: the only place where a name is parsed, and where users add their own families.

A family is known by three things: its name, a function that reads names, and a function that
builds a network. Names are read without building anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from minires.errors import InputError
from minires.layers.base import Rng
from minires.nets import resnet
from minires.nets.network import Facts, Network

Parse = Callable[[str], Facts | None]
Make = Callable[[Facts, Rng], Network]


@dataclass(frozen=True)
class Family:
    """How the networks of one family are named and built, see `register`."""

    parse: Parse
    make: Make
    expected: str


FAMILIES: dict[str, Family] = {}


def register(family: str, parse: Parse, make: Make, expected: str = "") -> None:
    """Add a family of networks.

    Parameters
    ----------
    family : str
        Its name, that of `Facts.family`.
    parse : callable
        `parse(name)` returns the facts of the network of that name, None if the name belongs to
        another family. It may raise `InputError`, such as for a depth that does not exist.
    make : callable
        `make(facts, rng)` builds the network. Its facts may have another input shape or another
        number of classes than `parse` gave: those of the data that it is trained on.
    expected : str
        What its names look like, for the message about an unknown name.

    Raises
    ------
    InputError
        If a family of that name is registered already.
    """
    if family in FAMILIES:
        raise InputError(f"the family {family!r} is registered already; choose another name")
    FAMILIES[family] = Family(parse, make, expected or family)


def unregister(family: str) -> None:
    """Take a family out again: its names are unknown from here on."""
    FAMILIES.pop(family, None)


def facts(name: str) -> Facts:
    """Facts of a network by its name: plain20, resnet56, resnet-20B, imagenet-resnet50.

    Raises
    ------
    InputError
        If no family knows the name.
    """
    for family in FAMILIES.values():
        found = family.parse(name.strip())
        if found:
            return found
    expected = "; ".join(family.expected for family in FAMILIES.values())
    raise InputError(f"unknown network {name!r}: expected {expected}")


def make(facts: Facts, *, rng: Rng = 0) -> Network:
    """Build the network that `facts` describe.

    Raises
    ------
    InputError
        If its family is not registered.
    """
    if facts.family not in FAMILIES:
        raise InputError(
            f"{facts.name} is of the family {facts.family!r}, which is not registered here; "
            "give the file that registers it with: minires --plugin FILE"
        )
    return FAMILIES[facts.family].make(facts, rng)


def by_name(name: str, *, rng: Rng = 0) -> Network:
    """Network by its name: plain20, resnet56, resnet-20B, imagenet-resnet50.

    Raises
    ------
    InputError
        If there is no such network.
    """
    return make(facts(name), rng=rng)


def numbered(family: str, describe: Callable[..., Facts], variants: str = "") -> Parse:
    """Return a `parse` for names made of a family, a depth, and maybe a letter: resnet-20B.

    Parameters
    ----------
    family : str
    describe : callable
        `describe(depth)` or `describe(depth, variant)` gives the facts.
    variants : str
        The letters that may follow the depth.
    """
    letter = f"([{variants}]?)" if variants else "()"
    pattern = re.compile(rf"{re.escape(family)}-?([0-9]+){letter}")

    def parse(name: str) -> Facts | None:
        match = pattern.fullmatch(name)
        return describe(int(match[1]), *filter(None, [match[2]])) if match else None

    return parse


def fit(facts: Facts, input_shape: tuple[int, ...], classes: int) -> Facts:
    """Facts of the same network for other data: images of `input_shape` in `classes` classes."""
    return replace(facts, input_shape=tuple(input_shape), classes=classes)


register(
    "plain",
    numbered("plain", resnet.plain_facts),
    resnet.build_cifar,
    "plainN with N = 6n + 2 (plain20)",
)
register(
    "resnet",
    numbered("resnet", resnet.resnet_facts, "ABC"),
    resnet.build_cifar,
    "resnetN or resnetNB with N = 6n + 2 (resnet56, resnet20B)",
)
register(
    "imagenet-resnet",
    numbered("imagenet-resnet", resnet.imagenet_facts, "ABC"),
    resnet.build_imagenet,
    f"imagenet-resnetN with N in {', '.join(map(str, resnet.IMAGENET_BLOCKS))}",
)
