"""Figures of lesson 11: four explanations of what a shortcut changes."""

from math import comb

import numpy as np
from matplotlib.figure import Figure
from style import MUTED, PLAIN, RESIDUAL


def colour(net):
    """The colour of the network's family."""
    return PLAIN if net.startswith("plain") else RESIDUAL


def tents(t, t_residual):
    """Draw a chain of tent maps and its residual twin; each is (x, y after three blocks)."""
    figure = Figure(figsize=(7.8, 3.2))
    panels = figure.subplots(1, 2)
    names = ("plain: t(t(t(x)))", "residual: x + t(x)/4, three times")
    for axes, name, (x, y), net in zip(
        panels, names, (t, t_residual), ("plain", "res"), strict=True
    ):
        axes.plot(x, y, color=colour(net), lw=2)
        axes.set(title=name, xlabel="x", ylabel="after three blocks")
        for place in (0.3, 0.4):
            axes.axvline(place, color=MUTED, ls=":")
    figure.suptitle("Three plain blocks zigzag; three residual blocks keep rising")
    return figure


def shattered(by_depth, by_distance):
    """Draw cosines of input gradients: of neighbours by depth, and by distance for 20 layers."""
    figure = Figure(figsize=(7.8, 4.0))
    left, right = figure.subplots(1, 2, sharey=True)
    for net, marker, style in (("plain", "s", "--"), ("resnet", "o", "-")):
        depths = sorted(int(n.removeprefix(net)) for n in by_depth if n.startswith(net))
        values = [by_depth[f"{net}{d}"] for d in depths]
        kind = marker + style
        left.plot(depths, np.mean(values, axis=1), kind, color=colour(net), label=net)
        left.vlines(depths, np.min(values, axis=1), np.max(values, axis=1), color=colour(net))
        curve = np.mean(by_distance[f"{net}20"], axis=0)
        right.plot(np.arange(len(curve)) / (len(curve) - 1), curve, style, color=colour(net), lw=2)
    left.set(
        xlabel="layers",
        ylabel="cosine of the input gradients",
        title=f"two neighbours (bars: {len(values[0])} seeds)",
    )
    right.set(xlabel="distance on the line", title="20 layers, by distance")
    left.legend()
    for axes in (left, right):
        axes.axhline(0, color=MUTED, lw=1)
    figure.suptitle(
        "Neighbouring pictures: gradients of plain nets forget each other, residual ones later"
    )
    return figure


def changed_blocks(record, recomputed, guess=90):
    """Draw the error of trained nets after removing each block, and after exchanging two.

    Bars show it with the statistics of the whole net, diamonds with recomputed ones.
    """
    figure = Figure(figsize=(7.8, 4.4))
    panels = figure.subplots(1, 2, sharey=True, width_ratios=(7, 4))
    for axes, kind in zip(panels, ("removed", "exchanged"), strict=True):
        for net, shift in (("plain20", -0.2), ("resnet20", 0.2)):
            values = list(record[net][kind].values())
            axes.bar(np.arange(len(values)) + shift, values, 0.38, color=colour(net), label=net)
            axes.axhline(record[net]["error"], color=colour(net), ls="--", lw=1.2)
            fresh = list(recomputed[net][kind].values())
            diamonds = {"color": "white", "mec": "black", "ms": 7}
            axes.plot(np.arange(len(fresh)) + shift, fresh, "D", **diamonds)
        names = [n.replace("stage", "").replace(".block", ".") for n in record["plain20"][kind]]
        axes.set_xticks(range(len(names)), [n.replace(", ", "\n") for n in names])
        axes.set(title=f"block {kind}" if kind == "removed" else "two blocks exchanged")
        axes.axhline(guess, color=MUTED, lw=1)
        axes.set_xlabel("stage.block")
    panels[0].set(ylabel="test error (%)", ylim=(0, 112))
    panels[0].plot([], [], "D", **diamonds, label="statistics recomputed")
    panels[0].legend(loc="upper left", ncols=3, fontsize=10)
    figure.suptitle(
        "Without one block plain-20 nearly guesses; ResNet-20 gets worse and still works"
    )
    return figure


def paths(norms):
    """Draw the number of paths and the size of their gradient, by the number of bodies on the path."""
    blocks = len(norms) - 1
    figure = Figure(figsize=(7.8, 3.9))
    axes = figure.subplots()
    lengths = np.arange(blocks + 1)
    count = np.array([comb(blocks, k) for k in lengths], float)
    axes.plot(
        lengths, count / count.sum(), "s--", color=MUTED, label=f"share of the 2^{blocks} paths"
    )
    share = norms / norms.sum()
    axes.plot(lengths, share, "o-", color=RESIDUAL, label="share of the gradient")
    axes.set(xlabel="bodies on the path", ylabel="share")
    axes.legend()
    axes.set_title("Before training, the paths that carry the gradient are shorter than most")
    return figure


def slices(record):
    """Draw the loss of trained nets along random directions."""
    figure = Figure(figsize=(7.8, 3.9))
    axes = figure.subplots()
    for net, styles in (("plain20", ("--", ":")), ("resnet20", ("-", "-."))):
        for k, (style, losses) in enumerate(
            zip(styles, record[net]["slices"], strict=True), start=1
        ):
            axes.plot(
                record["distances"],
                losses,
                style,
                color=colour(net),
                lw=2,
                label=f"{net}, direction {k}",
            )
    axes.set(xlabel="distance (1: as long as the weights, filter by filter)", ylabel="loss")
    axes.legend()
    axes.set_title("With 20 layers the slices of both networks are smooth valleys")
    return figure


def variants(rows):
    """Draw the published error of each variant against the growth of its gradient at the start."""
    figure = Figure(figsize=(7.8, 5.4))
    axes = figure.subplots()
    failed = 17  # where the figure places those that did not train
    left = ("original", "full pre-activation", "ReLU before the sum", "1x1 convolution")
    left += ("shortcut x 0.5", "no shortcut")
    higher = {"original": 3, "full pre-activation": -12, "1x1 convolution": -12, "no shortcut": -16}
    higher |= {"shortcut x 0.5, body x 0.5": -12, "shortcut gate, bias 0": 3}
    for name, (factor, error) in rows.items():
        colour, height = (PLAIN, failed) if error is None else (RESIDUAL, error)
        axes.semilogx(factor, height, "s" if error is None else "o", color=colour, ms=8)
        place = (-8 if name in left else 8, higher.get(name, -4))
        side = "right" if name in left else "left"
        axes.annotate(
            name, (factor, height), place, textcoords="offset points", ha=side, fontsize=10
        )
    axes.axhline(failed - 1.5, color=MUTED, ls=":")
    axes.text(
        0.01, failed + 0.8, "did not train", color=PLAIN, transform=axes.get_yaxis_transform()
    )
    axes.set(
        xlabel="gradient at the first block / at the last block, before training",
        ylabel="published error of ResNet-110 (%)",
        xlim=(0.1, 1e4),
        ylim=(5, 19),
    )
    axes.set_title("The faster the gradient grows at the start, the higher the error, mostly")
    return figure
