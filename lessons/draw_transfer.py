"""Figures of lesson 12: features by stage, rates of fine-tuning, batches of two, the copy of CIFAR-10."""

import numpy as np
from matplotlib.figure import Figure
from style import HUES, MUTED, PLAIN, RESIDUAL

from minires.lab import plots

STAGES = ("stage1", "stage2", "stage3")


def by_labels(counts, trained, random, title, unit):
    """Error by the number of labels: three stages, trained weights against random ones."""
    figure = Figure(figsize=(7.8, 4.3))
    axes = figure.subplots()
    for k, stage in enumerate(STAGES):
        for errors, style, name in ((trained, "o-", "trained"), (random, "s--", "random")):
            values = np.asarray(errors[stage])
            axes.semilogx(
                counts,
                values.mean(axis=1),
                style,
                color=HUES[k],
                ms=5,
                label=f"{stage.replace('stage', 'stage ')}, {name} weights",
            )
            axes.fill_between(
                counts, values.min(axis=1), values.max(axis=1), color=HUES[k], alpha=0.12
            )
    axes.set_xticks(counts, [f"{n:,}" for n in counts])
    axes.minorticks_off()
    axes.set(
        xlabel="labels for the linear classifier (band: different draws of them)",
        ylabel=f"error on {unit} (%)",
    )
    axes.legend(fontsize=10, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    axes.set_title(title)
    return figure


def contact_sheet(images, labels, classes):
    """Draw the first picture of every class."""
    firsts = [images[labels == k][0] for k in range(len(classes))]
    figure = plots.sheet(np.concatenate(firsts, axis=1), classes)
    figure.suptitle("The second task: ten kinds of drawn landscapes", x=0.01, ha="left")
    return figure


def rates(lr, new, scratch, old, before, title):
    """Errors on the new and on the old task, by the rate of fine-tuning."""
    figure = Figure(figsize=(7.8, 4.1))
    axes = figure.subplots()
    axes.semilogx(lr, new, "o-", color=RESIDUAL, label="new task, from the trained net")
    axes.semilogx(lr, scratch, "s--", color=MUTED, label="new task, from random weights")
    axes.semilogx(lr, old, "^-", color=PLAIN, label="old task, afterwards")
    axes.axhline(before, color=PLAIN, lw=1, ls=":")
    axes.annotate(
        "old task, before",
        (lr[-1], before),
        (0, -14),
        textcoords="offset points",
        color=PLAIN,
        ha="right",
    )
    axes.set_xticks(lr, [f"{rate:g}" for rate in lr])
    axes.minorticks_off()
    axes.set(xlabel="learning rate", ylabel="error (%)", ylim=(0, 100))
    axes.legend(fontsize=10, loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.17))
    axes.set_title(title)
    return figure


def dots(rows, title, label):
    """A row of dots for each way of training, one dot for each seed."""
    figure = Figure(figsize=(7.8, 2.9))
    axes = figure.subplots()
    for y, errors in enumerate(rows.values()):
        axes.plot(errors, [y] * len(errors), "o", color=HUES[y], ms=8, alpha=0.8)
        axes.plot([np.mean(errors)] * 2, [y - 0.25, y + 0.25], color="0.2", lw=1.5)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set(xlabel=label, ylim=(len(rows) - 0.5, -0.5))
    figure.suptitle(title)
    return figure


def copies(rows, title):
    """Test errors of networks of others on the copy of CIFAR-10, by what was done to them."""
    figure = Figure(figsize=(8.2, 4.3))
    axes = figure.subplots()
    ways = list(next(iter(rows.values())))
    for k, (name, errors) in enumerate(rows.items()):
        places = np.array([ways.index(way) for way in errors]) + 0.38 * (k - 0.5)
        colours = [MUTED, *[HUES[k]] * (len(errors) - 1)]
        tuned = "" if len(errors) == len(ways) else " (tuned: last layer only)"
        axes.bar(places, list(errors.values()), 0.35, color=colours, label=f"{name}{tuned}")
        for place, value in zip(places, errors.values(), strict=True):
            axes.annotate(
                f"{value:.1f}",
                (place, value),
                (0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=10,
            )
    axes.bar([0], [0], color=MUTED, label="as published, lossless images")
    axes.set_xticks(
        range(len(ways)),
        [way.replace(", ", ",\n").replace("statistics ", "statistics\n") for way in ways],
        fontsize=10,
    )
    axes.set(ylabel="test error (%)", ylim=(0, 1.25 * max(max(e.values()) for e in rows.values())))
    axes.legend(fontsize=10, ncols=3, loc="upper left")
    handles = axes.get_legend().legend_handles
    for handle, colour in zip(handles, [HUES[0], HUES[1], MUTED], strict=True):
        handle.set_color(colour)
    axes.set_title(title)
    return figure
