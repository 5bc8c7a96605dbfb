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
        About the gradient: "wrong", "shape", "nonfinite" (NaN or infinite), "uncovered" (missing).
        About the op: "changed" (it changed an argument), "unrepeatable" (a second call gives
        another result), "unsuitable" (the check does not apply to it). About the place: "vacuous"
        (the numeric gradient is 0), "kink" (the op has no derivative there), "precision" (rounding
        in forward hides the derivative).
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
        subject = f"d{argument} " if argument else ""
        super().__init__(f"{op}, {kind}: {subject}{message}")


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


@dataclass(frozen=True)
class Report:
    """A passed check: how well the gradients agreed, with a row for each argument.

    Attributes
    ----------
    op : str
    method : {"central", "complex"}
    rows : tuple of Row
    unchecked : tuple of str
        Targets: arguments for which backward returned None.
    """

    op: str
    method: Method
    rows: tuple[Row, ...]
    unchecked: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """Largest relative error of all arguments."""
        return max(row.error for row in self.rows)

    @property
    def _title(self) -> str:
        title = f"{self.op}: backward agrees with {self.method} differences"
        if self.unchecked:
            title += f"; not checked, as backward returned None: {', '.join(self.unchecked)}"
        return title

    def _table(self) -> list[list[str]]:
        return [COLUMNS, *map(_cells, self.rows)]

    def __repr__(self) -> str:
        table = self._table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in table
        ]
        return "\n".join([self._title, *lines])

    def _repr_html_(self) -> str:
        def row(tag: str, cells: list[str]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

        head, *body = self._table()
        rows = [row("th", head), *(row("td", cells) for cells in body)]
        return f"<table><caption>{html.escape(self._title)}</caption>{''.join(rows)}</table>"


def _cells(row: Row) -> list[str]:
    """Texts of one row of the table."""
    return [
        f"d{row.argument}",
        str(row.shape),
        f"{row.checked} of {np.prod(row.shape, dtype=int)}",
        str(row.index),
        f"{row.analytic:.6g}",
        f"{row.numeric:.6g}",
        f"{row.error:.1e}",
    ]
