"""Figures of lessons 5a and 5b: a deepened network, layers that stand still, equal angles."""

import numpy as np
from matplotlib.figure import Figure
from style import HUES, MUTED, PLAIN, RESIDUAL

LIGHT = "#ef8a62"  # a second plain network
WINDOW = 20  # steps of a moving average


def moving_average(errors, window=WINDOW):
    """Mean over the last steps, as many as there are up to `window`."""
    known = np.minimum(np.arange(1, len(errors) + 1), window)
    return np.convolve(errors, np.ones(window))[: len(errors)] / known


def gaps(train, test):
    """Draw training and test error of each network as a pair of bars."""
    figure = Figure(figsize=(7.8, 3.6))
    axes = figure.subplots()
    places = np.arange(len(train))
    colours = [PLAIN if net.startswith("plain") else RESIDUAL for net in train]
    for shift, errors, alpha, which in ((-0.2, train, 1, "training"), (0.2, test, 0.5, "test")):
        bars = axes.bar(places + shift, errors.values(), 0.38, color=colours, alpha=alpha)
        axes.bar_label(bars, [f"{which}\n{value:.1f}" for value in errors.values()], fontsize=10)
    axes.set_xticks(places, train)
    axes.set(ylabel="error (%)", ylim=(0, 1.3 * max([*train.values(), *test.values()])))
    axes.set_title("Plain-56 is behind on the training pictures already: that is not overfitting")
    return figure


def begun_at_the_solution(built_at, curves):
    """Draw errors by step, smoothed; `curves` has (name, first step, errors, colour, line style)."""
    figure = Figure(figsize=(7.8, 5.0))
    axes = figure.subplots()
    for name, first, errors, colour, style in curves:
        shown = moving_average(errors)[WINDOW - 1 :]  # means of a full window only
        steps = first + np.arange(WINDOW, len(errors) + 1)
        axes.plot(steps, shown, style, color=colour, lw=1.8, label=f"{name}: {shown[-1]:.0f} %")
    axes.axvline(built_at, color=MUTED, ls=":")
    axes.text(built_at + 3, 96, "plain-20 is built here", color="0.35", va="top", fontsize=10)
    axes.set(
        xlabel="step",
        ylabel=f"error on new pictures (%), mean of {WINDOW} steps",
        xlim=(0, None),
        ylim=(0, 100),
    )
    axes.legend(fontsize=10, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    axes.set_title(f"A good plain-20 exists at step {built_at}; the usual start finds one later")
    return figure


def identities(fits):
    """Draw the error of stacks that fit y = x: {(layers, shortcuts): last error}."""
    figure = Figure(figsize=(7.8, 3.6))
    axes = figure.subplots()
    for shortcuts, name, colour, style in (
        (False, "plain", PLAIN, "s--"),
        (True, "with shortcuts", RESIDUAL, "o-"),
    ):
        depths = sorted(layers for layers, with_them in fits if with_them == shortcuts)
        values = [fits[layers, shortcuts] for layers in depths]
        axes.plot(depths, values, style, color=colour, label=name)
        for layers, value in zip(depths, values, strict=True):
            axes.annotate(
                f"{value:.2f}", (layers, value), xytext=(8, -12), textcoords="offset points"
            )
    axes.axhline(1, color=MUTED, lw=1)
    axes.text(2, 1.03, "the best constant", color="0.35")
    axes.set(
        xlabel="layers in the stack", ylabel="squared error / variance of x", ylim=(-0.12, 1.2)
    )
    axes.set_xticks(depths)
    axes.legend(loc="center left")
    axes.set_title("The deeper a plain stack, the worse it passes on its input after 150 steps")
    return figure


def standing(by_layer, still):
    """Draw the share of layers whose relative step is below `still`, by network and step.

    Parameters
    ----------
    by_layer : dict
        Network -> list, for each seed a dict of recorded step -> (layers,) shares of the last layer.
    still : float
    """
    figure = Figure(figsize=(7.8, 4.2))
    axes = figure.subplots()
    steps = list(next(iter(by_layer.values()))[0])
    names = (f"step {steps[0]:,}", f"step {steps[1]:,}", "at the end")
    counts = {
        net: [[int((found[step] < still).sum()) for found in seeds] for step in steps]
        for net, seeds in by_layer.items()
    }
    sizes = {net: len(seeds[0][steps[0]]) for net, seeds in by_layer.items()}
    for k, (name, alpha) in enumerate(zip(names, (1, 0.7, 0.4), strict=True)):
        for place, net in enumerate(counts):
            found, x = np.array(counts[net][k]), place + 0.27 * (k - 1)
            colour = PLAIN if net.startswith("plain") else RESIDUAL
            heights = 100 * found / sizes[net]
            axes.bar(x, heights.mean(), 0.25, color=colour, alpha=alpha)
            words = ", ".join(map(str, found))
            axes.text(x, heights.mean() + 2, words, rotation=90, ha="center", va="bottom")
        axes.bar(0, 0, color=PLAIN, alpha=alpha, label=name)
    axes.set_xticks(np.arange(len(counts)), [f"{net}\n{n} layers" for net, n in sizes.items()])
    axes.set(ylabel="layers standing still (%)", ylim=(0, 100))
    axes.legend(title="above each bar: number of layers, by seed", loc="upper left")
    net = max(counts, key=lambda net: np.mean(counts[net][1]) / sizes[net])
    axes.set_title(
        f"At step 1 no layer stands still; later {counts[net][1][0]} of {sizes[net]} do in {net}"
    )
    return figure


def equal_angles(errors):
    """Draw the error of the last steps under both rules: {(net, rule): errors of the seeds}."""
    figure = Figure(figsize=(7.8, 3.9))
    axes = figure.subplots()
    nets = list(dict.fromkeys(net for net, _ in errors))
    for shift, rule, alpha in ((-0.2, "SGD", 0.5), (0.2, "equal angles", 1)):
        for place, net in enumerate(nets):
            found = errors[net, rule]
            colour = PLAIN if net.startswith("plain") else RESIDUAL
            bars = axes.bar(place + shift, np.mean(found), 0.38, color=colour, alpha=alpha)
            if len(found) > 1:
                axes.plot([place + shift] * len(found), found, "_", color="black", ms=18)
            axes.bar_label(bars, [f"{rule}\n{np.mean(found):.0f} %"], fontsize=10, padding=9)
    axes.set_xticks(np.arange(len(nets)), nets)
    axes.set(ylabel="error on new pictures (%)", ylim=(0, 115))
    if max(map(len, errors.values())) == 1:
        axes.set_xlabel("one seed")
    axes.set_title("With nearly equal angles in all layers, plain-56 is still far behind")
    return figure


__all__ = [
    "HUES",
    "LIGHT",
    "begun_at_the_solution",
    "equal_angles",
    "gaps",
    "identities",
    "moving_average",
    "standing",
]
