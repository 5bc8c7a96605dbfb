"""A batch in parts: the gradient of a whole batch, with the activations of one part in memory.

Each part has batch norm's statistics of its own. Gradients are added in the order of the parts, so
the sum does not depend on who computes them: with several ranks (`minires.train.ranks`), part k
belongs to rank k mod R, and the result has the same bits for every R.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minires.data.dataset import Array
from minires.errors import InputError
from minires.nets.network import Network
from minires.optim import SGD
from minires.train.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from minires.train.task import Task

Batch = tuple[Array, Array]


class Kept:
    """Takes the place of the optimizer for one part: keeps gradients instead of changing weights.

    Attributes
    ----------
    gradients : dict of str to ndarray
        Those of the part.
    """

    def __init__(self) -> None:
        self.gradients: dict[str, Array] = {}

    def step(self, gradients: Mapping[str, Array], lr: float) -> None:
        """Keep the gradients; `lr` has no effect."""
        self.gradients = dict(gradients)


class Mean:
    """Means over parts that are added one after the other: (a_1 + ... + a_s) / S after s parts.

    Parameters
    ----------
    shards : int
        S.

    Attributes
    ----------
    measured : dict of str to float
        Metrics.
    arrays : dict of str to ndarray
        Gradients and running statistics, by the names that `_compute` gives them.
    """

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.measured: dict[str, float] = {}
        self.arrays: dict[str, Array] = {}

    def add(self, measured: Mapping[str, float], arrays: Mapping[str, Array]) -> None:
        """Add the next part."""
        for name, value in measured.items():
            self.measured[name] = self.measured.get(name, 0.0) + value / self.shards
        for name, array in arrays.items():
            part = array / self.shards
            before = self.arrays.get(name)
            self.arrays[name] = part if before is None else before + part

    def of(self, kind: str) -> dict[str, Array]:
        """The gradients, or the running statistics, by dotted name."""
        prefix = f"{kind}/"
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }


def sharded_step(
    task: Task,
    net: Network,
    optimizer: SGD,
    batch: Batch,
    lr: float,
    shards: int,
    seeds: np.random.SeedSequence,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """
    Take one step on a batch in parts, with the gradient (g_1 + ... + g_S) / S.

    g_s is the gradient of part s alone. Without batch norm and dropout, their mean is the gradient
    of the whole batch, to rounding. Every part starts from the same running statistics; those
    after the step are the means over the parts. With one part, this is `Task.step`.

    Parameters
    ----------
    task : Task
    net, optimizer, lr
        As for `Task.step`. Afterwards, `net.gradients()` are those of the step.
    batch : (x, targets)
        N images; each part has N / S.
    shards : int
        S.
    seeds : SeedSequence
        Seeds of the step; each of several parts draws its own numbers, such as dropout masks.
    ranks : Ranks
        R processes that call this with the same arguments. Rank r computes parts r, r + R, ...

    Returns
    -------
    dict of str to float
        What `Task.step` returns, averaged over the parts.

    Raises
    ------
    InputError
        If S does not divide N, or is less than R.
    FloatingPointError
        If the loss of a part is not finite, on every rank; nothing is changed then.
    """
    x, targets = batch
    if shards < 1 or len(x) % shards:
        raise InputError(f"the number of parts must divide the batch of {len(x)}, got {shards}")
    check_number(shards, ranks.size, len(x))
    if shards == 1:
        return task.step(net.reseed(seeds), optimizer, batch, lr)
    statistics = {name: value.copy() for name, value in _statistics(net).items()}
    mean = Mean(shards)
    parts = np.split(np.arange(len(x)), shards)
    for first in range(0, shards, ranks.size):
        measured: dict[str, float] | None = None
        arrays: dict[str, Array] = {}
        shard = first + ranks.rank
        if shard < shards:
            _load(net, statistics)
            net.reseed(np.random.SeedSequence(seeds.entropy, spawn_key=(*seeds.spawn_key, shard)))
            rows = parts[shard]
            measured, arrays = _compute(task, net, (x[rows], targets[rows]), lr, statistics)
        found = ranks.share(measured, arrays)[: shards - first]
        if any(values is None for values, _ in found):
            _load(net, statistics)
            raise FloatingPointError("the loss is not finite")
        for values, theirs in found:
            mean.add(values, theirs)
    _load(net, statistics | mean.of("statistics"))
    optimizer.step(mean.of("gradients"), lr)
    _assign_gradients(net, mean.of("gradients"))
    return mean.measured


def check_number(shards: int, ranks: int, batch_size: int) -> None:
    """Refuse more ranks than parts: the others would have nothing to compute.

    Raises
    ------
    InputError
        If there are; the message names a number of parts that divides the batch.
    """
    if ranks <= shards:
        return
    enough = [n for n in range(ranks, batch_size + 1) if batch_size % n == 0]
    give = f", or begin a run with --shards {enough[0]}" if enough else ""
    fewer = "one rank" if shards == 1 else f"{shards} ranks or fewer"
    raise InputError(
        f"{ranks} ranks need --shards {ranks} or more, got --shards {shards}, of a batch of "
        f"{batch_size}; start {fewer}{give}"
    )


def _compute(
    task: Task, net: Network, batch: Batch, lr: float, before: Mapping[str, Array]
) -> tuple[dict[str, float] | None, dict[str, Array]]:
    """Metrics and arrays of one part: gradients, and the running statistics that have changed.

    Frozen statistics do not change, and so keep their bits. The metrics are None if the loss is not
    finite.
    """
    kept: Any = Kept()
    try:
        measured = task.step(net, kept, batch, lr)
    except FloatingPointError:
        return None, {}
    arrays = {f"gradients/{name}": g for name, g in kept.gradients.items()}
    for name, value in _statistics(net).items():
        if not np.array_equal(value, before[name]):
            arrays[f"statistics/{name}"] = value.copy()
    return {name: float(value) for name, value in measured.items()}, arrays


def _statistics(net: Network) -> dict[str, Array]:
    """Live arrays of the running statistics, by dotted name."""
    return {
        f"{name}.{key}": value
        for name, layer in net.named_layers()
        for key, value in layer.buffers.items()
    }


def _load(net: Network, statistics: Mapping[str, Array]) -> None:
    for name, value in _statistics(net).items():
        value[...] = statistics[name]


def _assign_gradients(net: Network, gradients: Mapping[str, Array]) -> None:
    """Give the layers the gradients of the whole step, for the records."""
    for name, layer in net.named_layers():
        for key in layer.grads:
            layer.grads[key] = gradients[f"{name}.{key}"]
