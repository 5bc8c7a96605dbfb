"""What a gradient check says: a table where gradients agree, an error where they do not."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Literal

import numpy as np

Method = Literal["central", "complex"]


class GradientError(AssertionError):
    """A backward pass is wrong, or the check of it proves nothing.

    Attributes
    ----------
    kind : str
        "wrong", "shape", "nonfinite", "changed" (an input was changed), "vacuous", "kink" or "uncovered".
    op, argument : str
    index : tuple of int or None
    analytic, numeric : float or None
    """

    def __init__(
        self,
        kind: str,
        op: str,
        argument: str,
        message: str,
        index: tuple[int, ...] | None = None,
        analytic: float | None = None,
        numeric: float | None = None,
    ) -> None:
        self.kind, self.op, self.argument = kind, op, argument
        self.index, self.analytic, self.numeric = index, analytic, numeric
        super().__init__(f"{op}, {kind}: d{argument} {message}")


@dataclass(frozen=True)
class Row:
    """Worst element of one argument; errors are relative to the largest gradient of the argument."""

    argument: str
    shape: tuple[int, ...]
    checked: int
    index: tuple[int, ...]
    analytic: float
    numeric: float
    error: float


@dataclass(frozen=True, repr=False)
class Report:
    """What was checked and how well it agreed, a row for each argument."""

    op: str
    method: Method
    rows: tuple[Row, ...]

    @property
    def error(self) -> float:
        """Largest relative error of all arguments."""
        return max(row.error for row in self.rows)

    def _table(self) -> list[list[str]]:
        table = [
            [
                "gradient",
                "shape",
                "elements checked",
                "worst at",
                "analytic",
                "numeric",
                "relative error",
            ]
        ]
        for r in self.rows:
            values = [f"{r.analytic:.6g}", f"{r.numeric:.6g}", f"{r.error:.1e}"]
            table.append(
                [
                    f"d{r.argument}",
                    str(r.shape),
                    f"{r.checked} of {np.prod(r.shape)}",
                    str(r.index),
                    *values,
                ]
            )
        return table

    def __repr__(self) -> str:
        table = self._table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in table
        ]
        return "\n".join([f"{self.op}: backward agrees with {self.method} differences", *lines])

    def _repr_html_(self) -> str:
        def row(tag: str, cells: list[str]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

        head, *body = self._table()
        return (
            f"<table><caption>{html.escape(self.op)}: backward agrees with {self.method} differences</caption>"
            f"{row('th', head)}{''.join(row('td', cells) for cells in body)}</table>"
        )
