"""Gradients, relative steps and responses layer by layer; responses as in the paper's figure 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.lab.families import family_styles
from minires.lab.figure import Axes, Figure, MaxNLocator, drawing, finish, plain, shades
from minires.lab.recorded import by_net
from minires.lab.relative_steps import STILL, shares
from minires.lab.tables import caption, layers_message
from minires.runs.run import Run


def layers(runs: Sequence[Run]) -> Figure:
    """Gradient norm by layer at each recorded step; below, the standard deviation of responses.

    A response is the output of batch norm, before ReLU or addition. Networks without batch norm
    have none. The figure shows the first seed of each network, without the convolutions of
    shortcuts.

    Raises
    ------
    InputError
        If the runs have no record by layer.
    """
    named = _first_seeds(runs)
    shown = list(named.values())
    steps = sorted({line["iteration"] for run in shown for line in run.layers})
    with_responses = any(run.layers[-1]["response_std"] for run in shown)
    with drawing():
        figure = Figure(figsize=(11, 7.2 if with_responses else 4.2), layout="constrained")
        gradients, responses = _panels(figure, len(steps), with_responses)
        for title, run in named.items():
            style = _line_style(title, run, shown)
            for line in run.layers:
                axes = gradients[steps.index(line["iteration"])]
                _draw(axes, run, line["gradient_norm"], style)
            for axes, largest_first in zip(responses, (False, True), strict=False):
                _draw(axes, run, run.layers[-1]["response_std"], style, largest_first)
        _label_gradients(gradients, steps)
        if responses:
            _label_responses(responses, shown)
        panels = [*gradients, *responses]
        for axes in panels:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panels[-1].legend(framealpha=0.8, ncols=2)
        note = "; responses: after batch norm, before ReLU" if with_responses else ""
        finish(figure, layers_message(shown), f"{caption(shown)}; one seed{note}")
    return figure


def _first_seeds(runs: Sequence[Run]) -> dict[str, Run]:
    """The first seed of each network with a record by layer, by the title of the network."""
    recorded = by_net([run for run in runs if run.layers])
    if not recorded:
        raise InputError(
            "these runs were recorded without gradients and responses by layer; train them again"
        )
    return {title: group[0] for title, group in recorded.items()}


def _seeds(runs: Sequence[Run], title: str) -> list[Run]:
    """Runs of a network with a record by layer."""
    return by_net([run for run in runs if run.layers])[title]


def turning(runs: Sequence[Run]) -> Figure:
    """Relative step of each layer as a share of the last layer's, by recorded step.

    The last layer is the last convolution; those of shortcuts are left out. The first seed of each
    network has a bold line, the others have thin ones. The dotted line marks
    `minires.lab.relative_steps.STILL`.

    Raises
    ------
    InputError
        If the runs have no record by layer.
    """
    named = _first_seeds(runs)
    shown = list(named.values())
    steps = sorted({line["iteration"] for run in shown for line in run.layers})
    with drawing():
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        row = figure.subplots(1, len(steps), sharey=True, squeeze=False)[0]
        for title, run in named.items():
            style = _line_style(title, run, shown)
            thin = {"color": style["color"], "lw": 0.8, "alpha": 0.6}
            for seed in _seeds(runs, title):
                for step, by_layer in shares(seed).items():
                    place = np.linspace(0, 1, len(by_layer))
                    look = style if seed is run else thin
                    row[steps.index(step)].plot(place, by_layer, **look)
        for axes, step in zip(row, steps, strict=True):
            axes.axhline(STILL, color="0.35", lw=1.2, ls=":")
            axes.set(title=f"step {step:,}", xlabel="place: input 0, loss 1", yscale="log")
            axes.grid(axis="y", alpha=0.25)
        row[0].set_ylabel("relative step, last layer = 1")
        row[-1].legend(framealpha=0.8)
        seeds = "thin: other seeds" if len(runs) > len(shown) else "one seed"
        note = f"{seeds}; dotted: {100 * STILL:g} % of the last layer's"
        finish(figure, turning_message(runs), f"{caption(shown)}; {note}")
    return figure


def turning_message(runs: Sequence[Run]) -> str:
    """The message of the figure `turning`, about the deepest plain network among the runs."""
    shown = list(_first_seeds(runs).values())
    run = max(shown, key=lambda run: (run.family == "plain", run.depth))
    seeds = [shares(seed) for seed in _seeds(runs, run.net)]
    counts = {
        step: "/".join(str(int((found[step] < STILL).sum())) for found in seeds)
        for step in seeds[0]
    }
    (first, begins), *later = counts.items()
    words = ", ".join(f"{count} at step {step:,}" for step, count in later)
    start = f"{begins} of {len(seeds[0][first])} at step {first:,}"
    share = f"{100 * STILL:g} % of the last one's step"
    by_seed = ", by seed" if len(seeds) > 1 else ""
    return f"Layers of {run.net} below {share}{by_seed}: {', '.join(filter(None, [start, words]))}"


def _panels(figure: Figure, steps: int, with_responses: bool) -> tuple[list[Axes], list[Axes]]:
    """Axes for the gradients of each step, and below them two for the responses."""
    grid = figure.add_gridspec(2 if with_responses else 1, 2 * steps)
    gradients: list[Axes] = []
    for i in range(steps):
        above = grid[0, 2 * i : 2 * i + 2]
        gradients.append(figure.add_subplot(above, sharey=gradients[0] if i else None))
    if not with_responses:
        return gradients, []
    by_layer = figure.add_subplot(grid[1, :steps])
    by_size = figure.add_subplot(grid[1, steps:], sharey=by_layer)
    return gradients, [by_layer, by_size]


def _line_style(title: str, run: Run, shown: Sequence[Run]) -> dict[str, Any]:
    """Keywords of `Axes.plot`: darker and wider with depth."""
    style = family_styles(shown)[run.family]
    family = [other for other in shown if other.family == run.family]
    place = family.index(run)
    return {
        "label": plain(title),
        "color": shades(style, len(family))[place],
        "lw": 1 + 0.6 * place,
        "marker": style.marker,
        "ms": 3,
    }


def _draw(
    axes: Axes, run: Run, values: Mapping[str, float], style: Any, largest_first: bool = False
) -> None:
    y = [value for name, value in values.items() if ".shortcut" not in name]
    axes.plot(range(1, len(y) + 1), sorted(y, reverse=True) if largest_first else y, **style)


def _label_gradients(panels: Sequence[Axes], steps: Sequence[int]) -> None:
    for axes, step in zip(panels, steps, strict=True):
        title = f"gradients at step {step:,}"
        axes.set(title=title, xlabel="layer, from the input", yscale="log")
        axes.grid(axis="y", alpha=0.25)
    panels[0].set_ylabel("gradient norm")


def _label_responses(panels: Sequence[Axes], shown: Sequence[Run]) -> None:
    by_layer, by_size = panels
    by_layer.set(title="last recorded responses by layer", xlabel="layer, from the input")
    by_size.set(title="the same responses, sorted by size", xlabel="layer, largest response first")
    by_layer.set_ylabel("standard deviation")
    ends = [std for run in shown for std in run.layers[-1]["response_std"].values()]
    for axes in panels:
        axes.grid(axis="y", alpha=0.25)
        if max(ends) > 10 * min(ends):
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1.05 * max(ends))
