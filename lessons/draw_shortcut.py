"""Figures of lesson 6: gradients by block, their two ways, one block, twins that part."""

import numpy as np
from matplotlib.figure import Figure
from style import HUES, MUTED, PLAIN, RESIDUAL

TITLES = {"plain": "plain", "resnet": "ResNet"}


def growth(arrived, bare, title):
    """Draw gradients by block, relative to the last one; `bare` are nets without batch norm."""
    figure = Figure(figsize=(7.8, 4.8))
    axes = figure.subplots()
    looks = ((PLAIN, "s-"), (RESIDUAL, "o-"), (MUTED, "^--"), (HUES[1], "v--"))
    for (name, g), (colour, style) in zip((arrived | bare).items(), looks, strict=True):
        blocks = range(1, len(g) + 1)
        axes.semilogy(blocks, g / g[-1], style, color=colour, ms=4, label=name)
    for edge in (9.5, 18.5):
        axes.axvline(edge, color=MUTED, lw=0.8, ls=":")
    axes.set(
        xlabel="block, from the input to the loss (dotted: the picture is halved)",
        ylabel="gradient, last block = 1",
    )
    axes.legend(fontsize=10)
    axes.set_title(title)
    return figure


def two_ways(body, around):
    """Draw the sizes of both parts of dx by block, as shares of dx."""
    figure = Figure(figsize=(7.8, 4.0))
    axes = figure.subplots()
    blocks = range(1, len(body) + 1)
    axes.plot(blocks, around, "o-", color=RESIDUAL, ms=4, label="through the shortcut")
    axes.plot(blocks, body, "s--", color=HUES[1], ms=4, label="through the body")
    axes.axhline(1, color=MUTED, lw=0.8)
    axes.set(
        xlabel="block, from the input to the loss", ylabel="size, as a share of dx", ylim=(0, 1.15)
    )
    axes.legend(loc="lower right")
    axes.set_title(
        "The part through the body is smaller at the end of each stage than at its beginning"
    )
    return figure


def one_block(forward, backward):
    """Draw a residual block with measured sizes at its arrows.

    Parameters
    ----------
    forward : dict
        Deviation of the signals x, F, F + x and y.
    backward : dict
        Size of the gradients dy, dz, body and dx.
    """
    figure = Figure(figsize=(7.8, 3.6))
    axes = figure.subplots()
    axes.set(xlim=(-0.6, 10.4), ylim=(-1.3, 2.9))
    axes.axis("off")
    _diagram(axes)
    x, F, total, y = (forward[name] for name in ("x", "F", "F + x", "y"))
    for place, value in (
        ((0.3, 0.18), x), ((2.1, 1.95), x), ((5.6, 1.95), F), ((7.1, 0.38), total), ((9.4, 0.18), y),
    ):  # fmt: skip
        axes.text(*place, f"{value:.2f}", ha="center", color=RESIDUAL)
    dx, body, dz, dy = (backward[name] for name in ("dx", "body", "dz", "dy"))
    for place, value in (
        ((0.3, -0.42), dx), ((3.5, -0.42), dz), ((2.1, 1.3), body), ((5.6, 1.3), dz), ((7.1, -0.72), dz), ((9.4, -0.42), dy),
    ):  # fmt: skip
        axes.text(*place, f"{value:.2f}", ha="center", color=PLAIN)
    axes.text(-0.5, -1.2, "blue: deviation of the signal, forward", color=RESIDUAL, fontsize=10)
    axes.text(4.6, -1.2, "red: size of the gradient (1 where it arrives)", color=PLAIN, fontsize=10)
    axes.set_title("In the fifth block of stage 2, x is already larger than what the body adds")
    return figure


def _diagram(axes):
    """The boxes and arrows of a residual block."""
    middle, ink = {"ha": "center", "va": "center"}, "0.3"
    box = {"boxstyle": "round,pad=0.5", "fc": "0.93", "ec": ink}
    circle = {"boxstyle": "circle,pad=0.2", "fc": "white", "ec": ink}
    axes.text(4, 1.75, "body F", bbox=box, **middle)
    axes.text(8.2, 0, "ReLU", bbox=box, **middle)
    axes.text(6.4, 0, "+", fontsize=16, bbox=circle, **middle)
    arrows = (
        ((0, 0), (6.1, 0)),
        ((6.75, 0), (7.6, 0)),
        ((8.8, 0), (10, 0)),
        ((1, 1.75), (3.2, 1.75)),
        ((6.4, 1.75), (6.4, 0.32)),
    )
    for start, end in arrows:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": ink})
    axes.plot([1, 1], [0, 1.75], color=ink, lw=1)
    axes.plot([4.8, 6.4], [1.75, 1.75], color=ink, lw=1)


def twins(distances, rates):
    """Draw how far twin networks part, by step and by rate.

    Parameters
    ----------
    distances : dict
        (family, depth, rate) -> relative distance after each step.
    rates : list of float
        The first one is shown by step; depths above 8 are shown by rate, after 12 steps.
    """
    figure = Figure(figsize=(7.8, 4.8))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for name, depth, _ in (key for key in distances if key[2] == rates[0]):
        colour, style = (PLAIN, "--") if name == "plain" else (RESIDUAL, "-")
        marker = {8: "", 20: "o", 32: "s"}[depth]
        look = {"color": colour, "ls": style, "marker": marker, "ms": 4, "lw": 1 + depth / 20}
        distance = np.maximum(distances[name, depth, rates[0]], 1e-18)
        label = f"{TITLES[name]}-{depth}"
        left.semilogy(range(1, len(distance) + 1), distance, label=label, markevery=4, **look)
        if depth > 8:
            right.loglog(rates, [distances[name, depth, rate][11] for rate in rates], **look)
    left.set(xlabel="training step", ylabel="relative distance of the twins", xlim=(0, 82))
    left.set_title(f"at rate {rates[0]:g}")
    right.set(xlabel="learning rate", title="after 12 steps")
    left.legend(fontsize=10, loc="lower right")
    figure.suptitle(
        "Deep plain twins part at once at rate 0.01; lower rates and shortcuts delay it",
        x=0.01,
        ha="left",
    )
    return figure
