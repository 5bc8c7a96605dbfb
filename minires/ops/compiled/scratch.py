"""Memory for kernels: contiguous arguments, aligned scratch memory, padded images."""

from __future__ import annotations

import numpy as np

from minires.ops.compiled.jit import inline
from minires.ops.compiled.simd import copy, lanes


def contiguous(a: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """Return `a` if it is C-contiguous, aligned, writeable and in native byte order, else a copy.

    With `dtype`, the copy is also of that dtype.
    """
    dtype = (dtype or a.dtype).newbyteorder("=")
    if type(a) is np.ndarray and a.dtype == dtype and a.flags.carray:
        return a
    return np.require(np.asarray(a), dtype, ["C", "A", "W"])


@inline
def scratch(size: int, like: np.ndarray) -> np.ndarray:
    """Uninitialised memory of the dtype of `like`, aligned to the size of a vector."""
    memory = np.empty(size + len(lanes(like)), like.dtype)
    first = -(memory.ctypes.data // memory.itemsize) % len(lanes(like))
    return memory[first : first + size]


@inline
def pad_image(x: np.ndarray, n: int, top: int, left: int, padded: np.ndarray) -> None:
    """Copy image n so that it begins at (top, left) of `padded`; a negative offset crops."""
    _, H, W, C = x.shape
    rows, columns, _ = padded.shape
    first = max(0, left)
    last = max(0, left, min(columns, left + W))
    for i in range(max(0, top), min(rows, top + H)):
        source = ((n * H + i - top) * W + first - left) * C
        copy(x, source, padded, (i * columns + first) * C, (last - first) * C)
