"""Weights that a run starts from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minires.cli import normalising
from minires.errors import InputError
from minires.text import shown

if TYPE_CHECKING:
    from minires.nets.network import Facts
    from minires.runs.config import Config

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Start:
    """The start of a run: weights, and the recipe that follows from them.

    Attributes
    ----------
    state : dict of str to ndarray, or None
        Trained weights; None for random ones.
    asked : dict
        Fields of the recipe: those that were typed, and those that follow from the weights.
    """

    state: State | None
    asked: dict[str, Any]


def from_weights(net: str, path: Path | None, head: str, asked: dict[str, Any]) -> Start:
    """Read the file of --weights, and add to the recipe what it needs.

    The file's normalisation and image size are used, unless others were typed.

    Raises
    ------
    InputError
        If the file cannot be read, or does not say how its pictures are normalised.
    """
    if path is None:
        if head != "keep":
            raise InputError(f"--head {head} replaces the last layer of --weights; give --weights")
        return Start(None, asked)
    from minires.exchange import weights

    trained, about = weights.load_network(net, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    how = normalising.chosen(about, asked.get("normalise"), path)
    if how == normalising.OF_FILE:
        raise InputError(
            f"{shown(path)} holds a mean of its own, and a run has that of its training images or "
            "of ImageNet; choose it with --normalise"
        )
    wanted = {"normalise": how}
    wanted |= {"image_size": about["image_size"]} if about["image_size"] else {}
    return Start(trained.state(), wanted | asked | {"weights": digest, "head": head})


def check_parts(config: Config, facts: Facts, state: State | None) -> None:
    """Refuse parts that cannot be frozen and weights that do not fit, before anything is compiled.

    Raises
    ------
    InputError
        As `freeze` and `start_from` of `minires.nets.freeze` do.
    """
    from minires.exchange.blank import blank
    from minires.nets.freeze import freeze, start_from

    if not (config.freeze or config.bn == "frozen" or state):
        return
    net = freeze(blank(facts), config.freeze, config.bn)
    if state:
        start_from(net, state, config.head)
