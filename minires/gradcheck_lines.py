"""Straight lines through an argument: a gradient check follows the output along them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Line:
    """A straight line through an argument `a`: along one element, or along a direction v.

    Attributes
    ----------
    name : str
    a : ndarray
    index : int or None
        Number of the element; None for a direction.
    v : ndarray or None
        The direction, flat; None for an element.
    scale : float
        Typical size of the numbers that move: steps are small parts of it.
    """

    name: str
    a: Array
    index: int | None
    v: Array | None
    scale: float

    def point(self, t: complex) -> Array:
        """Return a copy of the argument, moved by t along the line."""
        if self.v is not None:
            return self.a + t * self.v.reshape(self.a.shape)
        moved = self.a.astype(np.result_type(self.a, t))
        moved.reshape(-1)[self.index] += t
        return moved

    def along(self, gradient: Array) -> float:
        """Return the slope that a flat gradient predicts along the line."""
        return float(gradient[self.index] if self.v is None else gradient @ self.v)

    @property
    def length(self) -> float:
        """Length of the direction."""
        return 1.0 if self.v is None else float(np.linalg.norm(self.v))

    @property
    def direction(self) -> Array:
        """The direction v of a line that does not follow a single element."""
        assert self.v is not None
        return self.v

    @property
    def where(self) -> str:
        """The place in words."""
        return "along a random direction" if self.index is None else f"near {self.place}"

    @property
    def place(self) -> tuple[int, ...] | None:
        """Index of the element; None for a direction."""
        return None if self.index is None else index_of(self.index, self.a.shape)


def index_of(i: int | np.integer, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Index of element number i of an array of this shape."""
    return tuple(map(int, np.unravel_index(int(i), shape)))


def power_of_2(x: float) -> float:
    """Largest power of 2 up to x."""
    return float(2.0 ** np.floor(np.log2(x)))


def norm(x: Array) -> float:
    """Euclidean norm, also where squares would overflow or underflow."""
    largest = float(np.abs(x).max())
    if largest == 0 or not np.isfinite(largest):
        return largest
    return largest * float(np.linalg.norm(x / largest))
