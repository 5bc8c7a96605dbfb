"""Metrics of a task: names, units and directions, recorded with every run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that float64 can hold; NaN and infinity are, true is not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, float) or abs(value) < 2**63


@dataclass(frozen=True)
class Metric:
    """A number that a task measures in training and in evaluation.

    Attributes
    ----------
    name : str
        Such as "error". metrics.jsonl holds it under this name, and in evaluations as
        "train_error" and "test_error".
    unit : str
        Unit of the number that is shown, such as "%".
    scale : float
        The number shown is `scale` times the number recorded.
    lower_is_better : bool
    fraction : bool
        Whether it is a fraction of images. Its sampling error is then known: it is binomial.
    """

    name: str
    unit: str = ""
    scale: float = 1.0
    lower_is_better: bool = True
    fraction: bool = False

    def reaches(self, value: float, target: float | None) -> bool:
        """Whether a recorded value is at least as good as a target; without a target, it is not."""
        if target is None:
            return False
        return value <= target if self.lower_is_better else value >= target

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`; a TypeError if it is not a metric."""
        metric = cls(**values)
        flags = (metric.lower_is_better, metric.fraction)
        texts = (metric.name, metric.unit)
        whole = all(isinstance(v, bool) for v in flags) and all(isinstance(v, str) for v in texts)
        if not whole or not metric.name:
            raise TypeError(f"{dict(values)} is not a metric")
        if not is_number(metric.scale) or not 0 < metric.scale < math.inf:
            raise TypeError(f"the scale of the metric {metric.name} is {metric.scale}")
        return metric


ERROR = Metric("error", "%", 100.0, fraction=True)
