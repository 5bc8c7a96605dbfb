"""The recipe of a run: every hyper-parameter, declared once with its default and its wording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from minires.errors import InputError
from minires.nets.freeze import NORMS
from minires.nets.initialise import HOW as INITS
from minires.optim import paper_milestones
from minires.runs import options
from minires.runs.config_checks import BN_AVERAGES, check
from minires.runs.options import declare


def _warm(value: float | None, config: Mapping[str, Any]) -> str:
    return f"lr {config['lr']:g}" + (f" after a warm-up at {value:g}" if value else "")


@dataclass(frozen=True)
class Config:
    """Recipe of one run; the defaults are the paper's for CIFAR-10 (section 4.2).

    Attributes
    ----------
    net : str
        Canonical name, such as "plain20", "resnet56", "resnet20B".
    dataset : str
        Name of the data, such as "CIFAR-10" or "shapes10".
    iterations, batch_size : int
    lr : float
        Learning rate, divided by 10 at each of `milestones`.
    milestones : tuple of int
        See `minires.optim.paper_milestones`.
    warmup_lr : float or None
        Learning rate of the warm-up. The warm-up ends when the running main metric of training is
        below the task's `warm_below`: 80 % error for classification. Milestones do not lower this
        rate. The paper uses 0.01 for 110 layers and more.
    momentum, weight_decay : float
    init : {"he", "normal"}
        Initial weights: He's (arXiv 1502.01852), or N(0, 0.01^2), see `minires.nets.initialise`.
    seed : int
        Decides initial weights, order, crops and flips. All nets of an experiment have the same.
    augment : bool
        Augment training images; for CIFAR-10: pad by 4, crop, flip.
    subtract_mean : bool
        Subtract the mean of the training images.
    pca_colour : bool
        Shift the colours of training images, see `minires.data.augment.add_colour`.
    until : float or None
        End at the first evaluation whose main training metric reaches this value, as recorded: an
        error of 25 % is 0.25. None trains for all `iterations`.
    eval_every : int
        Iterations between two evaluations. The last iteration is always evaluated.
    eval_images : int
        Number of training images (not augmented), and number of test images, on which metrics are
        measured. The same images are used in every evaluation.
    bn_images : int
        Number of other training images, from which batch norm's statistics are recomputed before
        each evaluation, as the paper's authors did. 0 keeps the moving averages of training.
    plateau : int or None
        Also divide the learning rate by 10 when the test metric has not improved for this number of
        epochs, see `minires.optim.Plateau`.
    shards : int
        Parts of a batch that are computed one after the other, with batch norm in each part, see
        `minires.train.shards`. It must divide `batch_size`.
    image_size : int or None
        Side of the squares that are cut out of pictures; None for the data's own.
    normalise : str
        The mean that is subtracted, see `minires.data.normalisation`.
    weights : str
        SHA-256 of the file of weights that the run starts from; "" for random ones.
    head : {"keep", "new"}
        With `weights`: whether the last layer starts from them, too.
    freeze : tuple of str
        Parts of the network that are not trained, see `minires.nets.freeze`.
    bn : {"train", "frozen"}
        Whether batch norm outside the frozen parts is trained.
    backend : str
    task : str
        See `minires.train.task`.
    bn_average : {"images", "batches"}
        Average the recomputed statistics over images, from batches of equal size; or over batches,
        whatever their sizes, as runs of version 0.1 did.
    """

    net: str = declare()
    dataset: str = declare(flag="--dataset")
    iterations: int = declare(
        help="Steps for each net; the paper's is 64000.",
        words="{} iterations".format,
        line=lambda value, config: f"{value} iterations",
    )
    batch_size: int = declare(
        128,
        help="Images per step.",
        words="batch {}".format,
        line=lambda value, config: f"batch {value}",
    )
    lr: float = declare(0.1, help="Learning rate.", words="lr {}".format, line=lambda *_: "")
    milestones: tuple[int, ...] = declare(
        (),
        help="Steps at which lr drops tenfold, as 1000,1500; or none.",
        parse=options.integers,
        typed=lambda value: ",".join(map(str, value)) or "none",
        derived=lambda config: () if config["plateau"] else paper_milestones(config["iterations"]),
    )
    warmup_lr: float | None = declare(
        None,
        help="Learning rate until the training error is below 80 %.",
        words=lambda value: f"warm-up {value}" if value else "no warm-up",
        line=_warm,
    )
    momentum: float = declare(0.9, help="Momentum of SGD.")
    weight_decay: float = declare(1e-4, help="Weight decay of SGD.")
    seed: int = declare(0, line=lambda *_: "")
    augment: bool = declare(
        True,
        help="Crop and flip the images.",
        flag="--augment/--no-augment",
        words=lambda value: "crops and flips" if value else "no crops and flips",
        line=lambda value, config: f"{'with' if value else 'without'} crops and flips",
    )
    eval_every: int = declare(1000, help="Iterations between evaluations.", line=lambda *_: "")
    eval_images: int = declare(
        5000,
        help="Images to measure errors on.",
        line=lambda *_: "",
    )
    bn_images: int = declare(
        5000,
        help="Evaluate with batch norm's moving averages.",
        flag="--moving-average",
        switch=0,
        words=lambda value: "recomputed statistics" if value else "moving averages",
        line=lambda *_: "",
        rare=True,
    )
    init: str = declare(
        "he",
        help="Initial weights: he, or normal for N(0, 0.01^2).",
        choices=INITS,
        added=True,
    )
    subtract_mean: bool = declare(
        True,
        help="Do not subtract the mean of the training images.",
        flag="--no-mean",
        switch=False,
        words=lambda value: "mean subtracted" if value else "no mean subtracted",
        added=True,
    )
    pca_colour: bool = declare(
        False,
        help="Shift colours along their principal components.",
        flag="--pca-colour",
        switch=True,
        words=lambda value: "colour shifts" if value else "no colour shifts",
        added=True,
        rare=True,
    )
    plateau: int | None = declare(
        None,
        help="Divide lr by 10 after N epochs without a lower test error.",
        words=lambda value: f"plateau of {value} epochs" if value else "no plateau",
        added=True,
        rare=True,
    )
    shards: int = declare(
        1,
        help="Compute a batch in N parts, with batch norm in each.",
        words="batches in {} parts".format,
        added=True,
        rare=True,
    )
    image_size: int | None = declare(
        None,
        help="Side of the squares cut out of pictures [default: the net's].",
        words=lambda value: f"images of {value} pixels" if value else "images of the data's size",
        added=True,
        rare=True,
    )
    normalise: str = declare(
        "per-pixel-mean",
        help="per-pixel-mean (the default), per-channel-mean, imagenet.",
        added=True,
        rare=True,
    )
    weights: str = declare(
        "", words=lambda value: f"weights {value[:12]}" if value else "random weights", added=True
    )
    head: str = declare("keep", words="{} last layer".format, added=True)
    freeze: tuple[str, ...] = declare(
        (),
        help="Parts not to train, as conv,bn,stage1; or none.",
        parse=options.names,
        typed=lambda value: ",".join(value) or "none",
        words=lambda value: f"{', '.join(value)} frozen" if value else "nothing frozen",
        added=True,
    )
    bn: str = declare(
        "train",
        help="Train batch norm, or keep its statistics, gamma and beta.",
        choices=NORMS,
        words=lambda value: f"batch norm {'trained' if value == 'train' else value}",
        added=True,
        rare=True,
    )
    until: float | None = declare(
        None,
        help="Stop at this training error, such as 0.25.",
        words=lambda value: "to the last iteration" if value is None else f"until {value:g}",
        added=True,
        rare=True,
    )
    task: str = declare(
        "classification", help="What is learned [default: the data's].", added=True, rare=True
    )
    bn_average: str = declare(
        "images",
        help="Average over images, or over batches.",
        words="statistics averaged over {}".format,
        line=lambda *_: "",
        choices=BN_AVERAGES,
        added=True,
        rare=True,
        earlier="batches",
    )
    backend: str = declare(
        "numpy",
        help="numba (compiled, the default where installed) or numpy.",
        line=lambda value, config: f"{value} backend",
    )

    def __post_init__(self) -> None:
        check(self)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        lists = {"milestones": list(self.milestones), "freeze": list(self.freeze)}
        return asdict(self) | lists

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`; fields that an earlier version did not record are filled in.

        Raises
        ------
        InputError
            If a field is missing or unknown.
        """
        known = {f.name for f in fields(cls)}
        added = {name for name, row in OPTIONS.items() if row.option.added}
        if not known - added <= set(values) <= known:
            differing = sorted((known - added - set(values)) | (set(values) - known))
            raise InputError(
                f"a run's config must have the fields {sorted(known)}; differing: {differing}. "
                "It was written by another version; train into another folder"
            )
        earlier = {name: row.option.earlier for name, row in OPTIONS.items() if row.is_changed}
        lists = {name: tuple(values[name]) for name in ("milestones", "freeze") if name in values}
        return cls(**{**earlier, **values, **lists})

    def as_begun(self, recorded: Self) -> Self:
        """Return the recipe for resuming a run that an earlier version started.

        Where a default has changed since then, the run keeps the value in `recorded`, its own
        record. A setting that the user asked for is not replaced.
        """
        changed = {
            name: row.option.earlier
            for name, row in OPTIONS.items()
            if row.is_changed
            and getattr(self, name) == row.default
            and getattr(recorded, name) == row.option.earlier
        }
        return replace(self, **changed)


OPTIONS = options.table(Config)


def in_words(config: Config) -> str:
    """The recipe in one line: "280 iterations, batch 64, lr 0.01, ..."."""
    return options.recipe_line(OPTIONS, config.to_json())
