"""What a task measures: names, units and directions, recorded with every run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Metric:
    """One number that a task measures in training and in evaluation.

    Attributes
    ----------
    name : str
        Such as "error"; metrics.jsonl holds it under this name, in evaluations as "train_error"
        and "test_error".
    unit : str
        Of the number as it is shown, such as "%".
    scale : float
        The number shown is `scale` times the number recorded.
    lower_is_better : bool
    fraction : bool
        A fraction of images, so that its sampling error is known: binomial.
    """

    name: str
    unit: str = ""
    scale: float = 1.0
    lower_is_better: bool = True
    fraction: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`; a TypeError if the values are others."""
        return cls(**values)


ERROR = Metric("error", "%", 100.0, fraction=True)
