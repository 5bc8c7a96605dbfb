"""A task stands between the training loop and the loss: what is learned, and what is measured.

The loop, checkpoints, records and figures know a task by what `Task` says of it, and know no loss.
Classification is the task of the paper; `register` adds others.
"""

from __future__ import annotations

from typing import Protocol

from minires.data.dataset import Array, Dataset, Prepare, Split
from minires.errors import InputError
from minires.nets.network import Network
from minires.optim import SGD
from minires.runs.metric import ERROR, Metric
from minires.train import step


class Task(Protocol):
    """What a task must have.

    Attributes
    ----------
    metrics : tuple of Metric
        What `step` and `evaluate` measure beside "loss". The first one is the main metric: what
        progress bars, tables and figures show.
    warm_below : float or None
        A warm-up ends when the running main metric of training is below this; None if the task
        has no warm-up.
    """

    metrics: tuple[Metric, ...]
    warm_below: float | None

    def guess(self, data: Dataset) -> float:
        """Value of the main metric for a network that has learned nothing."""

    def step(
        self, net: Network, optimizer: SGD, batch: tuple[Array, Array], lr: float
    ) -> dict[str, float]:
        """Take one step on a batch (x, targets); return "loss" and every metric before it.

        Raises
        ------
        FloatingPointError
            If the loss is not finite.
        """

    def evaluate(
        self, net: Network, split: Split, prepare: Prepare, batch_size: int
    ) -> dict[str, float]:
        """Return "loss" and every metric of the network in evaluation mode."""


class Classification:
    """Cross-entropy over classes, measured by the error: the fraction of wrong answers."""

    metrics: tuple[Metric, ...] = (ERROR,)
    warm_below: float | None = 0.8  # section 4.2: warm up until the training error is below 80 %

    def guess(self, data: Dataset) -> float:
        """Error of a network that guesses.

        Raises
        ------
        InputError
            If the data name no classes.
        """
        if not data.classes:
            raise InputError(
                f"classification needs the names of the classes, {data.name} has none; "
                "give Dataset(..., classes=...), or choose another --task"
            )
        return 1 - 1 / len(data.classes)

    def step(
        self, net: Network, optimizer: SGD, batch: tuple[Array, Array], lr: float
    ) -> dict[str, float]:
        """Take one step, see `minires.train.step.train_step`."""
        loss, error = step.train_step(net, optimizer, *batch, lr)
        return {"loss": loss, "error": error}

    def evaluate(
        self, net: Network, split: Split, prepare: Prepare, batch_size: int
    ) -> dict[str, float]:
        """Evaluate, see `minires.train.step.evaluate`."""
        loss, error = step.evaluate(net, split, prepare, batch_size)
        return {"loss": loss, "error": error}


TASKS: dict[str, Task] = {}


def register(name: str, task: Task) -> None:
    """Add a task.

    Raises
    ------
    InputError
        If a task of that name is registered already, or it has no metric.
    """
    if name in TASKS:
        raise InputError(f"the task {name!r} is registered already; choose another name")
    if not task.metrics:
        raise InputError(f"the task {name!r} must have at least one metric, got none")
    TASKS[name] = task


def unregister(name: str) -> None:
    """Take a task out again: its name is unknown from here on."""
    TASKS.pop(name, None)


def get_task(name: str) -> Task:
    """Return the task of that name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in TASKS:
        raise InputError(f"unknown task {name!r}: expected one of {', '.join(TASKS)}")
    return TASKS[name]


register("classification", Classification())
