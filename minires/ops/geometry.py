"""Geometry of windows and channel groups, shared by the backends."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
Cache = tuple  # what a forward hands to its backward
Pair = tuple[int, int]
Size = int | Pair  # one number for rows and columns, or one for each


def pair(value: int | Pair) -> Pair:
    """Return `value` as (rows, columns): an int stands for both."""
    rows, columns = value if isinstance(value, (tuple, list)) else (value, value)
    return int(rows), int(columns)


def output_size(size: int, kernel: int, stride: int, pad: int) -> int:
    """Return how many windows fit along one axis: (size + 2 pad - kernel) // stride + 1."""
    return (size + 2 * pad - kernel) // stride + 1


def output_shape(x: Array, KH: int, KW: int, stride: Size, pad: Size) -> Pair:
    """Return (OH, OW): how many KH x KW windows fit into x (N, H, W, C), by row and by column."""
    SH, SW = pair(stride)
    PH, PW = pair(pad)
    _, H, W, _ = x.shape
    return output_size(H, KH, SH, PH), output_size(W, KW, SW, PW)


def channel_groups(C: int, K: int, groups: int) -> list[tuple[slice, slice]]:
    """Return each group's slice of the channels and slice of the filters."""
    c = C // groups  # channels in a group
    k = K // groups  # filters in a group
    return [(slice(g * c, g * c + c), slice(g * k, g * k + k)) for g in range(groups)]
