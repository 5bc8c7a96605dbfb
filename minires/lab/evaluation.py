"""Evaluate a trained network on the test images: top-1 and top-5 error, by class, confusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.data.dataset import Array, Prepare, Split
from minires.errors import InputError
from minires.lab.figure import SMALL, Figure, drawing, finish, plain
from minires.nets.network import Network
from minires.text import columns

TOP = 5
MOST_NUMBERS = 20  # classes up to which every cell of the figure shows its number
MOST_LABELS = 50  # classes up to which the axes of the figure name them


@dataclass(frozen=True)
class Evaluation:
    """Results on labelled images.

    Attributes
    ----------
    classes : tuple of str
    confusion : ndarray of shape (classes, classes), int64
        Images by their true class (row) and the predicted one (column).
    outside_top5 : int
        Images whose class is not among the five largest logits.
    """

    classes: tuple[str, ...]
    confusion: Array
    outside_top5: int

    @property
    def images(self) -> int:
        """The number of images."""
        return int(self.confusion.sum())

    @property
    def top1_error(self) -> float:
        """Fraction of images whose largest logit is not that of their class."""
        return 1 - int(self.confusion.trace()) / self.images

    @property
    def top5_error(self) -> float | None:
        """Fraction of images whose class is not among the five largest logits.

        None with five classes or fewer, where it is 0 for every network.
        """
        return self.outside_top5 / self.images if len(self.classes) > TOP else None

    @property
    def error_by_class(self) -> dict[str, float | None]:
        """Top-1 error of the images of each class; None if there are none."""
        sizes = self.confusion.sum(axis=1)
        right = self.confusion.diagonal()
        return {
            name: 1 - int(right[k]) / int(sizes[k]) if sizes[k] else None
            for k, name in enumerate(self.classes)
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values; errors are fractions."""
        return {
            "images": self.images,
            "top1_error": self.top1_error,
            "top5_error": self.top5_error,
            "error_by_class": self.error_by_class,
            "confusion": self.confusion.tolist(),
        }


def evaluate(
    predict: Callable[[Array], Array],
    split: Split,
    classes: tuple[str, ...],
    batch_size: int = 128,
    progress: Callable[[int], object] = lambda images: None,
) -> Evaluation:
    """Count the predictions for labelled images.

    Parameters
    ----------
    predict : callable
        `predict(images)` makes logits, or probabilities, (n, classes) of stored images; see
        `single_view`.
    split : Split
    classes : tuple of str
        Names of the classes, which the labels number.
    batch_size : int
    progress : callable
        Called with the number of images of every batch.

    Raises
    ------
    InputError
        If there are no images, or the network has another number of classes.
    """
    K = len(classes)
    if not len(split):
        raise InputError("expected images to evaluate on, got none; choose other data")
    confusion = np.zeros((K, K), np.int64)
    outside = 0
    for start in range(0, len(split), batch_size):
        images, labels = split[np.arange(start, min(start + batch_size, len(split)))]
        scores = predict(images)  # (n, classes)
        if scores.shape[1] != K:
            raise InputError(
                f"the network tells {scores.shape[1]} classes apart, and the data have {K}; give "
                "data with the classes that it was trained for"
            )
        np.add.at(confusion, (labels, scores.argmax(axis=1)), 1)
        true = scores[np.arange(len(labels)), labels]
        outside += int(((scores > true[:, None]).sum(axis=1) >= TOP).sum())
        progress(len(labels))
    return Evaluation(classes, confusion, outside)


def single_view(net: Network, prepare: Prepare) -> Callable[[Array], Array]:
    """Return a `predict` that shows the network each image once, without augmentation."""
    return lambda images: net.forward(prepare(images, None))


def table(found: Evaluation) -> str:
    """The errors as text, the classes with the largest ones first."""
    named = {name: error for name, error in found.error_by_class.items() if error is not None}
    worst = sorted(named, key=lambda name: -named[name])
    shown = worst[:MOST_NUMBERS]
    rows = [("class", "error %"), *((name, f"{100 * named[name]:.2f}") for name in shown)]
    text = [columns(rows, left=1)]
    if len(worst) > len(shown):
        text.append(f"and {len(worst) - len(shown)} classes with smaller errors; --json has all")
    top5 = "" if found.top5_error is None else f", top-5 error {100 * found.top5_error:.2f} %"
    text.append(f"{found.images:,} images: top-1 error {100 * found.top1_error:.2f} %{top5}")
    return "\n".join(text)


def confusion_figure(found: Evaluation, net: str, data: str) -> Figure:
    """The confusion matrix: rows are true classes, columns predicted ones, in percent of a row."""
    K = len(found.classes)
    sizes = np.maximum(found.confusion.sum(axis=1, keepdims=True), 1)
    percent = 100 * found.confusion / sizes
    wrong = percent.copy()
    np.fill_diagonal(wrong, -1)
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    with drawing():
        side = min(11.0, max(6.5, 0.62 * K + 2.2))
        figure = Figure(figsize=(side + 0.8, side), layout="constrained")
        axes = figure.subplots()
        shown = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        axes.set(xlabel="predicted class", ylabel="true class")
        if K <= MOST_LABELS:
            labels = [plain(name[:20]) for name in found.classes]
            axes.set_xticks(range(K), labels, rotation=90)
            axes.set_yticks(range(K), labels)
        if K <= MOST_NUMBERS:
            for (i, j), value in np.ndenumerate(percent):
                colour = "white" if value > 55 else "0.15"
                text: Any = {"ha": "center", "va": "center", "color": colour, "fontsize": SMALL}
                axes.text(j, i, f"{value:.0f}", **text)
        figure.colorbar(shown, ax=axes, shrink=0.7, label="% of the images of the true class")
        share = percent[true, predicted]
        mistake = f"{found.classes[true]} for {found.classes[predicted]}"
        title = f"{net} mistakes {mistake} most often: {share:.0f} % of the time"
        finish(
            figure,
            title if share else f"{net} makes no mistake",
            f"{data}, {found.images:,} test images; error {100 * found.top1_error:.2f} %",
        )
    return figure
