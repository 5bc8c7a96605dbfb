"""Progress bars with the time left."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from minires.runs.metric import ERROR, Metric


@dataclass
class Progress:
    """Where a run stands after `iteration` of `iterations`.

    `error` is the running main metric of training, in the unit that it is recorded in.
    """

    iteration: int
    iterations: int
    loss: float
    error: float
    lr: float
    metric: Metric = ERROR

    @property
    def shown(self) -> str:
        """The metric as it is shown, such as "43 %"."""
        value = self.metric.scale * self.error
        number = f"{value:.0f}" if self.metric.fraction else f"{value:.3g}"
        return f"{number} {self.metric.unit}".strip()


Report = Callable[[Progress], None]
Shown = dict[str, Progress]


def bar(total: float, quiet: bool = False) -> Any:
    """Progress bar with an ETA over work of different cost."""
    shape = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    pause = 0.5 if watched else 15  # seconds; a log gets a line now and then
    return tqdm(
        total=total,
        bar_format=shape,
        disable=quiet,
        mininterval=pause,
        smoothing=0.05,
        dynamic_ncols=True,
    )


def follower(
    progress: Any,
    title: str,
    cost: float,
    report: Report = lambda _: None,
    shown: Shown | None = None,
) -> Report:
    """Return a callback that moves `progress` by `cost` per iteration, and calls `report`.

    Runs that are followed side by side have one `shown`: where each of them stands.
    """
    seen = 0
    shown = {} if shown is None else shown

    def follow(p: Progress) -> None:
        nonlocal seen
        if p.iteration > seen + 1 and not progress.disable:
            _skip(progress, cost * (p.iteration - 1 - seen))
        seen = p.iteration
        shown[title] = p
        where = ", ".join(f"{name} {q.iteration}/{q.iterations}" for name, q in shown.items())
        values = ", ".join(q.shown for q in shown.values())
        name = p.metric.name
        rest = f"{name}s {values}"
        if len(shown) == 1:
            rest = f"loss {p.loss:.2f}, {name} {values}, lr {p.lr:g}"
        progress.set_description_str(where, refresh=False)
        progress.set_postfix_str(rest, refresh=False)
        progress.update(cost)
        if p.iteration == p.iterations:
            del shown[title]
        report(p)

    return follow


def _skip(progress: Any, work: float) -> None:
    """Move a bar over work that was done before: it must not count as speed."""
    for position in ("initial", "n", "last_print_n"):
        setattr(progress, position, getattr(progress, position) + work)
