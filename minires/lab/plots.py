"""Run folders in, figures out: nothing here knows a network, so any recorded run can be drawn anywhere."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minires.errors import InputError
from minires.lab.recorded import by_net, final
from minires.lab.tables import (
    BY_ITERATION,
    FAMILIES,
    _caption,
    _common,
    _how,
    layers_message,
    message,
)
from minires.runs.files import write_whole
from minires.runs.run import Run

WAYS = (("train", "--", "o"), ("test", "-", "s"))
FORMATS: dict[str, Any] = {".png": None, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "minires",
}


def check_format(path: Path) -> None:
    """Refuse an ending that is no format of figures, before any work."""
    if path.suffix not in FORMATS:
        raise InputError(f"a figure's file must end in {', '.join(FORMATS)}, got {path}")


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the ending of `path` chooses the format: .png, .svg, .pdf. The same figure gives the same bytes.

    Raises
    ------
    InputError
        If the ending is another one, or the file cannot be written.
    """
    check_format(path)
    write_whole(path, render(figure, path.suffix))


def render(figure: Figure, ending: str) -> bytes:
    """Bytes of a figure in the format of ".png", ".svg" or ".pdf"."""
    with mpl.rc_context(STYLE), io.BytesIO() as content:
        figure.savefig(content, format=ending[1:], dpi=150, metadata=FORMATS[ending])
        return content.getvalue()


def errors(runs: Sequence[Run]) -> Figure:
    """Error against iterations, plain nets on the left, residual on the right, in the style of the paper's figure 6.

    Thin: the running error of training batches; dashed and marked: training error in evaluation mode on fixed images;
    solid and marked: test error. With several seeds, the mean, and a band from the smallest to the largest. Dotted:
    where the learning rate drops, or is to drop.
    """
    families = [f for f in FAMILIES if any(run.family == f for run in runs)]
    with mpl.rc_context(STYLE):
        one_recipe = all(title == group[0].net for title, group in by_net(runs).items())
        more = (
            0.0 if one_recipe else 0.4 * len(by_net(runs)) / len(families)
        )  # for a legend of long names
        figure = Figure(figsize=(1.2 + 4.9 * len(families), 5.6 + more), layout="constrained")
        panels = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
        for family, axes in zip(families, panels, strict=True):
            groups = by_net([run for run in runs if run.family == family])
            for i, (net, group) in enumerate(groups.items()):
                _draw_net(
                    axes, net, group, _shades(family, len(groups))[i], width=min(1.2 + 0.9 * i, 3)
                )
            axes.set_title({"plain": "plain nets", "resnet": "residual nets"}[family])
            axes.set_xlabel("iteration")
            axes.set_xlim(0, max(run.config["iterations"] for run in runs))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.set_ylim(bottom=0, top=100)
            axes.grid(axis="y", alpha=0.25)
            for milestone in sorted(
                {m for run in runs if run.family == family for m in _drops(run)}
            ):
                axes.axvline(milestone, color="0.5", lw=0.8, ls=":")
                axes.text(milestone, 1, " lr/10", color="0.35", fontsize=8)
            below = {
                "loc": "upper center",
                "bbox_to_anchor": (0.5, -0.14),
            }  # no corner is free in every experiment
            size = (
                {"fontsize": 9, "ncols": min(2, len(groups))}
                if one_recipe
                else {"fontsize": 8, "ncols": 1}
            )
            axes.legend(**below, **size, frameon=False, handlelength=2.8, columnspacing=1)
        panels[0].set_ylabel("error (%)")
        _finish(figure, message(runs), f"{_caption(runs)}; {_how(runs)}; thin: training batches")
    return figure


def depth(runs: Sequence[Run]) -> Figure:
    """Error at the end, or the last one yet, against depth; bars from the smallest to the largest seed.

    Raises
    ------
    InputError
        If no run has measured its errors yet.
    """
    shown = drawable("depth", runs)
    if not shown:
        raise InputError(
            "none of these runs has measured its errors yet; train on, or draw --kind errors"
        )
    with mpl.rc_context(STYLE):
        lines = len(by_net(shown))
        figure = Figure(figsize=(7.0, 4.6 + 0.2 * lines), layout="constrained")
        axes = figure.subplots()
        kinds: dict[str, list[list[Run]]] = {}
        for title, group in by_net(shown).items():
            kinds.setdefault(group[0].kind + title.removeprefix(group[0].net), []).append(group)
        for kind, groups in kinds.items():
            alike = [
                other for other, found in kinds.items() if found[0][0].family == groups[0][0].family
            ]
            style = {
                "color": _shades(groups[0][0].family, len(alike))[alike.index(kind)],
                "capsize": 3,
            }
            style |= {"mfc": "white"} if groups[0][0].kind == "plain" else {}  # told apart in grey
            for which, line, marker in WAYS:
                ends = [final(group, which) for group in groups]
                mean = np.array([e.mean() for e in ends])
                reach = np.abs([[e.min() for e in ends] - mean, [e.max() for e in ends] - mean])
                depths = [group[0].depth for group in groups]
                label = f"{kind} {which}: {', '.join(f'{y:.1f}' for y in mean)} %"
                axes.errorbar(depths, mean, reach, fmt=line + marker, label=label, **style)
        axes.set_xticks(sorted({run.depth for run in shown}))
        axes.margins(x=0.12)
        axes.set_ylim(0, max(1, 1.08 * axes.dataLim.y1))
        ended = all(run.done for run in shown)
        axes.set(
            xlabel="depth (weighted layers)",
            ylabel=f"error {'at the end' if ended else 'measured last'} (%)",
        )
        axes.grid(axis="y", alpha=0.25)
        axes.legend(
            fontsize=9,
            frameon=False,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.14),
            handlelength=4,
        )
        title = "Error by depth" if message(runs) == BY_ITERATION else message(runs)
        _finish(figure, title, f"{_caption(runs)}; {_how(runs)}")
    return figure


def layers(runs: Sequence[Run]) -> Figure:
    """Gradient norm by layer at each recorded step; below, the responses' standard deviation (the paper's figure 7).

    A response is what batch norm puts out, before ReLU or addition. One seed, the first, of each net; shortcuts that
    have a convolution of their own are left out.

    Raises
    ------
    InputError
        If the runs have no record by layer.
    """
    named = {title: group[0] for title, group in by_net(drawable("layers", runs)).items()}
    shown = list(named.values())
    if not shown:
        raise InputError(
            "these runs were recorded without gradients and responses by layer; train them again"
        )
    steps = sorted({line["iteration"] for run in shown for line in run.layers})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 7.2), layout="constrained")
        S, panels = len(steps), list[Axes]()
        grid = figure.add_gridspec(2, 2 * S)
        for i in range(S):
            panels.append(
                figure.add_subplot(grid[0, 2 * i : 2 * i + 2], sharey=panels[0] if i else None)
            )
        panels.append(figure.add_subplot(grid[1, :S]))
        panels.append(figure.add_subplot(grid[1, S:], sharey=panels[-1]))
        for title, run in named.items():
            family = [other for other in shown if other.family == run.family]
            style: dict[str, Any] = {"label": title}
            style |= {
                "color": _shades(run.family, len(family))[family.index(run)],
                "lw": 1 + 0.6 * family.index(run),
            }
            style |= {"marker": "o" if run.family == "plain" else "", "ms": 3}
            for line in run.layers:
                _draw_layers(
                    panels[steps.index(line["iteration"])], run, line["gradient_norm"], style
                )
            last = run.layers[-1]["response_std"]
            _draw_layers(panels[-2], run, last, style)
            _draw_layers(panels[-1], run, last, style, largest_first=True)
        for axes, step in zip(panels, steps, strict=False):
            axes.set(
                title=f"gradients, step {step:,}", xlabel="layer, from the input", yscale="log"
            )
            axes.grid(axis="y", alpha=0.25)
        panels[0].set_ylabel("gradient norm")
        panels[-2].set(
            title="the last responses recorded, by layer", xlabel="layer, from the input"
        )
        panels[-1].set(
            title="the same, sorted by magnitude", xlabel="layer, largest response first"
        )
        panels[-2].set_ylabel("standard deviation")
        ends = [std for run in shown for std in run.layers[-1]["response_std"].values()]
        for axes in panels[-2:]:
            axes.grid(axis="y", alpha=0.25)
            if max(ends) > 10 * min(ends):
                axes.set_yscale("log")
            else:
                axes.set_ylim(0, 1.05 * max(ends))
        for axes in panels:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panels[-1].legend(fontsize=9, framealpha=0.8, ncols=2)
        _finish(
            figure,
            layers_message(shown),
            f"{_caption(shown)}; one seed; responses: after batch norm, before ReLU",
        )
    return figure


def _draw_layers(
    axes: Axes, run: Run, values: Mapping[str, float], style: Any, largest_first: bool = False
) -> None:
    y = [value for name, value in values.items() if ".shortcut" not in name]
    axes.plot(range(1, len(y) + 1), sorted(y, reverse=True) if largest_first else y, **style)


FIGURES = {"errors": errors, "depth": depth, "layers": layers}


def drawable(kind: str, runs: Sequence[Run]) -> list[Run]:
    """Runs that have something for a kind of `FIGURES`."""
    return [
        run for run in runs if {"errors": run.train, "depth": run.evals, "layers": run.layers}[kind]
    ]


def _drops(run: Run) -> list[int]:
    """Milestones that lower the rate, or are to come: the rate of a warm-up stays."""
    rates = {line["iteration"]: line["lr"] for line in run.train}

    def passed_over(milestone: int) -> bool:
        before, after = (
            [lr for i, lr in rates.items() if (i > milestone) == later] for later in (False, True)
        )
        return bool(before and after) and after[0] >= before[-1]

    return [milestone for milestone in run.config["milestones"] if not passed_over(milestone)]


def _shades(family: str, count: int) -> Any:
    """Colours of a family's nets, darker with depth."""
    return mpl.colormaps[FAMILIES[family]](np.linspace(0.5, 0.95, count) if count > 1 else [0.8])


def _finish(figure: Figure, title: str, caption: str) -> None:
    """Title above and caption below, in lines as wide as the figure."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(caption, int(18 * width))
    figure.suptitle("\n".join(textwrap.wrap(title, int(9 * width))), fontsize=12)
    figure.text(0.995, 0.005, "\n".join(lines), ha="right", va="bottom", fontsize=7, color="0.4")
    below = (0.05 + 0.13 * len(lines)) / height
    figure.get_layout_engine().set(rect=(0, below, 1, 1 - below))  # type: ignore[union-attr, call-arg]


def _draw_net(axes: Axes, net: str, group: Sequence[Run], colour: Any, width: float) -> None:
    iteration, errors = _common(group, "train", "error")
    smooth = np.apply_along_axis(_running_mean, 1, errors, max(1, errors.shape[1] // 25))
    evaluated = [
        run for run in group if run.evals
    ]  # a seed that has just begun does not hide the others
    label = None if evaluated else net
    axes.plot(iteration, smooth.mean(axis=0), color=colour, lw=0.7 * width, alpha=0.55, label=label)
    if len(group) > 1:
        axes.fill_between(
            iteration, smooth.min(axis=0), smooth.max(axis=0), color=colour, alpha=0.15, lw=0
        )
    for which, style, marker in WAYS if evaluated else ():
        iteration, errors = _common(evaluated, "evals", f"{which}_error")
        if not len(iteration):  # damaged lines are passed over
            continue
        seeds = f", {len(evaluated)} seeds" if len(evaluated) > 1 else ""
        mean = errors.mean(axis=0)
        label = f"{net} {which} {mean[-1]:.1f} %{seeds}"
        axes.plot(
            iteration,
            mean,
            style,
            marker=marker,
            ms=4,
            color=colour,
            lw=width,
            label=label,
            clip_on=False,
        )
        if len(evaluated) > 1:
            axes.fill_between(
                iteration, errors.min(axis=0), errors.max(axis=0), color=colour, alpha=0.15, lw=0
            )


def _running_mean(values: np.ndarray, steps: int) -> np.ndarray:
    """Mean over the last `steps` values, fewer at the beginning."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - steps, 0)
    return (sums[end] - sums[start]) / (end - start)


def sheet(page: np.ndarray, classes: Sequence[str]) -> Figure:
    """Contact sheet with the name of each class above its column.

    Parameters
    ----------
    page : ndarray of shape (H, W, 3), uint8
    classes : list of str
    """
    with mpl.rc_context(STYLE):
        H, W, _ = page.shape
        figure = Figure(figsize=(W / 40, H / 40 + 0.3), layout="constrained")
        axes = figure.subplots()
        axes.imshow(page, interpolation="nearest")
        axes.set_xticks((np.arange(len(classes)) + 0.5) * W / len(classes), classes)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, labelsize=9)
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_visible(False)
    return figure
