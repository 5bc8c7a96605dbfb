"""Figures of the race and of the ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minires.lab.figure import LEGEND_BELOW, SMALL, Axes, Figure, MaxNLocator, drawing, finish
from minires.lab.race import results
from minires.lab.race.arms import ABLATIONS, ARMS, BASELINE
from minires.lab.race.results import Lane, Ratio
from minires.runs.run import Run
from minires.text import plural, sentence_case

# ReLU and tanh by colour, batch norm by the fill
LOOKS = {
    "relu": ("#1b7837", "full"),
    "tanh": ("#7b3294", "full"),
    "relu-bn": ("#1b7837", "none"),
    "tanh-bn": ("#7b3294", "none"),
}
IMAGES = {"train": ("#8c6d31", "s"), "test": ("#2166ac", "o")}


def race(lanes: Sequence[Lane]) -> Figure:
    """Iterations to the target: by learning rate, and seed by seed at the best rate of each arm.

    Parameters
    ----------
    lanes : list of Lane
        At least one, see `results.read`.
    """
    with drawing():
        figure = Figure(figsize=(10.4, 5.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        for lane in lanes:
            _draw_rates(left, lane)
        left.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="iterations")
        rates = sorted({rate for lane in lanes for rate in lane.rates})
        left.set_xticks(rates, [f"{rate:g}" for rate in rates], rotation=45)
        left.minorticks_off()
        _mark_iterations(left, lanes)
        left.set_title("by learning rate, seed 0; ring: the best")
        left.legend(**{**LEGEND_BELOW, "bbox_to_anchor": (0.5, -0.26)}, ncols=2)
        for place, lane in enumerate(lanes):
            _draw_seeds(right, place, lane, results.ratio(lanes, lane.arm))
        titles = [lane.title.replace(", ", ",\n") for lane in lanes]
        right.set_xticks(range(len(lanes)), titles)
        right.set(ylabel="iterations", ylim=(0, 1.25 * right.get_ylim()[1]))
        right.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        right.set_title("at the best rate; dots: seeds")
        finish(figure, results.message(lanes), _race_caption(lanes))
    return figure


def _height(run: Run) -> float:
    """Where a run is drawn: at its iterations, or at the last one if it missed the target."""
    return float(run.reached or run.config["iterations"])


def _draw_rates(axes: Axes, lane: Lane) -> None:
    """Line over the rates of an arm; triangles for runs that missed the target."""
    colour, fill = LOOKS[lane.arm]
    style = "-" if fill == "full" else "--"
    heights = [_height(run) for run in lane.rates.values()]
    axes.plot(list(lane.rates), heights, style, color=colour, lw=1.6, label=lane.title)
    for rate, run in lane.rates.items():
        marker = "o" if run.reached is not None else "^"
        axes.plot(rate, _height(run), marker, color=colour, fillstyle=fill, ms=6)
    ring: Any = {"fillstyle": "none", "ms": 13, "mew": 1.6, "color": colour}
    axes.plot(lane.best, _height(lane.rates[lane.best]), "o", **ring)


def _mark_iterations(axes: Axes, lanes: Sequence[Lane]) -> None:
    """Ticks at round numbers of iterations, and at the last one, above which nothing was seen."""
    last = max(run.config["iterations"] for lane in lanes for run in lane.rates.values())
    least = min(_height(run) for lane in lanes for run in lane.rates.values())
    round_ones = [n * 10**k for k in range(1, 6) for n in (1, 2, 5)]
    ticks = [tick for tick in round_ones if 0.6 * least <= tick < 0.8 * last]
    axes.set_yticks([*ticks, last], [*(f"{tick:,}" for tick in ticks), f"> {last:,}"])
    axes.set_ylim(0.6 * least, 1.3 * last)
    axes.axhline(last, color="0.6", lw=0.8, ls=":")


def _draw_seeds(axes: Axes, place: int, lane: Lane, found: Ratio | None) -> None:
    """A bar at the mean of the seeds, a dot for each, and the ratio to the rival above."""
    colour, fill = LOOKS[lane.arm]
    heights = [_height(run) for run in lane.seeds.values()]
    hatch = "" if fill == "full" else "//"
    axes.bar(place, np.mean(heights), 0.62, color=colour, alpha=0.3, hatch=hatch, ec=colour)
    spread = np.linspace(-0.16, 0.16, len(heights)) if len(heights) > 1 else [0.0]
    for shift, run in zip(spread, lane.seeds.values(), strict=True):
        marker = "o" if run.reached is not None else "^"
        axes.plot(place + shift, _height(run), marker, color=colour, ms=5)
    if found:
        words = str(found).replace(" (", "\n(")
        axes.annotate(words, (place, max(heights)), (0, 8), textcoords="offset points", ha="center")


def _race_caption(lanes: Sequence[Lane]) -> str:
    """Data, recipe, and how the figure is to be read."""
    run = next(iter(lanes[0].rates.values()))
    config = run.config
    return (
        f"{run.data['name']}, batch {config['batch_size']}, no augmentation, no weight decay; "
        f"iterations until the error on {config['eval_images']:,} training images, measured every "
        f"{config['eval_every']}, is {100 * config['until']:g} %; triangles: not reached, or "
        "diverged; times: mean over the seeds of tanh divided by ReLU (smallest to largest)"
    )


def ablations(groups: Mapping[str, Sequence[Run]]) -> Figure:
    """Training and test error of each ablation, in points from the baseline with the same seed."""
    names = [name for name in groups if results.change(groups, name, "test")]
    names = [name for name in names if name != BASELINE]
    with drawing():
        figure = Figure(figsize=(8.6, 1.9 + 0.75 * max(1, len(names))), layout="constrained")
        axes = figure.subplots()
        for place, name in enumerate(names):
            for shift, (which, (colour, marker)) in zip((-0.15, 0.15), IMAGES.items(), strict=True):
                found = results.change(groups, name, which)
                if found is None:
                    continue
                label = f"{which} error" if not place else None
                heights = np.full(len(found.values), place + shift)
                axes.plot(found.values, heights, marker, color=colour, ms=6, label=label)
                ends = [found.values.min(), found.values.max()]
                axes.plot(ends, heights[[0, 0]], color=colour, lw=1.5)
        axes.axvline(0, color="0.4", lw=1)
        axes.set_yticks(range(len(names)), [sentence_case(ABLATIONS[n].title) for n in names])
        axes.set(xlabel="percentage points from the baseline, seed by seed", ylim=(-0.5, None))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.25)
        if names:
            axes.legend(loc="best", fontsize=SMALL)
        finish(figure, sentence_case(results.ablation_message(groups)), _ablation_caption(groups))
    return figure


def _ablation_caption(groups: Mapping[str, Sequence[Run]]) -> str:
    """Data and recipe of the ablations."""
    run = next(iter(groups.values()))[0]
    config = run.config
    seeds = max(map(len, groups.values()))
    return (
        f"{ARMS['relu'].net} on {run.data['name']}, {config['iterations']:,} iterations, batch "
        f"{config['batch_size']}, lr {config['lr']:g}, no crops, no weight decay; errors on "
        f"{config['eval_images']:,} images; {seeds} {plural('seed')}"
    )
