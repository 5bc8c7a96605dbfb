"""Networks by name: the only module that parses names, and where users add their own families.

A family has a name, a function that parses names, and a function that builds a network. Parsing a
name builds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from minires.errors import InputError
from minires.layers.base import Rng
from minires.nets import alexnet, resnet, vgg
from minires.nets.network import MOST_LAYERS, Facts, Network, too_deep
from minires.text import shown

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
        Its name, the same as `Facts.family`.
    parse : callable
        `parse(name)` returns the facts of the network of that name, or None if the name belongs to
        another family. It may raise `InputError`, such as for a depth that does not exist.
    make : callable
        `make(facts, rng)` builds the network. Its facts may have another input shape or another
        number of classes than `parse` returned: those of the training data.
    expected : str
        A pattern of its names, shown in the message about an unknown name.

    Raises
    ------
    InputError
        If an argument has another type, or a family of that name is registered already.
    """
    if not (isinstance(family, str) and family and isinstance(expected, str)):
        raise InputError(
            f"expected the name of a family and a pattern as texts, got {family!r} and {expected!r}"
        )
    for name, function in (("parse", parse), ("make", make)):
        if not callable(function):
            raise InputError(f"{family}: {name} must be a function, got {function!r}")
    if family in FAMILIES:
        raise InputError(f"the family {family!r} is registered already; choose another name")
    FAMILIES[family] = Family(parse, make, expected or family)


def unregister(family: str) -> None:
    """Remove a family; its names become unknown."""
    FAMILIES.pop(family, None)


def facts(name: str) -> Facts:
    """Facts of a network by its name: plain20, resnet56, resnet-20B, imagenet-resnet50.

    Raises
    ------
    InputError
        If no family knows the name.
    """
    if not isinstance(name, str):
        raise InputError(f"expected the name of a network such as 'resnet20', got {name!r}")
    for key, family in FAMILIES.items():
        found = family.parse(name.strip())
        if found is not None:
            if not isinstance(found, Facts):
                raise InputError(f"parse of the family {key!r} must return Facts, got {found!r}")
            return found
    expected = "; ".join(family.expected for family in FAMILIES.values())
    raise InputError(
        f"unknown network '{shown(name, 60)}': expected {expected}; give the file that registers a "
        "network of yours with: minires --plugin FILE"
    )


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
    net = FAMILIES[facts.family].make(facts, rng)
    if not isinstance(net, Network):
        raise InputError(f"make of the family {facts.family!r} must return a Network, got {net!r}")
    return net


def by_name(name: str, *, rng: Rng = 0) -> Network:
    """Network by its name: plain20, resnet56, resnet-20B, imagenet-resnet50.

    Raises
    ------
    InputError
        If there is no such network.
    """
    return make(facts(name), rng=rng)


def numbered(family: str, describe: Callable[..., Facts], variants: Sequence[str] = "") -> Parse:
    """Return a `parse` for names made of a family, a depth, and maybe a variant: resnet-20B.

    Parameters
    ----------
    family : str
    describe : callable
        `describe(depth)` or `describe(depth, variant)` gives the facts.
    variants : str or sequence of str
        The letters or endings that may follow the depth.
    """
    endings = "|".join(map(re.escape, ("", *variants)))
    pattern = re.compile(rf"{re.escape(family)}-?([0-9]+)({endings})")

    def parse(name: str) -> Facts | None:
        match = pattern.fullmatch(name)
        if match is None:
            return None
        digits = match[1].lstrip("0")
        if len(digits) > len(str(MOST_LAYERS)):  # Python refuses to convert thousands of digits
            raise InputError(too_deep(family, digits))
        return describe(int(match[1]), *filter(None, [match[2]]))

    return parse


def listed(*facts: Facts) -> Parse:
    """Return a `parse` for these networks alone, by their names."""
    by_name = {known.name: known for known in facts}
    return by_name.get


def with_variants(family: str, describe: Callable[..., Facts]) -> Parse:
    """Return a `parse` for names made of a family and variants, in any order: alexnet-cifar-bn.

    Parameters
    ----------
    family : str
    describe : callable
        `describe(*variants)` gives the facts, or raises `InputError` for an unknown variant.
    """

    def parse(name: str) -> Facts | None:
        if name != family and not name.startswith(f"{family}-"):
            return None
        return describe(*name.removeprefix(family).split("-")[1:])

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
    numbered("imagenet-resnet", resnet.imagenet_facts, ("A", "B", "C", resnet.TORCHVISION)),
    resnet.build_imagenet,
    f"imagenet-resnetN or -resnetN{resnet.TORCHVISION} with N in "
    f"{', '.join(map(str, resnet.IMAGENET_BLOCKS))}",
)
register(
    "imagenet-plain",
    numbered("imagenet-plain", resnet.imagenet_plain_facts),
    resnet.build_imagenet,
    "imagenet-plain18 or -plain34",
)
register(
    "alexnet",
    listed(alexnet.alexnet_facts(), alexnet.torchvision_facts()),
    alexnet.build_alexnet,
    "alexnet or alexnet-torchvision",
)
register(
    "alexnet-cifar",
    with_variants("alexnet-cifar", alexnet.cifar_facts),
    alexnet.build_cifar,
    f"alexnet-cifar, followed by any of -{', -'.join(alexnet.CIFAR_VARIANTS)}",
)
register(
    "vgg",
    numbered("vgg", vgg.vgg_facts, ("bn",)),
    vgg.build_vgg,
    "vgg16, vgg19, vgg16bn or vgg19bn",
)
