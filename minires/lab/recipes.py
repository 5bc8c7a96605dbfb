"""Recipes of `minires train`: the paper's for CIFAR-10, and its own for ImageNet."""

from __future__ import annotations

from typing import Any

from minires.data import Dataset
from minires.errors import InputError
from minires.nets.network import Facts
from minires.text import did_you_mean

IMAGENET_SIDE = 224  # pixels; networks for larger images than CIFAR-10's are trained by "imagenet"
EVALUATED = {"cifar10": 2000, "imagenet": 10_000}  # images on which errors are measured, at most

# The recipe of a run, where nothing else is typed. "imagenet" is section 3.4 of the paper: the rate
# falls when the validation error has not improved for some epochs, which the paper does not number.
RECIPES: dict[str, dict[str, Any]] = {
    "cifar10": {"iterations": 64_000, "batch_size": 128, "lr": 0.1},
    "imagenet": {
        "iterations": 600_000,
        "batch_size": 256,
        "lr": 0.1,
        "milestones": (),
        "plateau": 5,
        "pca_colour": True,
    },
}


def recipe_of(facts: Facts, name: str | None = None) -> str:
    """Name of the recipe that was asked for, or of the one for this network.

    Raises
    ------
    InputError
        If there is no such recipe.
    """
    if name is None:
        return "imagenet" if max(facts.input_shape) >= IMAGENET_SIDE else "cifar10"
    if name not in RECIPES:
        near = did_you_mean(name, RECIPES)
        raise InputError(f"--recipe must be one of {', '.join(RECIPES)}, got {name!r}{near}")
    return name


def filled_in(recipe: str, asked: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """
    The options that were typed, and those of the recipe for the others.

    Typed milestones replace the plateau, and a typed plateau the milestones.

    Parameters
    ----------
    recipe : str
        A key of `RECIPES`.
    asked : dict
        Fields of `Config` that were typed.
    data : Dataset
        "imagenet" evaluates once per epoch, "cifar10" four times in a run: on `EVALUATED` images,
        or on as many as there are. Half of the training images are left for batch norm's
        statistics, if these are recomputed.
    """
    chosen = RECIPES[recipe] | asked
    if asked.get("milestones"):
        chosen["plateau"] = asked.get("plateau")
    if chosen.get("plateau") and "milestones" not in asked:
        chosen["milestones"] = ()
    every = chosen["iterations"] // 4
    spare = len(data.train) // 2
    if recipe == "imagenet":
        every = min(chosen["iterations"], len(data.train) // chosen["batch_size"])
    elif asked.get("bn_images") == 0:
        spare = len(data.train)
    images = min(EVALUATED[recipe], len(data.test), spare)
    return {"eval_every": max(1, every), "eval_images": images} | chosen
