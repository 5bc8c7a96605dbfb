"""A batch in parts: the gradient of a whole batch, with the activations of one part in memory.

Each part has batch norm's statistics of its own. Gradients are added in the order of the parts, so
the sum does not depend on who computes them: data-parallel training can give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minires.data.dataset import Array
from minires.errors import InputError
from minires.nets.network import Network
from minires.optim import SGD

if TYPE_CHECKING:
    from minires.train.task import Task


class Mean:
    """Takes the place of the optimizer for one part: adds gradients instead of changing weights.

    Parameters
    ----------
    shards : int
        S; each gradient is divided by it.

    Attributes
    ----------
    gradients : dict of str to ndarray
        (g_1 + ... + g_s) / S after s parts.
    """

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.gradients: dict[str, Array] = {}

    def step(self, gradients: Mapping[str, Array], lr: float) -> None:
        """Add the gradients of the next part; `lr` has no effect."""
        for name, gradient in gradients.items():
            part = gradient / self.shards
            before = self.gradients.get(name)
            self.gradients[name] = part if before is None else before + part


def sharded_step(
    task: Task,
    net: Network,
    optimizer: SGD,
    batch: tuple[Array, Array],
    lr: float,
    shards: int,
    seeds: np.random.SeedSequence,
) -> dict[str, float]:
    """
    Take one step on a batch in parts, with the gradient (g_1 + ... + g_S) / S.

    g_s is the gradient of part s alone. Without batch norm and dropout, their mean is the gradient
    of the whole batch, to rounding.

    Parameters
    ----------
    task : Task
    net, optimizer, lr
        As for `Task.step`.
    batch : (x, targets)
        N images; each part has N / S.
    shards : int
        S.
    seeds : SeedSequence
        Seeds of the step; each part draws its own numbers from them, such as dropout masks.

    Returns
    -------
    dict of str to float
        What `Task.step` returns, averaged over the parts.

    Raises
    ------
    InputError
        If S does not divide N.
    FloatingPointError
        If the loss is not finite; no weight is changed then.
    """
    x, targets = batch
    if shards < 1 or len(x) % shards:
        raise InputError(f"the number of parts must divide the batch of {len(x)}, got {shards}")
    mean: Any = Mean(shards)
    measured: dict[str, float] = {}
    for shard, rows in enumerate(np.split(np.arange(len(x)), shards)):
        net.reseed(np.random.SeedSequence(seeds.entropy, spawn_key=(*seeds.spawn_key, shard)))
        values = task.step(net, mean, (x[rows], targets[rows]), lr)
        for name, value in values.items():
            measured[name] = measured.get(name, 0.0) + value / shards
    optimizer.step(mean.gradients, lr)
    return measured
