"""Speed of one training step shared by several ranks on this machine, and a model for more.

The model: step(R) = compute / R + bytes(R) / bandwidth, where compute is the step of one rank, and
bytes(R) are those that pass rank 0, which sends each part's gradient to every other rank.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minires import plugins
from minires.bench.nets import rate
from minires.data import stream
from minires.errors import InputError
from minires.nets import registry
from minires.optim import SGD
from minires.runs.config import Config
from minires.runs.provenance import provenance
from minires.text import columns
from minires.train.loop import initial_net
from minires.train.parallel import Job, started
from minires.train.ranks import Ranks
from minires.train.shards import sharded_step
from minires.train.task import Classification

PREDICTED = (8, 64)  # machines like this one, joined by pipes as fast as those measured


@dataclass(frozen=True)
class Row:
    """One number of ranks.

    Attributes
    ----------
    ranks : int
    seconds : float
        Of a step: the median of the rounds, or a prediction.
    exchange : float
        Of these, those in which rank 0 exchanged gradients, or waited for the other ranks.
    prediction : bool
    """

    ranks: int
    seconds: float
    exchange: float
    prediction: bool = False


def counts(listed: str, batch_size: int) -> list[int]:
    """Numbers of ranks, from a text such as "1,2,4"; the first must be 1.

    Raises
    ------
    InputError
        If one is no whole number, 1 is missing, or the largest does not divide the batch.
    """
    words = [word.strip() for word in listed.split(",")]
    numbers = sorted({int(word) for word in words if word.isdecimal()})
    wrong = not all(map(str.isdecimal, words)) or numbers[0] != 1
    if wrong or batch_size % numbers[-1]:
        raise InputError(
            f"--ranks: expected 1 and other numbers; the largest must divide the batch of "
            f"{batch_size}; got {listed!r}; write {_possible(batch_size)}"
        )
    return numbers


def _possible(batch_size: int) -> str:
    """Numbers of ranks that can share a batch: its first divisors, as they are typed."""
    divisors = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
    return ",".join(map(str, divisors[:3]))


def bench(
    net: str,
    backend: str,
    ranks: Sequence[int],
    rounds: int,
    batch_size: int,
    report: Callable[[str], None],
) -> list[Row]:
    """Time steps with each number of ranks. All cut the batch into as many parts as ranks at most.

    Parameters
    ----------
    net, backend : str
    ranks : list of int
        See `counts`.
    rounds : int
        Steps that are timed, after one that is not.
    batch_size : int
    report : callable
        Called with a line before each number of ranks.

    Returns
    -------
    rows : list of Row
        Those measured, then the predictions.
    """
    config = Config(
        net, "random", rounds, batch_size=batch_size, shards=max(ranks), backend=backend
    )
    job = Job(config, "", None, tuple(map(str, plugins.LOADED)))
    rows = []
    for number in ranks:
        report(f"ranks: {number}")
        with started(number, job, _work) as team, team.joined():
            rows.append(_row(number, _work(team, job)))
    return rows + predict(rows, _bytes(net), _within(PREDICTED, batch_size))


def _within(numbers: Sequence[int], batch_size: int) -> list[int]:
    """Numbers of machines that can share a batch: at most as many as it has images."""
    return sorted({min(number, batch_size) for number in numbers})


def _work(team: Ranks, job: Job) -> list[tuple[float, float]]:
    """Take steps with some kernel threads each."""
    with team.threads(job.config.backend):
        return _steps(job.config, team)


def _steps(config: Config, team: Ranks) -> list[tuple[float, float]]:
    """Seconds of each step, and of the exchange in it, without the first step."""
    net = initial_net(config)
    optimizer, facts = SGD(net.parameters()), net.facts
    rng = stream(config.seed, "bench", 0)
    x = rng.standard_normal((config.batch_size, *facts.input_shape), np.float32)
    batch = x, rng.integers(0, facts.classes, config.batch_size)
    seeds = np.random.SeedSequence(0)
    found = []
    for _ in range(config.iterations + 1):
        before, start = team.exchanged, time.perf_counter()
        sharded_step(
            Classification(), net, optimizer, batch, 1e-4, config.shards, seeds, ranks=team
        )
        found.append((time.perf_counter() - start, team.exchanged - before))
    return found[1:]


def _row(ranks: int, steps: Sequence[tuple[float, float]]) -> Row:
    seconds, exchange = np.median(np.array(steps), axis=0)
    return Row(ranks, float(seconds), float(exchange))


def _bytes(net: str) -> int:
    """Bytes of one part's gradient and running statistics."""
    return sum(array.nbytes for array in registry.by_name(net, rng=0).state().values())


def passing(ranks: int, size: int) -> int:
    """Bytes that pass rank 0 in a step of as many parts as ranks: (R - 1)(R + 1) times `size`.

    It gets R - 1 gradients, and sends R of them to each of the other R - 1 ranks.
    """
    return (ranks - 1) * (ranks + 1) * size


def predict(rows: Sequence[Row], size: int, numbers: Sequence[int] = PREDICTED) -> list[Row]:
    """Predictions of the model for several machines; none if only one rank was measured."""
    one, most = rows[0], rows[-1]
    if most.ranks == 1 or not most.exchange:
        return []
    bandwidth = passing(most.ranks, size) / most.exchange
    exchanges = {number: passing(number, size) / bandwidth for number in numbers}
    return [
        Row(number, one.seconds / number + exchange, exchange, True)
        for number, exchange in exchanges.items()
    ]


def speeds(rows: Sequence[Row], batch_size: int) -> dict[int, float]:
    """Images per second, by the number of ranks."""
    return {row.ranks: batch_size / row.seconds for row in rows}


def curve(net: str, rows: Sequence[Row], batch_size: int) -> list[Row]:
    """Predictions of the model for 2, 4, 8, ... machines, from the rows that are measured."""
    measured = [row for row in rows if not row.prediction]
    numbers = [2**k for k in range(1, max(PREDICTED).bit_length())]
    return predict(measured, _bytes(net), _within(numbers, batch_size))


def table(net: str, rows: Sequence[Row], batch_size: int) -> str:
    """Images per second, efficiency, and the share of the exchange."""
    lines = [["net", "", "ranks", "images/s", "efficiency", "exchange"]]
    for row in rows:
        kind = "prediction" if row.prediction else "measured"
        efficiency = rows[0].seconds / row.seconds / row.ranks
        speed = rate(batch_size / row.seconds)
        share = row.exchange / row.seconds
        lines.append(
            [net, kind, str(row.ranks), speed, f"{100 * efficiency:.0f} %", f"{100 * share:.0f} %"]
        )
    return columns(lines, left=2)


def record(net: str, rows: Sequence[Row], batch_size: int) -> dict[str, Any]:
    """Everything measured and predicted, with machine and versions, as JSON values."""
    found = [asdict(row) for row in rows]
    return {"provenance": provenance(), "net": net, "batch_size": batch_size, "ranks": found}
