"""The arms of the race and of the ablations, and the recipe of each of their runs.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS
2012. Figure 1 of the paper: with ReLU, a network of four layers reaches a training error of 25 % on
CIFAR-10 six times faster than with tanh. Rates were chosen for each activation, and no network was
regularised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minires.data import Dataset
from minires.errors import InputError
from minires.runs.config import Config
from minires.text import did_you_mean


@dataclass(frozen=True)
class Arm:
    """One network of the race, with the learning rates that are tried for it.

    Attributes
    ----------
    title : str
        As tables and figures name it.
    net : str
    rates : tuple of float
        They rise. The best one should lie inside.
    rival : str
        The arm with which this one is compared: the same network with ReLU. "" for ReLU itself.
    """

    title: str
    net: str
    rates: tuple[float, ...]
    rival: str = ""


@dataclass(frozen=True)
class Ablation:
    """The network with ReLU, without batch norm, changed in one thing."""

    title: str
    net: str
    pca_colour: bool = False


# Neighbours are a factor of 2.5 to 3 apart. LOG.md has the argument and the trial.
ARMS = {
    "relu": Arm("ReLU", "alexnet-cifar", (0.015, 0.04, 0.1, 0.25, 0.6)),
    "tanh": Arm("tanh", "alexnet-cifar-tanh", (0.015, 0.04, 0.1, 0.25, 0.6), "relu"),
    "relu-bn": Arm("ReLU, batch norm", "alexnet-cifar-bn", (0.004, 0.01, 0.025, 0.06, 0.15)),
    "tanh-bn": Arm(
        "tanh, batch norm", "alexnet-cifar-tanh-bn", (0.004, 0.01, 0.025, 0.06, 0.15), "relu-bn"
    ),
}
BASELINE = "baseline"
ABLATIONS = {
    BASELINE: Ablation("baseline", "alexnet-cifar"),
    "no-lrn": Ablation("no response normalisation", "alexnet-cifar-nolrn"),
    "no-overlap": Ablation("pooling without overlap", "alexnet-cifar-pool2"),
    "dropout": Ablation("dropout", "alexnet-cifar-dropout"),
    "colour": Ablation("PCA colour", "alexnet-cifar", pca_colour=True),
}
ABLATION_RATE = ARMS["relu"].rates[2]


@dataclass(frozen=True)
class Plan:
    """A size of the race; the defaults are those of the recorded one.

    Attributes
    ----------
    arms : tuple of str
        Keys of `ARMS` and `ABLATIONS`.
    seeds : int
        Each arm runs with seeds 0 .. seeds - 1 at its best rate. Its rates are tried with seed 0.
    iterations : int
        A run of the race that is not at its target by then has missed it.
    target : float
        The training error that ends a run of the race.
    eval_every : int
        Iterations between two evaluations in the race.
    images : int
        Training images, fixed in a run, on which errors are measured; and as many test images.
    bn_images : int
        Other training images, for batch norm's statistics.
    ablation_iterations, ablation_evaluations : int
        Length of an ablation, and how often it is evaluated.
    """

    arms: tuple[str, ...] = (*ARMS, *ABLATIONS)
    seeds: int = 3
    iterations: int = 5000
    target: float = 0.25
    eval_every: int = 50
    images: int = 5000
    bn_images: int = 1000
    batch_size: int = 128
    ablation_iterations: int = 2000
    ablation_evaluations: int = 4
    backend: str = "numpy"

    def __post_init__(self) -> None:
        if not self.arms or self.seeds < 1:
            raise InputError(
                f"expected at least one arm and one seed, got {len(self.arms)} arms and "
                f"{self.seeds} seeds"
            )
        unknown = [name for name in self.arms if name not in {**ARMS, **ABLATIONS}]
        if unknown:
            near = did_you_mean(unknown[0], [*ARMS, *ABLATIONS])
            raise InputError(
                f"the arms are {', '.join([*ARMS, *ABLATIONS])}, got {unknown[0]!r}{near}"
            )

    @property
    def racing(self) -> list[str]:
        """Arms of the race, in the order of `ARMS`."""
        return [name for name in ARMS if name in self.arms]

    @property
    def ablated(self) -> list[str]:
        """Ablations in the order of `ABLATIONS`; with any of them, the baseline."""
        chosen = [name for name in ABLATIONS if name in self.arms]
        return list(dict.fromkeys([BASELINE, *chosen])) if chosen else []


@dataclass(frozen=True)
class Entry:
    """One run: the name of its folder, its title in messages, and its recipe."""

    name: str
    title: str
    config: Config


def racer(plan: Plan, data: Dataset, arm: str, lr: float, seed: int) -> Entry:
    """A run of the race: no augmentation, no weight decay, one rate to the end."""
    entered = ARMS[arm]
    config = Config(
        entered.net,
        data.name,
        plan.iterations,
        lr=lr,
        seed=seed,
        until=plan.target,
        eval_every=plan.eval_every,
        **_common(plan, data),
    )
    title = f"{entered.title}, rate {lr:g}, seed {seed}"
    return Entry(f"{arm}-lr{lr:g}-seed{seed}", title, config)


def ablation(plan: Plan, data: Dataset, name: str, seed: int) -> Entry:
    """A run of an ablation: the recipe of the race, for a fixed number of iterations."""
    changed = ABLATIONS[name]
    config = Config(
        changed.net,
        data.name,
        plan.ablation_iterations,
        lr=ABLATION_RATE,
        seed=seed,
        pca_colour=changed.pca_colour,
        eval_every=max(1, plan.ablation_iterations // plan.ablation_evaluations),
        **_common(plan, data),
    )
    return Entry(f"{name}-seed{seed}", f"{changed.title}, seed {seed}", config)


def _common(plan: Plan, data: Dataset) -> dict:
    """The part of a recipe that all runs share; small data sets have fewer images to evaluate."""
    images = min(plan.images, len(data.test), len(data.train) // 2)
    return {
        "batch_size": plan.batch_size,
        "weight_decay": 0.0,
        "augment": False,
        "eval_images": images,
        "bn_images": min(plan.bn_images, images),
        "task": data.task,
        "backend": plan.backend,
    }


def search(plan: Plan, data: Dataset) -> list[Entry]:
    """The runs that try the rates of each arm, with seed 0."""
    return [racer(plan, data, arm, lr, 0) for arm in plan.racing for lr in ARMS[arm].rates]


def ablations(plan: Plan, data: Dataset) -> list[Entry]:
    """The runs of the ablations."""
    seeds: Sequence[int] = range(plan.seeds)
    return [ablation(plan, data, name, seed) for name in plan.ablated for seed in seeds]
