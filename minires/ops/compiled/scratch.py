"""Memory for kernels: contiguous arguments, filters to keep, scratch memory, padded images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minires.ops.compiled.jit import inline
from minires.ops.compiled.simd import copy, lanes, load, store


def contiguous(a: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """Return `a` if it is C-contiguous, aligned, writeable and in native byte order, else a copy.

    With `dtype`, the copy is also of that dtype.
    """
    dtype = dtype or a.dtype
    if type(a) is np.ndarray and a.flags.carray and a.dtype == dtype and dtype.isnative:
        return a
    return np.require(np.asarray(a), dtype.newbyteorder("="), ["C", "A", "W"])


Kept = dict[str, np.ndarray]  # the filters of one convolution, as its kernels read them


def once(kept: Kept | None, way: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return what `make` returns; with `kept`, call it once for each way of convolving."""
    if kept is None:
        return make()
    if way not in kept:
        kept[way] = make()
    return kept[way]


@inline
def scratch(size: int, like: np.ndarray) -> np.ndarray:
    """Uninitialised memory of the dtype of `like`, aligned to the size of a vector."""
    memory = np.empty(size + len(lanes(like)), like.dtype)
    first = -(memory.ctypes.data // memory.itemsize) % len(lanes(like))
    return memory[first : first + size]


@inline
def pad_image(x: np.ndarray, n: int, top: int, left: int, padded: np.ndarray) -> None:
    """Copy image n so that it begins at (top, left) of `padded`; a negative offset crops.

    Rows above and below the image become zero. Columns beside it stay as they are.
    """
    _, H, W, C = x.shape
    rows, columns, _ = padded.shape
    first = max(0, left)
    last = max(0, left, min(columns, left + W))
    for i in range(rows):
        if 0 <= i - top < H:
            source = ((n * H + i - top) * W + first - left) * C
            copy(x, source, padded, (i * columns + first) * C, (last - first) * C)
        else:
            padded[i] = 0


@inline
def pad_part(x: np.ndarray, n: int, offset: tuple, c: int, padded: np.ndarray) -> None:
    """Copy a part of image n, from (row, column) = `offset` on, and from channel c on.

    Values outside the image are zero. A pixel of `padded` has a whole number of vectors.
    """
    _, H, W, C = x.shape
    rows, columns, channels = padded.shape
    flat = padded.reshape(-1)
    for i in range(rows):
        h = offset[0] + i
        for j in range(columns):
            v = offset[1] + j
            target = (i * columns + j) * channels
            if 0 <= h < H and 0 <= v < W:
                source = ((n * H + h) * W + v) * C + c
                for k in range(0, channels, len(lanes(x))):
                    store(flat, target + k, load(x, source + k))
            else:
                flat[target : target + channels] = 0
