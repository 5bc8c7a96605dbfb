"""Presets of the degradation experiment, and the recipes that they stand for.

On the command line and in `TIERS` a preset is called a tier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from minires.data import Dataset
from minires.errors import InputError
from minires.nets.network import Facts
from minires.optim import paper_milestones, paper_warmup
from minires.runs.config import OPTIONS, Config
from minires.runs.run import Run
from minires.train.task import get_task


@dataclass(frozen=True)
class Tier:
    """A size of the degradation experiment, and what is claimed of it before it is run.

    Attributes
    ----------
    iterations : int
    lr : float
    eval_images : int
    evaluations : int
        Evenly spread; the last one at the end.
    margin : float
        Percentage points of training error by which plain-56 must end above plain-20, and above
        resnet-56.
    batch_size : int
    warmup_lr : float or None
        For every net; None leaves it to `paper_warmup`.
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


# Margins are well below what public runs on CIFAR-10 show; see LOG.md.
TIERS = {
    # At lr 0.1, residual nets need longer to separate from plain ones. No image repeats, so
    # augmentation has nothing to prevent.
    "quick": Tier(280, 0.01, 512, 2, 10, batch_size=64, augment=False),
    # At lr 0.1, ResNet-56 stays at chance for a quarter of so short a run.
    "lesson": Tier(2_000, 0.1, 2_000, 5, 15, warmup_lr=0.01),
    "quarter": Tier(16_000, 0.1, 5_000, 16, 5),
    "paper": Tier(64_000, 0.1, 10_000, 32, 1),
}


# what every tier leaves as it is
PAPERS = ("momentum", "weight_decay", "milestones", "init", "subtract_mean", "task")


def tier_name(run: Run) -> str | None:
    """Tier that a run belongs to, if any: its size and all of its recipe."""
    config = run.config
    if not all(OPTIONS[name].is_usual(config) for name in PAPERS):
        return None
    names = ("iterations", "lr", "batch_size", "augment")
    for name, tier in TIERS.items():
        warmup_lr = tier.warmup_lr or paper_warmup(run.depth, tier.lr)
        same = all(config[field] == getattr(tier, field) for field in names)
        if same and config["warmup_lr"] == warmup_lr:
            return name
    return None


def base_config(
    data: Dataset,
    tier: str = "quick",
    *,
    net: str = "plain20",
    moving_average: bool = False,
    **asked: Any,
) -> Config:
    """Recipe of a tier, or of another size by its rules.

    Parameters
    ----------
    data : Dataset
        Where it has fewer images than the tier evaluates on, fewer are taken.
    tier : {"quick", "lesson", "quarter", "paper"}
    net : str
    moving_average : bool
        Evaluate with batch norm's moving averages, not recomputed ones.
    **asked
        Other fields of `Config`; what is missing or None is the tier's. The tier's warm-up goes
        with the tier's `lr` only.

    Raises
    ------
    InputError
        If there is no such tier, or a value makes no sense.
    """
    if tier not in TIERS:
        raise InputError(f"the tier must be one of {', '.join(TIERS)}, got {tier!r}")
    size = TIERS[tier]
    asked = {name: value for name, value in asked.items() if value is not None}
    iterations = asked.get("iterations", size.iterations)
    images = min(size.eval_images, len(data.test), len(data.train) // 2)
    images = asked.get("eval_images", images)
    chosen = {
        "iterations": iterations,
        "milestones": paper_milestones(iterations),
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


def recipe(config: Config, facts: Facts) -> Config:
    """Add the paper's warm-up where it had one, if the task knows warm-ups.

    Raises
    ------
    InputError
        For nets that no recipe here trains.
    """
    if facts.family == "imagenet-resnet":
        raise InputError(
            f"{facts.name} is here to be read (minires info {facts.name}); "
            "train a net such as resnet20"
        )
    if get_task(config.task).warm_below is None:
        return config
    return replace(config, warmup_lr=config.warmup_lr or paper_warmup(facts.depth, config.lr))
