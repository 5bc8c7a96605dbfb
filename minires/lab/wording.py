"""Words and numbers for a metric in tables, figures and messages."""

from __future__ import annotations

from collections.abc import Iterable

from minires.runs.metric import Metric


def number(metric: Metric, value: float) -> str:
    """A value without its unit: one decimal for percent, three digits otherwise."""
    return f"{value:.1f}" if metric.unit == "%" else f"{value:.3g}"


def amounts(metric: Metric, values: Iterable[float]) -> str:
    """Values with their unit: "30.0, 40.0 %"."""
    return _with_unit(", ".join(number(metric, value) for value in values), metric.unit)


def difference(metric: Metric, gap: float) -> str:
    """A difference with its unit: "30.0 points" for percent."""
    return _with_unit(number(metric, gap), difference_unit(metric))


def difference_unit(metric: Metric) -> str:
    """Unit of a difference: percentage points for percent."""
    return "points" if metric.unit == "%" else metric.unit


def column_head(metric: Metric, which: str) -> str:
    """Head of a column: "train error %"."""
    return _with_unit(f"{which} {metric.name}", metric.unit)


def axis_label(metric: Metric, when: str = "") -> str:
    """Label of an axis: "error at the end (%)", with a note if higher is better."""
    direction = "" if metric.lower_is_better else "higher is better"
    notes = ", ".join(filter(None, [metric.unit, direction]))
    name = _with_unit(metric.name, when)
    return f"{name} ({notes})" if notes else name


def _with_unit(text: str, unit: str) -> str:
    return f"{text} {unit}" if unit else text
