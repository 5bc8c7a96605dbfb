"""Progress bars with the time left."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm


@dataclass
class Progress:
    """Where a run stands after `iteration` of `iterations`; errors are fractions."""

    iteration: int
    iterations: int
    loss: float
    error: float
    lr: float


Report = Callable[[Progress], None]
Shown = dict[str, Progress]


def bar(total: float, quiet: bool = False) -> Any:
    """Progress bar with an ETA over work of different cost."""
    shape = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
    pause = (
        0.5 if sys.stderr.isatty() or "ipykernel" in sys.modules else 15
    )  # seconds; a log gets a line now and then
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
    """Return the callback that moves `progress` on by `cost` at every iteration of `title`, and calls `report`.

    Runs that are followed side by side have one `shown`: where each of them stands.
    """
    seen, shown = 0, {} if shown is None else shown

    def follow(p: Progress) -> None:
        nonlocal seen
        if (
            p.iteration > seen + 1 and not progress.disable
        ):  # resumed: done before, which must not count as speed
            for position in ("initial", "n", "last_print_n"):
                setattr(
                    progress,
                    position,
                    getattr(progress, position) + cost * (p.iteration - 1 - seen),
                )
        seen = p.iteration
        shown[title] = p
        where = ", ".join(f"{name} {q.iteration}/{q.iterations}" for name, q in shown.items())
        errors = ", ".join(f"{100 * q.error:.0f} %" for q in shown.values())
        rest = (
            f"loss {p.loss:.2f}, error {errors}, lr {p.lr:g}"
            if len(shown) == 1
            else f"errors {errors}"
        )
        progress.set_description_str(where, refresh=False)
        progress.set_postfix_str(rest, refresh=False)
        progress.update(cost)
        if p.iteration == p.iterations:
            del shown[title]
        report(p)

    return follow
