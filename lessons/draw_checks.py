"""Figures of lesson 2: a chain of slopes, the error of a numerical derivative, a kink."""

import numpy as np
from matplotlib.figure import Figure
from style import HUES, MUTED, PLAIN, RESIDUAL


def chain(stations, steps, weights):
    """Draw values that run forward and slopes that run backward.

    Parameters
    ----------
    stations : list of (name, value, gradient)
    steps : list of str
        Words between the stations.
    weights : dict
        Number of the step -> (name, gradient) of its weight.
    """
    figure = Figure(figsize=(7.8, 2.9))
    axes = figure.subplots()
    axes.set(xlim=(-0.4, 8.5), ylim=(-1.5, 1.6))
    axes.axis("off")
    middle = {"ha": "center", "va": "center"}
    circle = {"boxstyle": "circle,pad=0.4", "fc": "white", "ec": "0.3"}
    for k, (name, value, gradient) in enumerate(stations):
        axes.text(2 * k, 0, name, fontsize=14, bbox=circle, **middle)
        axes.text(2 * k, 0.75, f"{value:g}", fontsize=14, color=RESIDUAL, **middle)
        axes.text(2 * k, -0.75, f"d{name} = {gradient:g}", fontsize=13, color=PLAIN, **middle)
    for k, name in enumerate(steps):
        ends = 2 * k + 0.4, 2 * k + 1.6
        for (start, end), height, colour in ((ends, 0.12, RESIDUAL), (ends[::-1], -0.12, PLAIN)):
            arrow = {"arrowstyle": "->", "color": colour}
            axes.annotate("", (end, height), (start, height), arrowprops=arrow)
        axes.text(2 * k + 1, 0.3, name, ha="center", fontsize=10, color="0.25")
    for k, (name, gradient) in weights.items():
        axes.text(2 * k + 1, -1.25, f"{name} = {gradient:g}", ha="center", color=PLAIN)
    axes.set_title("Values run forward (blue), slopes of the loss run backward (red)")
    return figure


def step_sizes(steps, curves, complex_curve):
    """Draw the error of a derivative against the step; `curves` has one for each dtype."""
    figure = Figure(figsize=(7.8, 4.8))
    axes = figure.subplots()
    looks = ((np.float32, HUES[1], "s", "left"), (np.float64, HUES[0], "o", "right"))
    for dtype, colour, marker, side in looks:
        axes.loglog(steps, curves[dtype], marker + "-", ms=4, color=colour)
        expected = np.finfo(dtype).eps ** (1 / 3)
        axes.axvline(expected, color=colour, ls=":", lw=1)
        name = f" eps^(1/3) of {dtype.__name__} "
        axes.text(expected, 1e2, name, color=colour, fontsize=10, ha=side)
    axes.loglog(steps, np.maximum(complex_curve, 1e-17), "^-", ms=4, color=HUES[2])
    axes.text(3e-13, 3e-2, "float32: rounding", color=HUES[1])
    axes.text(1e-13, 1e-8, "float64: rounding", color=HUES[0])
    axes.text(8e-3, 1e-10, "truncation", color=HUES[0])
    axes.text(1e-12, 7e-16, "complex step", color=HUES[2])
    axes.set(xlabel="step h", ylabel="relative error of the derivative", ylim=(1e-17, 1e3))
    axes.set_title(
        "Large steps err by truncation, small ones by rounding; a complex step may be tiny"
    )
    return figure


def kink(steps, slopes, distance):
    """Draw the measured slope of a ReLU against the step, near its kink."""
    figure = Figure(figsize=(7.8, 3.4))
    axes = figure.subplots()
    axes.semilogx(steps, slopes, "o-", ms=3, color=HUES[0])
    axes.axvline(distance, color=MUTED, ls=":")
    axes.text(distance * 1.15, 0.97, "distance to the kink", color="0.35", va="top")
    axes.axhline(1, color=MUTED, lw=0.8)
    axes.set(xlabel="step h", ylabel="slope by central difference", ylim=(0.4, 1.1))
    axes.set_title(
        "A step that crosses the kink of a ReLU measures half a slope; the true one is 1"
    )
    return figure
