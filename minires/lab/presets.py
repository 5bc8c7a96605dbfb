"""Presets of the degradation experiment, and the recipes that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from minires.data import Dataset
from minires.errors import InputError
from minires.runs.config import Config


def paper_milestones(iterations: int) -> tuple[int, ...]:
    """Half and three quarters of the way, as 32k and 48k of 64k; none below 2,000 iterations, too short to anneal."""
    return (iterations // 2, iterations * 3 // 4) if iterations >= 2000 else ()


def paper_warmup(net: str, lr: float) -> float | None:
    """The paper's warm-up (section 4.2): at 110 layers 0.1 is too large to start with, hence 0.01; fewer have none."""
    return 0.01 if int("".join(filter(str.isdigit, net))) >= 110 and lr > 0.01 else None


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
        Percentage points of training error by which plain-56 must end above plain-20, and above resnet-56.
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


# Margins are well below what two full sets of public runs on CIFAR-10 show (github.com/a-martyn/resnet): plain-56 is 30
# to 40 points above plain-20 over epochs 3 to 20, and 2.6 and 4.4 points at the end.
TIERS = {
    # At the paper's 0.1, residual nets need longer to leave plain ones; and to leave chance takes steps, not images. No
    # image is seen twice, so crops and flips, which are against learning by heart, have nothing to do.
    "quick": Tier(280, 0.01, 512, 2, 10, batch_size=64, augment=False),
    # Of so few steps ResNet-56 would spend a quarter at chance, were the first ones at 0.1.
    "lesson": Tier(2_000, 0.1, 2_000, 5, 15, warmup_lr=0.01),
    "quarter": Tier(16_000, 0.1, 5_000, 16, 5),
    "paper": Tier(64_000, 0.1, 10_000, 32, 1),
}


def tier_name(config: Mapping[str, Any]) -> str | None:
    """Tier that a run's config belongs to, if any: its size and all of its recipe."""
    own = (
        config["iterations"],
        config["lr"],
        config["batch_size"],
        config["warmup_lr"],
        config["augment"],
    )
    rest = tuple(config["milestones"]), config["momentum"], config["weight_decay"]
    if rest != (paper_milestones(config["iterations"]), Config.momentum, Config.weight_decay):
        return None
    for name, t in TIERS.items():
        if own == (
            t.iterations,
            t.lr,
            t.batch_size,
            t.warmup_lr or paper_warmup(config["net"], t.lr),
            t.augment,
        ):
            return name
    return None


def base_config(
    data: Dataset,
    tier: str = "quick",
    *,
    net: str = "plain20",
    iterations: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    eval_images: int | None = None,
    eval_every: int | None = None,
    moving_average: bool = False,
    warmup_lr: float | None = None,
    augment: bool | None = None,
    **rest: Any,
) -> Config:
    """Recipe of a tier, or of another size by its rules; what is None is the tier's.

    Parameters
    ----------
    data : Dataset
        Where it has fewer images than the tier evaluates on, fewer are taken.
    tier : {"quick", "lesson", "quarter", "paper"}
    net, iterations, lr, batch_size, eval_images, eval_every, augment
        As in `Config`.
    moving_average : bool
        Evaluate with batch norm's moving averages, not recomputed ones.
    warmup_lr : float, optional
        The tier's goes with the tier's `lr` only.
    **rest
        Other fields of `Config`.

    Raises
    ------
    InputError
        If there is no such tier, or a value makes no sense.
    """
    if tier not in TIERS:
        raise InputError(f"the tier must be one of {', '.join(TIERS)}, got {tier!r}")
    size = TIERS[tier]
    iterations = size.iterations if iterations is None else iterations
    if eval_images is None:
        eval_images = min(size.eval_images, len(data.test_images), len(data.train_images) // 2)
    return Config(
        net=net,
        dataset=data.name,
        iterations=iterations,
        milestones=paper_milestones(iterations),
        lr=size.lr if lr is None else lr,
        batch_size=size.batch_size if batch_size is None else batch_size,
        eval_images=eval_images,
        eval_every=max(1, iterations // size.evaluations) if eval_every is None else eval_every,
        bn_images=0 if moving_average else eval_images,
        warmup_lr=size.warmup_lr if warmup_lr is None and lr is None else warmup_lr,
        augment=size.augment if augment is None else augment,
        **rest,
    )


def recipe(config: Config) -> Config:
    """Add the paper's warm-up where it had one.

    Raises
    ------
    InputError
        For nets that no recipe here trains.
    """
    if config.net.startswith("imagenet"):
        raise InputError(
            f"{config.net} is here to be read (minires info {config.net}); train a net such as resnet20"
        )
    return replace(config, warmup_lr=config.warmup_lr or paper_warmup(config.net, config.lr))
