"""Figures of lesson 4b: a network with its shapes and costs, one step, and the sanity checks."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from style import HUES, MUTED, RESIDUAL

from minires.nets.audit import audit

PARTS = ("conv", "stage1", "stage2", "stage3", "fc")


def costs(net):
    """Parameters and multiply-adds of each part of a CIFAR network: {part: (parameters, multiply-adds)}."""
    found = dict.fromkeys(PARTS, (0, 0))
    for row in audit(net):
        part = row.name.split(".")[0].replace("bn", "conv")
        if part in found:  # the pool costs nothing
            weights, work = found[part]
            found[part] = weights + row.parameters, work + row.macs
    return found


def weighted(net):
    """The layers that count towards the depth, in order: rows of the audit."""
    return [row for row in audit(net) if row.weighted]


def network(net):
    """Draw the weighted layers in a row, shortcuts as arcs, and the costs of the parts below."""
    layers = weighted(net)
    figure = Figure(figsize=(7.8, 5.8))
    above, below = figure.subplots(2, 1, height_ratios=(3, 2))
    for i, row in enumerate(layers, start=1):
        side = row.shape[0] if len(row.shape) == 3 else 1
        height = 0.35 + side / 20
        colour = HUES[PARTS.index(row.name.split(".")[0])]
        above.add_patch(Rectangle((i - 0.3, -height / 2), 0.6, height, color=colour, alpha=0.75))
        above.text(i, 0, str(i), ha="center", va="center", color="white", fontsize=10)
    for first in range(2, len(layers), 2):  # a block is two layers
        arc = FancyArrowPatch(
            (first - 0.45, 1.05), (first + 1.45, 1.05), connectionstyle="arc3,rad=-0.45",
            arrowstyle="->", mutation_scale=9, color=RESIDUAL, lw=1.3,
        )  # fmt: skip
        above.add_patch(arc)
    per_stage = (len(layers) - 2) // 3
    middles = [1 + per_stage * (s + 0.5) + 0.5 for s in range(3)]
    for s, x in enumerate(middles):
        H, W, K = layers[1 + per_stage * (s + 1) - 1].shape
        above.text(x, -1.35, f"stage {s + 1}\n{H}x{W} pixels\n{K} channels", ha="center", va="top")
    above.text(0.4, -1.35, "first\nconvolution", ha="center", va="top")
    above.text(len(layers) + 0.4, -1.35, "pool,\nlinear", ha="center", va="top")
    above.set(xlim=(-1.2, len(layers) + 1.8), ylim=(-2.9, 2.0))
    above.axis("off")
    _bars(below, costs(net))
    H, W, C = net.facts.input_shape
    figure.suptitle(
        f"{len(layers)} layers from {H}x{W}x{C} numbers to {net.facts.classes}: "
        "nearly equal work by stage, unequal parameters"
    )
    return figure


def _bars(axes, found):
    """Shares of parameters and of multiply-adds, a bar for each part."""
    totals = np.sum(list(found.values()), axis=0)
    places = np.arange(len(found))
    for k, (name, shift, hatch) in enumerate(
        (("parameters", -0.2, ""), ("multiply-adds", 0.2, "//"))
    ):
        shares = [100 * cost[k] / totals[k] for cost in found.values()]
        axes.bar(
            places + shift, shares, 0.38, label=f"{name}, {totals[k]:,} in all", hatch=hatch,
            color=(RESIDUAL, "#92c5de")[k], edgecolor="white",
        )  # fmt: skip
        for place, share in zip(places + shift, shares, strict=True):
            axes.text(place, share + 1, f"{share:.0f}", ha="center", fontsize=10)
    axes.set_xticks(places, ["first convolution", "stage 1", "stage 2", "stage 3", "linear"])
    axes.set(ylabel="share (%)", ylim=(0, 92))
    axes.legend(loc="upper left")


def one_step(rates, losses, predicted, before):
    """Draw the loss of a batch after one step at each rate, and what the gradient predicts."""
    figure = Figure(figsize=(7.8, 3.9))
    axes = figure.subplots()
    axes.semilogx(rates, losses, "o-", color=HUES[0], label="measured after one step")
    axes.semilogx(rates, predicted, "--", color=HUES[1], label="loss - rate · ||gradient||²")
    axes.axhline(before, color=MUTED, lw=1)
    axes.text(rates[0], 1.06 * before, "before the step", color="0.35")
    axes.set(xlabel="learning rate", ylabel="loss of the same batch", ylim=(0, 1.08 * max(losses)))
    axes.legend(loc="lower left")
    axes.set_title("A small step does what the gradient predicts; a large one overshoots")
    return figure


def overfitting(curves, guess):
    """Draw the loss by step of networks on a few pictures, and the loss of a guess."""
    figure = Figure(figsize=(7.8, 4.2))
    axes = figure.subplots()
    styles = ("-", "--", "-.", ":", (0, (6, 1, 1, 1)))
    for (name, losses), colour, style in zip(curves.items(), HUES, styles, strict=False):
        axes.semilogy(
            np.arange(1, len(losses) + 1), losses, ls=style, color=colour, lw=2, label=name
        )
    axes.axhline(guess, color=MUTED, lw=1)
    axes.text(45, guess * 1.6, "a guess: log 10", color="0.35")
    axes.set(xlabel="step", ylabel="loss on the twenty pictures")
    axes.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    axes.set_title("A network memorises twenty pictures, with true labels or shuffled ones")
    return figure
