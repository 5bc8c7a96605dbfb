"""Guess the network that a file of weights is of: one with the same names and shapes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np

from minires.errors import InputError
from minires.exchange import names
from minires.exchange.blank import blank
from minires.nets import registry
from minires.nets.network import Facts, Network

Array = np.ndarray
ENDINGS = ("", "-torchvision", "B", "C", "bn")


def guess(state: Mapping[str, Array], told: str | None = None) -> list[str]:
    """Names of the networks that have these arrays; [] if none has.

    Networks may differ in what has no weights, such as a shortcut of option A: then there are
    several.

    Parameters
    ----------
    state : dict of str to ndarray
        Without prefixes, see `names.without_prefix`.
    told : str, optional
        The name of the network, where the file says it.
    """
    if told:
        return [told]
    found = []
    for facts in _candidates(_depth(state)):
        net = blank(facts)
        style = names.recognise(net, state)
        if facts.name not in found and fits(net, style, state):
            found.append(facts.name)
    return found


def fits(net: Network, style: str, state: Mapping[str, Array]) -> bool:
    """Whether names and shapes are those of the network, but for the number of classes."""
    entries = names.entries(net, style)
    there = {entry.name: state.get(entry.name) for entry in entries.values()}
    return len(state) == len(entries) and all(
        (a := there[entry.name]) is not None and same_shape(a, entry, head(net, name))
        for name, entry in entries.items()
    )


def head(net: Network, name: str) -> bool:
    """Whether an array belongs to the last layer, which makes the logits."""
    return name.rpartition(".")[0] == list(net.children)[-1]


def same_shape(a: Array, entry: names.Entry, any_classes: bool = False) -> bool:
    """Whether an array of a file has the shape of an entry, maybe for other classes."""
    if any_classes and a.ndim:
        classes = entry.order.index(len(entry.order) - 1)
        expected = (*entry.theirs[:classes], a.shape[classes], *entry.theirs[classes + 1 :])
        return a.shape == expected
    return a.shape == entry.theirs


def _depth(state: Mapping[str, Array]) -> int:
    """Weighted layers: filters and matrices that are not in a shortcut."""
    beside = ("shortcut", "downsample")
    return sum(
        a.ndim in (2, 4) and not any(word in name for word in beside) for name, a in state.items()
    )


def _candidates(depth: int) -> Iterator[Facts]:
    """Facts of the networks of this depth, of every family."""
    for family in registry.FAMILIES:
        for name in (family, *(f"{family}{depth}{ending}" for ending in ENDINGS)):
            with contextlib.suppress(InputError):
                facts = registry.facts(name)
                if facts.depth == depth:
                    yield facts
