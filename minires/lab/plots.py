"""Recorded runs as figures: the metric by iteration, by depth, and records by layer.

Nothing here builds a network, so any recorded run can be drawn anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.lab import wording
from minires.lab.families import family_styles, panels
from minires.lab.figure import (
    LEGEND_BELOW,
    SMALL,
    Axes,
    Figure,
    MaxNLocator,
    check_format,
    drawing,
    finish,
    plain,
    render,
    save,
    shades,
)
from minires.lab.headline import headline
from minires.lab.layer_plot import layers
from minires.lab.recorded import by_net, final, metric_of
from minires.lab.tables import caption, common, evaluation_note
from minires.runs.metric import Metric
from minires.runs.run import Run
from minires.text import plural

__all__ = [
    "FIGURES",
    "check_format",
    "depth",
    "drawable",
    "errors",
    "layers",
    "render",
    "save",
    "sheet",
]
LINES = (("train", "--", "o"), ("test", "-", "s"))  # images, line style, marker


def errors(runs: Sequence[Run]) -> Figure:
    """The metric against iterations, a panel for each family, as in the paper's figure 6.

    Thin lines show training batches, dashed lines training images in evaluation mode, solid lines
    test images. With several seeds, lines show the mean, and bands reach from the smallest to the
    largest. Dotted vertical lines mark where the learning rate drops, or will drop.

    Raises
    ------
    InputError
        If the runs measure different metrics.
    """
    metric = metric_of(runs)
    shown = panels(runs)
    one_recipe = all(title == group[0].net for title, group in by_net(runs).items())
    # long names of several recipes need a taller legend, in one column
    more = 0.0 if one_recipe else 0.4 * len(by_net(runs)) / len(shown)
    counts = {_seeds(group) for group in by_net(runs).values()}
    seeds = counts.pop() if len(counts) == 1 else ""  # the caption says it for all
    with drawing():
        figure = Figure(figsize=(1.2 + 4.9 * len(shown), 5.6 + more), layout="constrained")
        row = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for (style, members), axes in zip(shown.items(), row, strict=True):
            groups = by_net(members)
            colours = shades(style, len(groups))
            for i, (net, group) in enumerate(groups.items()):
                note = "" if seeds else _seeds(group)
                _draw_net(axes, net, group, colours[i], min(1.2 + 0.9 * i, 3), note)
            axes.set_title(plain(style.title))
            axes.set_xlabel("iteration")
            axes.set_xlim(0, max(run.config["iterations"] for run in runs))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if metric.fraction:
                axes.set_ylim(bottom=0, top=metric.scale)
            axes.grid(axis="y", alpha=0.25)
            _mark_drops(axes, members)
            ncols = min(2, len(groups)) if one_recipe else 1
            axes.legend(**LEGEND_BELOW, ncols=ncols, handlelength=2.5, columnspacing=1)
        row[0].set_ylabel(plain(wording.axis_label(metric)))
        below = f"{caption(runs)}{seeds}; {evaluation_note(runs)}; thin lines: training batches"
        finish(figure, headline(runs), below)
    return figure


def _mark_drops(axes: Axes, runs: Sequence[Run]) -> None:
    """Dotted lines where the learning rate of any of these runs drops."""
    for milestone in sorted({m for run in runs for m in _drops(run)}):
        axes.axvline(milestone, color="0.5", lw=0.8, ls=":")
        low = axes.get_xaxis_transform()  # x in iterations, y from 0 to 1 in the panel
        axes.text(milestone, 0.01, " lr/10", color="0.35", fontsize=SMALL, transform=low)


def _drops(run: Run) -> list[int]:
    """Milestones at which the rate drops or will drop; during a warm-up, it does not."""
    rates = {line["iteration"]: line["lr"] for line in run.train}

    def drops(milestone: int) -> bool:
        before = [lr for i, lr in rates.items() if i <= milestone]
        after = [lr for i, lr in rates.items() if i > milestone]
        return not before or not after or after[0] < before[-1]

    return [milestone for milestone in run.config["milestones"] if drops(milestone)]


def _draw_net(
    axes: Axes, net: str, group: Sequence[Run], colour: Any, width: float, note: str
) -> None:
    """Draw the running mean over training batches, and the evaluations; `note` ends their label."""
    metric = group[0].metric
    iterations, values = common(group, "train", metric.name)
    steps = max(1, values.shape[1] // 25)
    averages = np.apply_along_axis(_running_mean, 1, values, steps)
    # seeds without an evaluation do not hide those of the others
    evaluated = [run for run in group if run.evals]
    label = None if evaluated else plain(net)
    thin = {"color": colour, "lw": 0.7 * width, "alpha": 0.55, "label": label}
    axes.plot(iterations, averages.mean(axis=0), **thin)
    if len(group) > 1:
        _draw_band(axes, iterations, averages, colour)
    for which, line, marker in LINES if evaluated else ():
        iterations, values = common(evaluated, "evals", f"{which}_{metric.name}")
        if not len(iterations):  # damaged lines left no evaluation that all seeds have
            continue
        mean = values.mean(axis=0)
        style = {"marker": marker, "ms": 4, "color": colour, "lw": width, "clip_on": False}
        label = f"{net} {which} {wording.amounts(metric, mean[-1:])}{note}"
        axes.plot(iterations, mean, line, label=plain(label), **style)
        if len(evaluated) > 1:
            _draw_band(axes, iterations, values, colour)


def _seeds(group: Sequence[Run]) -> str:
    """Words such as ", 3 seeds" if the means are over several, else ""."""
    evaluated = sum(bool(run.evals) for run in group)
    return f", {evaluated} seeds" if evaluated > 1 else ""


def _draw_band(axes: Axes, x: np.ndarray, values: np.ndarray, colour: Any) -> None:
    """Fill from the smallest to the largest of several seeds."""
    axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, lw=0)


def _running_mean(values: np.ndarray, steps: int) -> np.ndarray:
    """Mean over the last `steps` values, fewer at the beginning."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - steps, 0)
    return (sums[end] - sums[start]) / (end - start)


def depth(runs: Sequence[Run]) -> Figure:
    """The last evaluation against depth; bars reach from the smallest to the largest seed.

    Raises
    ------
    InputError
        If no run has been evaluated yet, or the runs measure different metrics.
    """
    shown = drawable("depth", runs)
    metric = metric_of(runs)
    if not shown:
        raise InputError(
            f"none of these runs has measured its {plural(metric.name)} yet; train longer, "
            "or draw --kind errors"
        )
    with drawing():
        figure = Figure(figsize=(7.0, 4.6 + 0.2 * len(by_net(shown))), layout="constrained")
        axes = figure.subplots()
        kinds = _by_kind(shown)
        for kind, groups in kinds.items():
            _draw_kind(axes, kind, groups, metric, _kind_style(kind, kinds, shown))
        axes.set_xticks(sorted({run.depth for run in shown}))
        axes.margins(x=0.12)
        if metric.fraction:
            axes.set_ylim(0, max(metric.scale / 100, 1.08 * axes.dataLim.y1))
        ended = all(run.done for run in shown)
        when = "at the end" if ended else "measured last"
        axes.set(xlabel="depth (weighted layers)", ylabel=plain(wording.axis_label(metric, when)))
        axes.grid(axis="y", alpha=0.25)
        axes.legend(**LEGEND_BELOW, handlelength=4)
        finish(figure, headline(runs), f"{caption(runs)}; {evaluation_note(runs)}")
    return figure


Kinds = dict[str, list[list[Run]]]


def _by_kind(runs: Sequence[Run]) -> Kinds:
    """Groups by the line that shows them: a kind of network and a recipe, at all depths."""
    kinds: Kinds = {}
    for title, group in by_net(runs).items():
        kinds.setdefault(group[0].kind + title.removeprefix(group[0].net), []).append(group)
    return kinds


def _kind_style(kind: str, kinds: Kinds, shown: Sequence[Run]) -> dict[str, Any]:
    """Style of a line; later kinds of the same family are darker."""
    family = kinds[kind][0][0].family
    alike = [other for other, groups in kinds.items() if groups[0][0].family == family]
    style = family_styles(shown)[family]
    fill = {"fillstyle": style.fill, "markerfacecoloralt": "white"}
    if style.fill == "none":
        fill = {"mfc": "white"}  # opaque: the line does not cross the marker
    return {"color": shades(style, len(alike))[alike.index(kind)], "capsize": 3, **fill}


def _draw_kind(
    axes: Axes, kind: str, groups: Sequence[Sequence[Run]], metric: Metric, style: Any
) -> None:
    depths = [group[0].depth for group in groups]
    for which, line, marker in LINES:
        ends = [final(group, which) for group in groups]
        mean = np.array([e.mean() for e in ends])
        low = np.array([e.min() for e in ends])
        high = np.array([e.max() for e in ends])
        reach = np.abs([low - mean, high - mean])
        label = f"{kind} {which}: {wording.amounts(metric, mean)}"
        axes.errorbar(depths, mean, reach, fmt=line + marker, label=plain(label), **style)


FIGURES = {"errors": errors, "depth": depth, "layers": layers}


def drawable(kind: str, runs: Sequence[Run]) -> list[Run]:
    """Runs that have data for the figure of this kind, a key of `FIGURES`."""
    needed = {"errors": "train", "depth": "evals", "layers": "layers"}[kind]
    return [run for run in runs if getattr(run, needed)]


def sheet(page: np.ndarray, classes: Sequence[str]) -> Figure:
    """Contact sheet with the name of each class above its column.

    Parameters
    ----------
    page : ndarray of shape (H, W, 3), uint8
    classes : list of str
    """
    with drawing():
        H, W, _ = page.shape
        figure = Figure(figsize=(W / 40, H / 40 + 0.3), layout="constrained")
        axes = figure.subplots()
        axes.imshow(page, interpolation="nearest")
        axes.set_xticks((np.arange(len(classes)) + 0.5) * W / len(classes), classes)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, labelsize=SMALL)
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_visible(False)
    return figure
