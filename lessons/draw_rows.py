"""Figures of lesson 7b: the best moment, seeds, reproductions, layer responses, mistakes."""

import numpy as np
from matplotlib.figure import Figure
from style import HUES, MUTED, PLAIN, RESIDUAL

LOOKS = {
    "plain20": (PLAIN, "--"),
    "plain56": (PLAIN, "-"),
    "resnet20": (RESIDUAL, "--"),
    "resnet56": (RESIDUAL, "-"),
}


def best_moment(steps, errors, reported):
    """Draw test errors by moment, and what three ways to report give (name -> error)."""
    figure = Figure(figsize=(8.2, 3.9))
    curve, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    curve.plot(steps, errors, "o-", color=RESIDUAL, ms=5)
    best = int(np.argmin(errors))
    curve.plot(steps[best], errors[best], "o", mfc="none", mec=PLAIN, ms=14, mew=2)
    curve.set(xlabel="training step", ylabel="error of 1,000 test pictures (%)")
    curve.set_title("circle: the best moment", fontsize=11)
    bars = right.bar(range(3), reported.values(), 0.6, color=(RESIDUAL, PLAIN, MUTED))
    right.bar_label(bars, [f"{value:.2f}" for value in reported.values()])
    right.set_xticks(range(3), list(reported), fontsize=10)
    right.set(ylabel="error (%)", ylim=(0, 1.2 * max(reported.values())))
    last, chosen, honest = reported.values()
    won, left = (round(last - error, 2) + 0.0 for error in (chosen, honest))  # no "-0.0"
    figure.suptitle(
        f"The best moment wins {won:.2f} points on the pictures that chose it, {left:.2f} on others",
        x=0.01,
        ha="left",
    )
    return figure


def luck(counts, expected):
    """Draw how far the best of k runs lies below the mean, in deviations."""
    figure = Figure(figsize=(7.8, 3.6))
    axes = figure.subplots()
    axes.plot(counts, expected, "o-", color=RESIDUAL)
    axes.plot(5, (6.61 - 6.43) / 0.16, "s", color=PLAIN, ms=9)
    axes.annotate(
        "the paper: (6.61 - 6.43) / 0.16",
        (5, (6.61 - 6.43) / 0.16),
        (12, -14),
        textcoords="offset points",
        color=PLAIN,
    )
    axes.set(xlabel="number of runs k", ylabel="gain of the best (deviations), $c_k$", ylim=(0, 2))
    axes.set_title("The paper's best of five is as far below the mean as luck puts it")
    return figure


def seeds(finals):
    """Draw the recorded test errors of each network, a point a seed."""
    figure = Figure(figsize=(7.8, 3.0))
    axes = figure.subplots()
    for y, (net, errors) in enumerate(finals.items()):
        colour, _ = LOOKS[net]
        axes.plot(errors, [y] * len(errors), "o", color=colour, ms=8, alpha=0.7)
        axes.plot([np.mean(errors)] * 2, [y - 0.3, y + 0.3], color="0.2", lw=1.5)
    axes.set_yticks(range(len(finals)), finals)
    axes.invert_yaxis()
    axes.set_xlabel("test error (%), a point for each seed; line: mean")
    widest = max(np.ptp(errors) for errors in finals.values())
    axes.set_title(f"Seeds of one network differ by up to {widest:.1f} points")
    return figure


def rows_of_table_6(depths, published, deviation):
    """Draw published test errors against depth.

    Parameters
    ----------
    depths : list of int
    published : dict
        Source -> an error for each depth, or None; the first one is the paper.
    deviation : dict
        Depth -> deviation of the source that trained five runs.
    """
    figure = Figure(figsize=(7.8, 6.2))
    axes = figure.subplots()
    (paper, row), *others = published.items()
    axes.plot(range(len(depths)), row, "o-", color=RESIDUAL, ms=8, lw=2, label=paper)
    looks = zip("s^Dvpx", [*HUES[1:], HUES[2]], strict=True)
    for (name, row), (marker, colour) in zip(others, looks, strict=True):
        places = [k for k, e in enumerate(row) if e is not None]
        bars = [deviation[depths[k]] for k in places] if "five runs" in name else None
        shown = {"fmt": marker, "color": colour, "ms": 6, "capsize": 3, "label": name}
        axes.errorbar(np.array(places) + 0.06, [row[k] for k in places], bars, **shown)
    mean = {"fmt": "o", "mfc": "white", "color": RESIDUAL, "capsize": 3}
    axes.errorbar(3.9, 6.61, 0.16, label="the paper, mean of five (110 layers)", **mean)
    axes.set_xticks(range(len(depths)), depths)
    axes.set(
        xlabel="depth (weighted layers; not to scale)", ylabel="test error (%)", ylim=(5.8, 9.0)
    )
    axes.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=1)
    axes.set_title(f"Reproductions of one row differ by up to {spread(published):.2f} points")
    return figure


def spread(published):
    """Largest difference between reproductions of one row, in points; the paper not counted."""
    columns = zip(*list(published.values())[1:], strict=True)
    known = [[e for e in column if e is not None] for column in columns]
    return max(max(column) - min(column) for column in known)


def responses(by_net, title):
    """Draw the deviation of each layer's response, in order and sorted."""
    figure = Figure(figsize=(7.8, 4.0))
    panels = figure.subplots(1, 2, sharey=True)
    for name, (colour, style) in LOOKS.items():
        in_order = by_net[name]
        for axes, y in zip(panels, (in_order, np.sort(in_order)[::-1]), strict=True):
            axes.plot(range(1, len(y) + 1), y, style, color=colour, lw=1.6, label=name)
    panels[0].set(xlabel="layer, from the input", ylabel="deviation of the response")
    panels[1].set(xlabel="layer, largest first")
    panels[1].legend()
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def surest_mistakes(pictures, said, title):
    """Draw ten pictures; `said` has a text for each."""
    figure = Figure(figsize=(7.8, 4.3))
    for axes, picture, words in zip(figure.subplots(2, 5).flat, pictures, said, strict=True):
        axes.imshow(picture, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(words, fontsize=10)
    figure.suptitle(title)
    return figure
