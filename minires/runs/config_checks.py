"""Checks of the values of a recipe; a message says what was expected and what was given."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from minires.errors import InputError
from minires.nets.freeze import HEADS, NORMS
from minires.nets.initialise import HOW as INITS
from minires.ops import BACKENDS
from minires.runs.metric import is_number
from minires.text import shown

if TYPE_CHECKING:
    from minires.runs.config import Config

BN_AVERAGES = ("images", "batches")


def _given(value: object) -> str:
    """A value in a message; an integer may have too many digits to be written."""
    try:
        return shown(repr(value))
    except ValueError:
        return "an integer of thousands of digits"


def check(config: Config) -> None:
    """Refuse values of a recipe that make no sense.

    Raises
    ------
    InputError
        If there is one.
    """
    _check_integers(config)
    _check_numbers(config)
    _check_milestones(config)
    _check_transfer(config)
    for name in ("augment", "subtract_mean", "pca_colour"):
        if not isinstance(getattr(config, name), bool):
            raise InputError(f"{name} must be true or false, got {_given(getattr(config, name))}")
    for name in ("net", "dataset", "task", "normalise"):
        if not isinstance(getattr(config, name), str) or not getattr(config, name):
            raise InputError(f"{name} must be a name, got {_given(getattr(config, name))}")
    for name, allowed in (
        ("backend", BACKENDS),
        ("init", INITS),
        ("bn_average", BN_AVERAGES),
        ("head", HEADS),
        ("bn", NORMS),
    ):
        value = getattr(config, name)
        if value not in allowed:  # whether a backend is installed does not matter to a reader
            raise InputError(f"{name} must be one of {', '.join(allowed)}, got {_given(value)}")


def _check_transfer(config: Config) -> None:
    if not isinstance(config.weights, str):
        raise InputError(f"weights must be a SHA-256, got {_given(config.weights)}")
    parts = config.freeze
    if not isinstance(parts, tuple) or not all(isinstance(p, str) and p for p in parts):
        raise InputError(f"freeze must be names of parts, got {_given(parts)}")
    if config.head == "new" and not config.weights:
        raise InputError("a new last layer needs weights for the others: give --weights FILE")


def _check_milestones(config: Config) -> None:
    if not isinstance(config.milestones, tuple) or not all(
        type(m) is int and 0 <= m <= config.iterations for m in config.milestones
    ):
        raise InputError(
            f"milestones must be integers from 0 to the {config.iterations} iterations, "
            f"got {_given(config.milestones)}"
        )
    if any(a >= b for a, b in itertools.pairwise(config.milestones)):
        raise InputError(f"milestones must rise, got {config.milestones}")


def _check_integers(config: Config) -> None:
    least = {"iterations": 1, "batch_size": 2, "seed": 0}
    least |= {"eval_every": 1, "eval_images": 1, "bn_images": 0, "shards": 1}
    optional = {"plateau": 1, "image_size": 8}
    least |= {n: bound for n, bound in optional.items() if getattr(config, n) is not None}
    for name, bound in least.items():
        value = getattr(config, name)
        if not isinstance(value, int) or not is_number(value) or value < bound:
            raise InputError(
                f"{name} must be an integer of at least {bound} and below 2^63, got {_given(value)}"
            )

    if config.batch_size % config.shards:
        raise InputError(
            f"shards must divide the batch size {config.batch_size}, got {config.shards}; choose a "
            "divisor"
        )


def _check_numbers(config: Config) -> None:
    names = ["lr", "momentum", "weight_decay"]
    names += [name for name in ("warmup_lr", "until") if getattr(config, name) is not None]
    for name in names:
        if not is_number(getattr(config, name)):
            raise InputError(f"{name} must be a number, got {_given(getattr(config, name))}")
    for name, papers in (("lr", 0.1), ("warmup_lr", 0.01)):
        value = getattr(config, name)
        if value is not None and not 0 < value < float("inf"):
            raise InputError(
                f"{name} must be a positive number, got {value!r}; the paper's is {papers}"
            )
    if not 0 <= config.momentum < 1:
        raise InputError(f"momentum must lie in [0, 1), got {config.momentum}")
    if not 0 <= config.weight_decay < float("inf"):
        raise InputError(f"weight_decay must be at least 0, got {config.weight_decay}")
