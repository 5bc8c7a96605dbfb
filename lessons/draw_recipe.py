"""Figures of lesson 7a: recorded and live ablations, prepared pictures, statistics, a warm-up."""

import textwrap

import numpy as np
from ablations import NAMES, WHOLE, compare, compared, complete, told_apart
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from style import HUES, MUTED, PLAIN, RESIDUAL

from minires.lab.recorded import final


def pieces(arms):
    """Draw the recorded errors of every arm, a point a seed; bands span the whole recipe."""
    order = [WHOLE, *compared(arms)]
    figure = Figure(figsize=(8.2, 1.9 + 0.42 * len(order)))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, which in zip(panels, ("train", "test"), strict=True):
        whole = final(arms[WHOLE], which)
        axes.axvspan(whole.min() - 0.1, whole.max() + 0.1, color=RESIDUAL, alpha=0.12)
        for y, arm in enumerate(order):
            errors = final(arms[arm], which)
            worse = errors.mean() > whole.mean() and told_apart(arms, arm, which)
            colour = PLAIN if worse else RESIDUAL
            axes.plot(errors, [y] * len(errors), "o", color=colour, ms=7, alpha=0.7)
            axes.plot([errors.mean()] * 2, [y - 0.3, y + 0.3], color="0.2", lw=1.5)
        axes.xaxis.set_major_locator(MaxNLocator(5, prune="upper"))  # its label would be cut off
        axes.set_xlabel(f"{'training' if which == 'train' else 'test'} error (%)")
    panels[0].set_yticks(range(len(order)), [NAMES[arm] for arm in order])
    panels[0].invert_yaxis()
    figure.suptitle(textwrap.fill(message(arms), 84), x=0.01, ha="left")
    return figure


def message(arms):
    """The title of the recorded ablations."""
    found = compared(arms)
    if not found:
        return "ResNet-20 after 2,000 steps of the whole recipe"
    difference, _, _ = compare(arms, found[0])
    known = "" if complete(arms) else f" of the {len(found)} recorded so far"
    if difference <= 0:
        return f"ResNet-20 after 2,000 steps: no missing piece{known} costs anything"
    single = " (one run each)" if len(arms[found[0]]) == len(arms[WHOLE]) == 1 else ""
    return (
        f"ResNet-20 after 2,000 steps: {NAMES[found[0]]} costs the most{known}, "
        f"{difference:+.1f} points{single}"
    )


def live(errors, steps):
    """Draw test errors of the small network, a point a seed; the first entry is the whole recipe."""
    whole = np.array(next(iter(errors.values())))
    figure = Figure(figsize=(7.8, 2.9))
    axes = figure.subplots()
    axes.axvspan(whole.min(), whole.max(), color=RESIDUAL, alpha=0.12)
    for y, found in enumerate(errors.values()):
        colour = PLAIN if min(found) > whole.max() else RESIDUAL
        axes.plot(found, [y] * len(found), "o", color=colour, ms=7, alpha=0.7)
        axes.plot([np.mean(found)] * 2, [y - 0.3, y + 0.3], color="0.2", lw=1.5)
    axes.set_yticks(range(len(errors)), errors)
    axes.invert_yaxis()
    axes.set_xlabel(f"test error after {steps} steps (%); line: mean; band: the first row")
    faster = np.array(list(errors.values())[2])
    between = max(faster.min() - whole.max(), whole.min() - faster.max())  # of the closest seeds
    seeds = "and seeds overlap" if between < 0 else f"{between:.1f} between the closest seeds"
    difference = faster.mean() - whole.mean()
    figure.suptitle(
        f"Ten times the rate for momentum: {difference:+.1f} points on average, {seeds}",
        x=0.01,
        ha="left",
    )
    return figure


def prepared(rows):
    """Draw pictures in rows; `rows` has an array (pictures, H, W, 3) in 0..1 for each name."""
    figure = Figure(figsize=(7.2, 5.0))
    grid = figure.subplots(len(rows), len(next(iter(rows.values()))))
    for line, (name, pictures) in zip(grid, rows.items(), strict=True):
        for axes, picture in zip(line, pictures, strict=True):
            axes.imshow(np.clip(picture, 0, 1), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    figure.suptitle("The same six pictures are new at every step")
    return figure


def two_statistics(steps, moving, afresh):
    """Draw the error of the same weights by moving averages and by recomputed statistics."""
    figure = Figure(figsize=(7.8, 4.0))
    axes = figure.subplots()
    axes.plot(steps, moving, "s--", color=HUES[1], ms=4, label="moving averages")
    axes.plot(steps, afresh, "o-", color=RESIDUAL, ms=4, label="recomputed statistics")
    axes.set(xlabel="training step", ylabel="test error (%)", ylim=(0, 100), xlim=(0, None))
    axes.legend(loc="lower left")
    difference = abs(moving - afresh)
    axes.set_title(
        f"The same weights, two errors: up to {difference.max():.0f} points apart, "
        f"at step {steps[difference.argmax()]}"
    )
    return figure


def cold_and_warm(curves, warmed, chance):
    """Draw two recorded starts; `curves` has (steps, errors) for each label."""
    figure = Figure(figsize=(7.8, 3.8))
    axes = figure.subplots()
    for (label, curve), colour in zip(curves.items(), (HUES[1], RESIDUAL), strict=True):
        axes.plot(*curve, color=colour, lw=1.8, label=label)
    axes.axhline(90, color=MUTED, lw=0.8)
    axes.axhline(80, color=MUTED, lw=0.8, ls="--")
    axes.axvline(warmed, color=MUTED, ls=":")
    axes.text(warmed + 5, 94, f"warm-up to step {warmed}", color="0.35", fontsize=10)
    axes.set(xlabel="training step", ylabel="running error of the batches (%)", ylim=(0, 102))
    axes.set_xlim(0, max(curve[0][-1] for curve in curves.values()))
    axes.legend(loc="lower right")
    axes.set_title(f"A start at 0.1: ResNet-56 stays above 85 % for {chance} steps")
    return figure
