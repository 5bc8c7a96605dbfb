"""Arrays as kernels need them: contiguous arguments, aligned scratch memory, padded images."""

from __future__ import annotations

import numpy as np

from minires.ops.compiled.jit import inline
from minires.ops.compiled.simd import copy, lanes


def contiguous(a: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """Return `a` as kernels expect it, in native byte order: mostly `a` itself, else a copy."""
    dtype = (dtype or a.dtype).newbyteorder("=")
    return a if a.dtype == dtype and a.flags.carray else np.require(a, dtype, ["C", "A", "W"])


@inline
def scratch(size: int, like: np.ndarray) -> np.ndarray:
    """Uninitialised memory of the dtype of `like`, aligned so that no register crosses a line."""
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
