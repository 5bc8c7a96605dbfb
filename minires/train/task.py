"""A task connects the training loop and the loss: it defines the learning step and the metrics.

The loop, checkpoints, records and figures use only the interface `Task`; none of them knows a loss.
Classification is the task of the paper. `register` adds others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from minires.data.dataset import Array, Dataset, Prepare, Split
from minires.errors import InputError
from minires.nets.network import Network
from minires.optim import SGD
from minires.runs.metric import ERROR, Metric
from minires.text import shown
from minires.train import step

RESERVED = {"loss", "kind", "iteration", "seconds", "lr", "steps", "waited"}  # keys of the records


class Task(Protocol):
    """The interface of a task.

    Attributes
    ----------
    metrics : tuple of Metric
        What `step` and `evaluate` measure beside "loss". The first one is the main metric, which
        progress bars, tables and figures show.
    warm_below : float or None
        A warm-up ends when the running main metric of training is below this value. None if the
        task has no warm-up.
    """

    metrics: tuple[Metric, ...]
    warm_below: float | None

    def guess(self, data: Dataset) -> float:
        """Value of the main metric for a network that has learned nothing."""

    def step(
        self, net: Network, optimizer: SGD, batch: tuple[Array, Array], lr: float
    ) -> dict[str, float]:
        """Take one step on a batch (x, targets); return its "loss" and metrics before the step.

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
                f"classification needs the names of the classes, {shown(data.name)} has none; "
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
        If a task of that name is registered already, or its metrics are not a tuple of `Metric`
        with names of their own.
    """
    if name in TASKS:
        raise InputError(f"the task {name!r} is registered already; choose another name")
    if not task.metrics:
        raise InputError(f"the task {name!r} must have at least one metric, got none")
    if not all(isinstance(metric, Metric) for metric in task.metrics):
        raise InputError(
            f"the metrics of the task {name!r} must be of minires.runs.metric.Metric, got "
            f"{shown(repr(task.metrics))}"
        )
    names = [metric.name for metric in task.metrics]
    taken = sorted({n for n in names if n in RESERVED or names.count(n) > 1})
    if taken:
        raise InputError(
            f"the metrics of the task {name!r} must have names of their own, got {names}: "
            f"{', '.join(taken)} is taken; choose another name"
        )
    TASKS[name] = task


def measured_by(task: Task, name: str, method: str, values: object) -> dict[str, float]:
    """Check the numbers that a task returned, and convert them to Python floats.

    Parameters
    ----------
    task : Task
    name : str
        Its registered name.
    method : {"step", "evaluate"}
    values : object
        What that method returned.

    Raises
    ------
    InputError
        If it is not a dict, a metric or "loss" is missing, or a value is not a real number.
    """
    expected = ["loss", *(metric.name for metric in task.metrics)]
    begins = f"{method} of the task {name!r} must return a dict with the numbers {expected}"
    if not isinstance(values, Mapping):
        raise InputError(f"{begins}, got {shown(repr(values), 100)}")
    missing = [key for key in expected if key not in values]
    if missing:
        raise InputError(f"{begins}, got {[*map(str, values)]}; {', '.join(missing)} is missing")
    wrong = [key for key in values if not _is_real(values[key]) or key in RESERVED - {"loss"}]
    if wrong:
        given = shown(repr(values[wrong[0]]), 100)
        raise InputError(f"{begins}, got {given} for {shown(wrong[0])!r}; return numbers alone")
    return {str(key): float(value) for key, value in values.items()}


def guess_of(task: Task, name: str, data: Dataset) -> float:
    """The task's guess, as a Python float.

    Raises
    ------
    InputError
        If it is not a real number.
    """
    value = task.guess(data)
    if not _is_real(value):
        raise InputError(
            f"guess of the task {name!r} must return a number, got {shown(repr(value), 100)}"
        )
    return float(value)


def _is_real(value: object) -> bool:
    """Whether this is one real number, of Python or NumPy."""
    if isinstance(value, (bool, np.bool_)):
        return False
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iuf"
    return isinstance(value, (int, float, np.integer, np.floating))


def unregister(name: str) -> None:
    """Remove a task; its name is unknown afterwards."""
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
