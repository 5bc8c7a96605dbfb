"""Names that are typed: checked before anything is loaded, completed, and suggested if mistyped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from minires.errors import InputError
from minires.nets import registry
from minires.nets.network import Facts
from minires.text import did_you_mean

RECIPES = ("cifar10", "imagenet")
TIERS = ("quick", "lesson", "quarter", "paper")
FIGURES = ("errors", "depth", "layers")
NETS = ("plain20", "plain56", "resnet20", "resnet32", "resnet56", "resnet110", "resnet20B")


def network(name: str) -> Facts:
    """Facts of a network that was named on the command line.

    Raises
    ------
    InputError
        If there is no such network; the message names the nearest ones.
    """
    try:
        return registry.facts(name)
    except InputError as e:
        raise InputError(f"{e}{did_you_mean(name, _candidates(name))}") from e


def _candidates(typed: str) -> list[str]:
    """Networks of every family with the depth, and the letter, that were typed."""
    ending = re.search(r"[0-9]+[A-Za-z]?$", typed.strip())
    if not ending:
        return [*NETS, *filter(_exists, registry.FAMILIES)]
    endings = dict.fromkeys([ending[0], ending[0].upper()])
    names = (family + end for family in registry.FAMILIES for end in endings)
    return [name for name in names if _exists(name)]


def _exists(name: str) -> bool:
    try:
        registry.facts(name)
    except InputError:
        return False
    return True


def one_of(option: str, known: Iterable[str] | Callable[[], Iterable[str]]) -> Callable:
    """Return a check of an option: its value must be a known name."""

    def check(value: str | None) -> str | None:
        names = list(known() if callable(known) else known)
        if value is None or value in names:
            return value
        raise InputError(
            f"{option} must be one of {', '.join(names)}, got {value!r}{did_you_mean(value, names)}"
        )

    return check


def data_sets() -> list[str]:
    """Names of the data sets, those of plugins included."""
    from minires.data.sources import SOURCES

    return ["auto", *SOURCES]


def looks_like_folder(value: str) -> bool:
    """Whether --dataset names a folder of pictures, see `minires.data.looks_like_folder`."""
    from minires.data.sources import looks_like_folder

    return looks_like_folder(value)


def data_set(value: str) -> str:
    """Check --dataset: the name of a data set, or a folder of pictures."""
    return value if looks_like_folder(value) else one_of("--dataset", data_sets)(value)


def listed(option: str, text: str) -> list[str]:
    """Names that are separated by commas.

    Raises
    ------
    InputError
        If there is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"{option} expects at least one name, got {text!r}")
    return names


def completing(known: Sequence[str] | Callable[[], list[str]]) -> Callable:
    """Return a completion: the known names that begin with the text typed so far."""

    def complete(incomplete: str) -> list[str]:
        names = known() if callable(known) else known
        return [name for name in names if name.startswith(incomplete)]

    return complete
