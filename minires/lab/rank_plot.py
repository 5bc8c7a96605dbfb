"""The speed of training by the number of ranks: measured, and predicted for more machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minires.lab.figure import (
    LEGEND_BELOW,
    Axes,
    Figure,
    check_format,
    drawing,
    finish,
    plain,
    save,
)

__all__ = ["Figure", "check_format", "message", "save", "speeds"]
LEAST = 0.1  # times the speed of one rank, below which the title gives no number
MEASURED: Any = {"color": "#2166ac", "marker": "o", "ms": 8, "lw": 2.2, "ls": "-", "zorder": 3}
PREDICTED: Any = {"color": "#b2182b", "marker": "o", "ms": 8, "lw": 1.6, "ls": "--", "mfc": "white"}
IDEAL: Any = {"color": "0.55", "lw": 1.2, "ls": ":"}


def speeds(
    net: str, measured: Mapping[int, float], predicted: Mapping[int, float], caption: str
) -> Figure:
    """Images per second against the number of ranks, both on logarithmic axes.

    Parameters
    ----------
    net : str
    measured : dict of int to float
        Images per second, by the number of ranks on one machine; one rank is among them.
    predicted : dict of int to float
        Those that a model predicts, by the number of machines; may be empty.
    caption : str
        What was measured, and where.
    """
    counts = sorted({*measured, *predicted})
    with drawing():
        figure = Figure(figsize=(7.2, 5.2), layout="constrained")
        axes = figure.subplots()
        ideal = [count * measured[1] for count in counts]
        axes.plot(counts, ideal, label="if ranks cost nothing", **IDEAL)
        if predicted:
            label = "prediction of a model: one machine for each rank"
            axes.plot(*_points(predicted), label=label, **PREDICTED)
        axes.plot(*_points(measured), label="measured: all ranks on this machine", **MEASURED)
        for number, speed in measured.items():
            _write(axes, number, speed, 9)
        for number, speed in predicted.items():
            if number > max(measured):
                _write(axes, number, speed, -20)
        axes.set(xscale="log", yscale="log", xlabel="ranks", ylabel="images per second")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.grid(axis="y", alpha=0.25)
        axes.margins(x=0.08, y=0.15)
        axes.legend(**LEGEND_BELOW, ncols=1)
        finish(figure, message(net, measured, predicted), caption)
    return figure


def message(net: str, measured: Mapping[int, float], predicted: Mapping[int, float]) -> str:
    """The title of the figure: what ranks gain, and what the model expects of more machines."""
    most = max(measured)
    said = f"{net}: {most} ranks train {_times(measured[most], measured[1])} as fast as one"
    if most == 1:
        said = f"{net}: one rank trains on {measured[1]:.0f} images per second"
    if not predicted:
        return said
    best = max(predicted, key=lambda number: predicted[number])
    last = max(predicted)
    said += f"; predicted: {_times(predicted[best], measured[1])} on {best} machines"
    if best != last:
        said += f", {_times(predicted[last], measured[1])} on {last}"
    return said


def _times(speed: float, one: float) -> str:
    return f"{speed / one:.2g} times" if speed >= LEAST * one else f"less than {LEAST} times"


def _points(speeds: Mapping[int, float]) -> tuple[list[int], list[float]]:
    numbers = sorted(speeds)
    return numbers, [speeds[number] for number in numbers]


def _write(axes: Axes, number: int, speed: float, above: int) -> None:
    """Write a speed some points above its place."""
    place: Any = {"textcoords": "offset points", "xytext": (0, above), "ha": "center"}
    place["bbox"] = {"fc": "white", "ec": "none", "pad": 0.5, "alpha": 0.85}
    axes.annotate(plain(f"{speed:.3g}"), (number, speed), **place)
