"""Winograd's transforms of tiles in memory: load vectors, transform both directions, store.

Every vector holds neighbouring channels or filters. Positions are flat. `stride` is the distance
between the 36 elements of a transformed tile. `strides` are three distances: between those
elements, between tiles, and between the vectors of a tile's channels.
"""

from __future__ import annotations

import numpy as np

from minires.ops.compiled.jit import inline
from minires.ops.compiled.simd import lane_count, lanes, load, store
from minires.ops.compiled.tuning import PIXEL_TILE
from minires.ops.compiled.winograd_transforms import (
    filters,
    filters_gradient,
    gradient,
    image,
    output,
)

Array = np.ndarray

M = 4  # rows and columns of outputs in a tile
SIDE = M + 2  # rows and columns of inputs
PRODUCTS = SIDE * SIDE
WEIGHTS = 9  # of a filter, for each channel


def filter_tile(K: int, dtype: np.dtype) -> tuple[tuple, tuple]:
    """Sizes of a register tile that divides K filters."""
    rows, vectors = PIXEL_TILE
    return (0,) * rows, (0,) * (1 if K % (vectors * lane_count(dtype)) else vectors)


# ------------------------------------------------------------------------------- loads and stores


@inline
def _load3(x: Array, i: int, stride: int) -> tuple:
    """Load three vectors of x with a stride."""
    return load(x, i), load(x, i + stride), load(x, i + 2 * stride)


@inline
def _load4(x: Array, i: int, stride: int) -> tuple:
    """Load four vectors of x with a stride."""
    x0, x1, x2 = _load3(x, i, stride)
    return x0, x1, x2, load(x, i + 3 * stride)


@inline
def _load6(x: Array, i: int, stride: int) -> tuple:
    """Load six vectors of x with a stride."""
    x0, x1, x2, x3 = _load4(x, i, stride)
    return x0, x1, x2, x3, load(x, i + 4 * stride), load(x, i + 5 * stride)


@inline
def _store3(x: Array, i: int, stride: int, values: tuple) -> None:
    """Store three vectors to x with a stride."""
    store(x, i, values[0])
    store(x, i + stride, values[1])
    store(x, i + 2 * stride, values[2])


@inline
def _store4(x: Array, i: int, stride: int, values: tuple) -> None:
    """Store four vectors to x with a stride."""
    _store3(x, i, stride, (values[0], values[1], values[2]))
    store(x, i + 3 * stride, values[3])


@inline
def _store6(x: Array, i: int, stride: int, values: tuple) -> None:
    """Store six vectors to x with a stride."""
    _store4(x, i, stride, (values[0], values[1], values[2], values[3]))
    store(x, i + 4 * stride, values[4])
    store(x, i + 5 * stride, values[5])


@inline
def _store_pixels(y: Array, i: int, count: int, values: tuple) -> None:
    """Store the first `count` of four neighbouring pixels of y."""
    K = y.shape[3]
    store(y, i, values[0])
    if count > 1:
        store(y, i + K, values[1])
    if count > 2:
        store(y, i + 2 * K, values[2])
    if count > 3:
        store(y, i + 3 * K, values[3])


# ------------------------------------------------------------------------------------- transforms


@inline
def filter_transform(w: Array, c: int, k: int, u: Array, first: int, stride: int) -> None:
    """Write G g G^T to `u`, for one vector of filters from k on, channel c."""
    _, _, C, K = w.shape
    g = c * K + k
    line = 3 * C * K
    g0 = filters(*_load3(w, g, line))
    g1 = filters(*_load3(w, g + C * K, line))
    g2 = filters(*_load3(w, g + 2 * C * K, line))
    _store6(u, first, stride, filters(g0[0], g1[0], g2[0]))
    _store6(u, first + 6 * stride, stride, filters(g0[1], g1[1], g2[1]))
    _store6(u, first + 12 * stride, stride, filters(g0[2], g1[2], g2[2]))
    _store6(u, first + 18 * stride, stride, filters(g0[3], g1[3], g2[3]))
    _store6(u, first + 24 * stride, stride, filters(g0[4], g1[4], g2[4]))
    _store6(u, first + 30 * stride, stride, filters(g0[5], g1[5], g2[5]))


@inline
def data_transform(
    padded: Array, i: int, half: Array, v: Array, first: int, strides: tuple
) -> None:
    """Write B^T d B of row i of tiles. The stride between tiles is M pixels; they overlap by two.

    `half` holds B^T d, six vectors for each column, because a whole tile does not fit into the
    registers.
    """
    _, columns, C = padded.shape
    stride, tile_stride, block_stride = strides
    span = len(lanes(padded))
    for c in range(0, C, span):
        pixel = M * i * columns * C + c
        target = first + c // span * block_stride
        for j in range(columns):
            d = _load6(padded, pixel + j * C, columns * C)
            _store6(half, j * SIDE * span, span, image(*d))
        for j in range(columns // M):
            for row in range(SIDE):
                d = _load6(half, (M * j * SIDE + row) * span, SIDE * span)
                position = target + j * tile_stride + row * SIDE * stride
                _store6(v, position, stride, image(*d))


@inline
def output_transform(m: Array, source: tuple, half: Array, y: Array, target: tuple) -> None:
    """Write Y = A^T m A of a row of tiles; pixels beyond the image are dropped.

    (first, width, stride) = `source`: position of the row's products in `m`, number of filters,
    stride between the elements of a tile. (n, i, k) = `target`: image, row of tiles, first filter.
    """
    _, OH, OW, K = y.shape
    first, width, stride = source
    n, i, k = target
    span = len(lanes(y))
    for q in range(0, width, span):
        for j in range((OW + M - 1) // M):
            for column in range(SIDE):
                position = first + j * width + q + column * stride
                products = _load6(m, position, SIDE * stride)
                _store4(half, column * M * span, span, output(*products))
            for row in range(min(M, OH - M * i)):
                pixel = ((n * OH + M * i + row) * OW + M * j) * K + k + q
                products = _load6(half, row * span, M * span)
                _store_pixels(y, pixel, OW - M * j, output(*products))


@inline
def gradient_transform(whole: Array, i: int, d: Array, first: int, stride: int) -> None:
    """Write A dY A^T of row i of tiles; `whole` is an image of dy, padded to whole tiles.

    A loop as in `output_transform` is equally fast but changes the order of sums, and so the
    rounding.
    """
    _, columns, K = whole.shape
    line = columns * K
    row = SIDE * stride
    for k in range(0, K, len(lanes(whole))):
        for j in range(columns // M):
            pixel = M * i * line + M * j * K + k
            target = first + j * K + k
            y0 = gradient(*_load4(whole, pixel, K))
            y1 = gradient(*_load4(whole, pixel + line, K))
            y2 = gradient(*_load4(whole, pixel + 2 * line, K))
            y3 = gradient(*_load4(whole, pixel + 3 * line, K))
            _store6(d, target, row, gradient(y0[0], y1[0], y2[0], y3[0]))
            _store6(d, target + stride, row, gradient(y0[1], y1[1], y2[1], y3[1]))
            _store6(d, target + 2 * stride, row, gradient(y0[2], y1[2], y2[2], y3[2]))
            _store6(d, target + 3 * stride, row, gradient(y0[3], y1[3], y2[3], y3[3]))
            _store6(d, target + 4 * stride, row, gradient(y0[4], y1[4], y2[4], y3[4]))
            _store6(d, target + 5 * stride, row, gradient(y0[5], y1[5], y2[5], y3[5]))


@inline
def add_chunks(du: Array, c: int, m: Array) -> None:
    """Write the sum over chunks of channel c, added in order, to `m`, (36, K)."""
    chunks, _, C, K = du.shape
    for p in range(PRODUCTS):
        for k in range(0, K, len(lanes(du))):
            first = (p * C + c) * K + k
            total = load(du, first)
            for chunk in range(1, chunks):
                total = total + load(du, first + chunk * PRODUCTS * C * K)
            store(m, p * K + k, total)


@inline
def filter_gradient_transform(m: Array, source: tuple, dw: Array, target: tuple) -> None:
    """Write G^T m G to `dw`, for one vector of filters.

    (first, stride) = `source`: position in `m`, stride between the 36 products; likewise `target`
    for the nine weights in `dw`.
    """
    k, K = source
    m0 = filters_gradient(*_load6(m, k, SIDE * K))
    m1 = filters_gradient(*_load6(m, k + K, SIDE * K))
    m2 = filters_gradient(*_load6(m, k + 2 * K, SIDE * K))
    m3 = filters_gradient(*_load6(m, k + 3 * K, SIDE * K))
    m4 = filters_gradient(*_load6(m, k + 4 * K, SIDE * K))
    m5 = filters_gradient(*_load6(m, k + 5 * K, SIDE * K))
    dg, stride = target
    _store3(dw, dg, stride, filters_gradient(m0[0], m1[0], m2[0], m3[0], m4[0], m5[0]))
    dg += 3 * stride
    _store3(dw, dg, stride, filters_gradient(m0[1], m1[1], m2[1], m3[1], m4[1], m5[1]))
    dg += 3 * stride
    _store3(dw, dg, stride, filters_gradient(m0[2], m1[2], m2[2], m3[2], m4[2], m5[2]))
