"""The result of a gradient check: a table if the gradients agree, an error if they do not."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Literal

import numpy as np

Method = Literal["central", "complex"]
COLUMNS = [
    "gradient",
    "shape",
    "elements checked",
    "worst at",
    "analytic",
    "numeric",
    "relative error",
]


class GradientError(AssertionError):
    """A backward pass is wrong, or the check of it proves nothing.

    Attributes
    ----------
    kind : str
        "wrong", "shape", "nonfinite", "changed" (an input was changed), "vacuous", "kink" or
        "uncovered".
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
    """Worst element of one argument; its error is relative to the argument's largest gradient."""

    argument: str
    shape: tuple[int, ...]
    checked: int
    index: tuple[int, ...]
    analytic: float
    numeric: float
    error: float


@dataclass(frozen=True, repr=False)
class Report:
    """A passed check: how well the gradients agreed, with a row for each argument."""

    op: str
    method: Method
    rows: tuple[Row, ...]

    @property
    def error(self) -> float:
        """Largest relative error of all arguments."""
        return max(row.error for row in self.rows)

    def _table(self) -> list[list[str]]:
        return [COLUMNS, *map(_cells, self.rows)]

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
        title = f"{html.escape(self.op)}: backward agrees with {self.method} differences"
        rows = [row("th", head), *(row("td", cells) for cells in body)]
        return f"<table><caption>{title}</caption>{''.join(rows)}</table>"


def _cells(row: Row) -> list[str]:
    """Texts of one row of the table."""
    return [
        f"d{row.argument}",
        str(row.shape),
        f"{row.checked} of {np.prod(row.shape)}",
        str(row.index),
        f"{row.analytic:.6g}",
        f"{row.numeric:.6g}",
        f"{row.error:.1e}",
    ]
