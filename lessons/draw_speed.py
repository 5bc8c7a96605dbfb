"""Figures of lesson 8: a ladder of speeds and a roofline."""

import numpy as np
from matplotlib.figure import Figure
from style import LOOPS, NUMBA, NUMPY


def ladder(gflops):
    """Draw the speed of each way to compute a convolution, slowest first."""
    figure = Figure(figsize=(7.8, 3.4))
    axes = figure.subplots()
    steps = sorted(gflops.items(), key=lambda item: item[1])
    slowest, fastest = steps[0][1], steps[-1][1]
    for k, (name, rate) in enumerate(steps):
        colour = LOOPS if "loops, Python" in name else NUMPY if "NumPy" in name else NUMBA
        axes.barh(k, rate, color=colour, left=1e-4)
        shown = f"{rate:.2g}" if rate < 10 else f"{rate:.0f}"
        axes.text(rate * 1.25, k, f"{shown} GFLOP/s", va="center")
    axes.set_xscale("log")
    axes.set(
        xlim=(1e-3, fastest * 30),
        xlabel="billion multiplications and additions a second (GFLOP/s), logarithmic",
    )
    axes.set_yticks(range(len(steps)), [name for name, _ in steps])
    axes.set_title(f"The same layer, {float(f'{fastest / slowest:.2g}'):,.0f} times faster")
    return figure


def roofline(points, peak, bandwidth):
    """Draw speeds under the roof.

    Parameters
    ----------
    points : list of (op, is_compiled, operations per byte, GFLOP/s)
    peak, bandwidth : float
        GFLOP/s and GB/s.
    """
    figure = Figure(figsize=(7.8, 5.0))
    axes = figure.subplots()
    intensity = np.logspace(-1.5, 3, 100)
    axes.loglog(intensity, np.minimum(peak, intensity * bandwidth), color="black", lw=1.5)
    axes.text(1000, peak * 1.12, f"{peak:.0f} GFLOP/s", ha="right")
    axes.text(1.0, bandwidth * 1.3, f"{bandwidth:.0f} GB/s", ha="right")
    looks = {True: ("o", NUMBA, "compiled backend"), False: ("s", NUMPY, "NumPy backend")}
    for _, is_compiled, at, rate in points:
        marker, colour, _ = looks[is_compiled]
        axes.plot(at, rate, marker, color=colour, ms=8)
    beside = {"conv 16": "right", "conv 64": "left"}
    for name in dict.fromkeys(point[0] for point in points):
        above = name == "conv 32"  # its neighbours have their names below
        place = (max if above else min)(point[2:] for point in points if point[0] == name)
        shift, side = (0, 9 if above else -17), beside.get(name, "center")
        axes.annotate(name, place, shift, textcoords="offset points", ha=side)
    for marker, colour, label in looks.values():
        axes.plot([], [], marker, color=colour, ms=8, label=label)
    axes.legend(loc="lower right")
    rates = [rate for _, _, _, rate in points]
    axes.set(xlabel="operations per byte that must be moved", ylabel="GFLOP/s")
    axes.set_ylim(0.4 * min(rates), 2.5 * max(peak, *rates))
    axes.set_title("Convolutions are bound by arithmetic, batch norm and ReLU by memory")
    return figure
