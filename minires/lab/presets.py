"""Presets of the degradation experiment, and the recipes that they stand for.

On the command line a preset is called a tier: `minires degradation --tier lesson`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from minires.data import Dataset
from minires.errors import InputError
from minires.nets import registry
from minires.nets.network import Facts
from minires.optim import paper_milestones, paper_warmup
from minires.runs.config import OPTIONS, Config
from minires.runs.run import Run
from minires.train.task import get_task


@dataclass(frozen=True)
class Preset:
    """A size of the degradation experiment, and the margin that its claims demand.

    Attributes
    ----------
    iterations : int
    lr : float
    eval_images : int
    evaluations : int
        Evenly spread. The last one is at the end.
    margin : float
        Percentage points of training error by which plain-56 must end above plain-20, and above
        resnet-56.
    batch_size : int
    warmup_lr : float or None
        For every net. None leaves it to `paper_warmup`.
    augment : bool
        See `Config`.
    """

    iterations: int
    lr: float
    eval_images: int
    evaluations: int
    margin: float
    batch_size: int = 128
    warmup_lr: float | None = None
    augment: bool = True


# Margins are well below the differences of public runs on CIFAR-10, see LOG.md.
PRESETS = {
    # At lr 0.1, residual nets take longer to separate from plain ones. No image repeats, so
    # augmentation has nothing to prevent.
    "quick": Preset(280, 0.01, 512, 2, 10, batch_size=64, augment=False),
    # Without a warm-up, ResNet-56 stays at chance for a quarter of this short run.
    "lesson": Preset(2_000, 0.1, 2_000, 5, 15, warmup_lr=0.01),
    "quarter": Preset(16_000, 0.1, 5_000, 16, 5),
    "paper": Preset(64_000, 0.1, 10_000, 32, 1),
}


# Settings that every preset leaves at their usual values.
PAPERS = (
    "momentum",
    "weight_decay",
    "milestones",
    "init",
    "subtract_mean",
    "pca_colour",
    "plateau",
    "shards",
    "image_size",
    "normalise",
    "weights",
    "head",
    "freeze",
    "bn",
    "until",
    "task",
)


# If a network is made for images more than this many times as high or wide as the given ones, no
# pixels are left at its end.
TOO_SMALL = 4


def preset_name(run: Run) -> str | None:
    """Name of the preset whose size and whole recipe a run has; None if no preset matches."""
    config = run.config
    if not all(OPTIONS[name].is_usual(config) for name in PAPERS):
        return None
    names = ("iterations", "lr", "batch_size", "augment")
    for name, preset in PRESETS.items():
        warmup_lr = preset.warmup_lr or paper_warmup(run.depth, preset.lr)
        same = all(config[field] == getattr(preset, field) for field in names)
        if same and config["warmup_lr"] == warmup_lr:
            return name
    return None


def base_config(
    data: Dataset,
    preset: str = "quick",
    *,
    net: str = "plain20",
    moving_average: bool = False,
    **asked: Any,
) -> Config:
    """Recipe of a preset, or of another size by the same rules.

    Parameters
    ----------
    data : Dataset
        If it has fewer images than the preset evaluates on, fewer are taken.
    preset : {"quick", "lesson", "quarter", "paper"}
    net : str
    moving_average : bool
        Evaluate with batch norm's moving averages instead of recomputed statistics.
    **asked
        Other fields of `Config`. A field that is missing or None has the preset's value. The
        preset's warm-up belongs to its learning rate: with another `lr` there is none.

    Raises
    ------
    InputError
        If there is no such preset, a value makes no sense, or the images are too small for `net`.
    """
    if preset not in PRESETS:
        raise InputError(f"the tier must be one of {', '.join(PRESETS)}, got {preset!r}")
    check_size(registry.facts(net), data)
    size = PRESETS[preset]
    asked = {name: value for name, value in asked.items() if value is not None}
    iterations = asked.get("iterations", size.iterations)
    images = min(size.eval_images, len(data.test), len(data.train) // 2)
    images = asked.get("eval_images", images)
    chosen = {
        "iterations": iterations,
        "milestones": () if asked.get("plateau") else paper_milestones(iterations),
        "lr": size.lr,
        "batch_size": size.batch_size,
        "eval_images": images,
        "eval_every": max(1, iterations // size.evaluations),
        "bn_images": 0 if moving_average else images,
        "warmup_lr": None if "lr" in asked else size.warmup_lr,
        "augment": size.augment,
        "task": data.task,
    }
    return Config(net=net, dataset=data.name, **(chosen | asked))


def check_size(facts: Facts, data: Dataset) -> None:
    """Refuse a network that is made for much larger images than these.

    Parameters
    ----------
    facts : Facts
        As the registry has them, with the shape of the images that the network is made for.
    data : Dataset

    Raises
    ------
    InputError
        If the images are too small.
    """
    sides, given = facts.input_shape[:2], data.input_shape[:2]
    if any(side > TOO_SMALL * pixels for side, pixels in zip(sides, given, strict=False)):
        made_for, here = ("x".join(map(str, shape)) for shape in (sides, given))
        raise InputError(
            f"{facts.name} is made for images of {made_for}, got images of {here}: "
            f"it is here to be read (minires info {facts.name}); train a net such as resnet20"
        )


def with_warmup(config: Config, facts: Facts) -> Config:
    """Add the paper's warm-up for the networks that had one, if the task knows warm-ups."""
    if get_task(config.task).warm_below is None:
        return config
    return replace(config, warmup_lr=config.warmup_lr or paper_warmup(facts.depth, config.lr))
