"""Figures of lesson 4: paths of a gradient, signals by depth, scores, running means."""

import numpy as np
from matplotlib.figure import Figure
from style import HUES, PLAIN, RESIDUAL


def three_paths(parts, dx, xhat):
    """Draw what each path adds to dx against x-hat; all arrays are (M,), in one order."""
    figure = Figure(figsize=(7.8, 4.0))
    axes = figure.subplots()
    order = np.argsort(xhat)
    looks = (("o", "none"), ("s", "-"), ("^", "-"))
    for k, ((name, values), (marker, line)) in enumerate(zip(parts.items(), looks, strict=True)):
        axes.plot(xhat[order], values[order], marker, ls=line, color=HUES[k], label=name)
    axes.plot(xhat[order], dx[order], "D", color="black", ms=8, fillstyle="none", label="sum: dx")
    axes.axhline(0, color="0.3", lw=0.8)
    axes.set(xlabel="x̂", ylabel="part of dx")
    axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, -0.36))
    axes.set_title(
        "The mean's path shifts all gradients alike, the variance's path tilts them along x̂"
    )
    return figure


def by_depth(found, title):
    """Draw deviations by layer; `found` has (seeds, layers) for (factor, with batch norm)."""
    figure = Figure(figsize=(7.8, 4.4))
    axes = figure.subplots()
    factors = sorted({factor for factor, _ in found})
    for factor, colour in zip(factors, HUES, strict=False):
        without, with_norm = found[factor, False], found[factor, True]
        layers, middle = np.arange(1, without.shape[1] + 1), np.median(without, axis=0)
        axes.fill_between(layers, without.min(axis=0), without.max(axis=0), color=colour, alpha=0.2)
        axes.semilogy(layers, middle, "--", color=colour)
        axes.semilogy(layers, np.median(with_norm, axis=0), "-", color=colour, lw=2)
        how = {"textcoords": "offset points", "color": colour, "va": "center"}
        axes.annotate(f"He × {factor:g}", (layers[-1], middle[-1]), (5, 0), **how)
    axes.annotate(
        "with batch norm,\nall three",
        (8, found[factors[-1], True][0, 7]),
        (4, 60),
        arrowprops={"arrowstyle": "-", "color": "0.4"},
    )
    axes.set(
        xlabel="layer (bands: eight seeds)", ylabel="standard deviation of the signal", xlim=(0, 57)
    )
    axes.set_title(title)
    return figure


def neighbours(trained, evaluated):
    """Draw the scores of one picture beside many neighbours; both arrays (neighbours, classes)."""
    figure = Figure(figsize=(7.8, 4.0))
    axes = figure.subplots()
    count, classes = trained.shape
    shift = np.linspace(-0.25, 0.25, count)
    for k in range(classes):
        first = k == 0  # the legend names each kind once
        named = f"training mode, {count} neighbours" if first else None
        axes.plot(k + shift, trained[:, k], "o", ms=3.5, color=PLAIN, alpha=0.5, label=named)
        named = f"evaluation mode, the same {count}" if first else None
        axes.plot(k + shift, evaluated[:, k], "-", lw=3, color=RESIDUAL, label=named)
    axes.set(xlabel="class", ylabel="score of one picture", xticks=range(classes))
    axes.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.17))
    axes.set_title("In training mode the scores of a picture depend on who stands beside it")
    return figure


def running_means(targets, followed, title):
    """Draw true and running means by batch, a panel for each target."""
    figure = Figure(figsize=(8.2, 4.0))
    for axes, (name, target) in zip(figure.subplots(1, 2), targets.items(), strict=True):
        axes.plot(target, color="black", lw=1.5, label="true mean")
        shares = [rho for of, rho in followed if of == name]
        for rho, colour in zip(shares, HUES, strict=False):
            axes.plot(followed[name, rho], color=colour, label=f"ρ = {rho:g}")
        axes.set(xlabel="batch", ylabel="running mean", title=name)
    figure.axes[0].legend(fontsize=10, loc="lower right", bbox_to_anchor=(1, 0.12))
    figure.suptitle(title)
    return figure
