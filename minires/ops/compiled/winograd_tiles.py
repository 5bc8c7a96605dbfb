"""Tiles of images and filters in memory, and how Winograd's transforms pass over them.

Positions are flat. `stride` is the distance between the elements of a tile, and `strides` are those
between its elements, between tiles, and between the registers of a tile's channels.
"""

from __future__ import annotations

import numpy as np

from minires.ops.compiled.jit import inline
from minires.ops.compiled.simd import lanes, load_inside, store_inside
from minires.ops.compiled.winograd_transforms import (
    filters,
    filters_gradient,
    gradient,
    image,
    output,
)

Array = np.ndarray

M = 4  # rows and columns of outputs in a tile
SIDE = M + 2  # and of inputs
PRODUCTS = SIDE * SIDE


# ------------------------------------------------------------------------------ reading and writing


@inline
def _read3(x: Array, i: int, stride: int) -> tuple:
    """Three vectors of x, `stride` apart."""
    return load_inside(x, i), load_inside(x, i + stride), load_inside(x, i + 2 * stride)


@inline
def _read4(x: Array, i: int, stride: int) -> tuple:
    """Four vectors of x, `stride` apart."""
    x0, x1, x2 = _read3(x, i, stride)
    return x0, x1, x2, load_inside(x, i + 3 * stride)


@inline
def _read6(x: Array, i: int, stride: int) -> tuple:
    """Six vectors of x, `stride` apart."""
    x0, x1, x2, x3 = _read4(x, i, stride)
    return x0, x1, x2, x3, load_inside(x, i + 4 * stride), load_inside(x, i + 5 * stride)


@inline
def _write3(x: Array, i: int, stride: int, values: tuple) -> None:
    """Write three vectors to x, `stride` apart."""
    store_inside(x, i, values[0])
    store_inside(x, i + stride, values[1])
    store_inside(x, i + 2 * stride, values[2])


@inline
def _write4(x: Array, i: int, stride: int, values: tuple) -> None:
    """Write four vectors to x, `stride` apart."""
    _write3(x, i, stride, (values[0], values[1], values[2]))
    store_inside(x, i + 3 * stride, values[3])


@inline
def _write6(x: Array, i: int, stride: int, values: tuple) -> None:
    """Write six vectors to x, `stride` apart."""
    _write4(x, i, stride, (values[0], values[1], values[2], values[3]))
    store_inside(x, i + 4 * stride, values[4])
    store_inside(x, i + 5 * stride, values[5])


@inline
def _write_pixels(y: Array, i: int, count: int, values: tuple) -> None:
    """Write neighbouring pixels of y, the first `count` of four."""
    K = y.shape[3]
    store_inside(y, i, values[0])
    if count > 1:
        store_inside(y, i + K, values[1])
    if count > 2:
        store_inside(y, i + 2 * K, values[2])
    if count > 3:
        store_inside(y, i + 3 * K, values[3])


# ------------------------------------------------------------------------------------- transforms


@inline
def filter_points(w: Array, c: int, k: int, u: Array, first: int, stride: int) -> None:
    """Write G g G^T of a register of filters k, channel c, to `u`."""
    _, _, C, K = w.shape
    g = c * K + k
    line = 3 * C * K
    g0 = filters(*_read3(w, g, line))
    g1 = filters(*_read3(w, g + C * K, line))
    g2 = filters(*_read3(w, g + 2 * C * K, line))
    _write6(u, first, stride, filters(g0[0], g1[0], g2[0]))
    _write6(u, first + 6 * stride, stride, filters(g0[1], g1[1], g2[1]))
    _write6(u, first + 12 * stride, stride, filters(g0[2], g1[2], g2[2]))
    _write6(u, first + 18 * stride, stride, filters(g0[3], g1[3], g2[3]))
    _write6(u, first + 24 * stride, stride, filters(g0[4], g1[4], g2[4]))
    _write6(u, first + 30 * stride, stride, filters(g0[5], g1[5], g2[5]))


@inline
def image_tiles(padded: Array, i: int, half: Array, v: Array, first: int, strides: tuple) -> None:
    """Write B^T d B of the tiles in row i of tiles, which lie M pixels apart and overlap by two.

    `half` holds B^T d, six registers for each column: the processor has too few registers to keep a
    whole tile.
    """
    _, columns, C = padded.shape
    stride, tile_stride, block_stride = strides
    span = len(lanes(padded))
    for c in range(0, C, span):
        pixel = M * i * columns * C + c
        target = first + c // span * block_stride
        for j in range(columns):
            d = _read6(padded, pixel + j * C, columns * C)
            _write6(half, j * SIDE * span, span, image(*d))
        for j in range(columns // M):
            for row in range(SIDE):
                d = _read6(half, (M * j * SIDE + row) * span, SIDE * span)
                position = target + j * tile_stride + row * SIDE * stride
                _write6(v, position, stride, image(*d))


@inline
def output_tiles(m: Array, source: tuple, half: Array, y: Array, target: tuple) -> None:
    """Write Y = A^T m A of a row of tiles, as far as the image goes.

    (first, width, stride) = `source` is where the products of the row begin in `m`, how many
    filters they have, and the stride between a tile's elements. (n, i, k) = `target`: image, row of
    tiles, first filter.
    """
    _, OH, OW, K = y.shape
    first, width, stride = source
    n, i, k = target
    span = len(lanes(y))
    for q in range(0, width, span):
        for j in range((OW + M - 1) // M):
            for column in range(SIDE):
                position = first + j * width + q + column * stride
                products = _read6(m, position, SIDE * stride)
                _write4(half, column * M * span, span, output(*products))
            for row in range(min(M, OH - M * i)):
                pixel = ((n * OH + M * i + row) * OW + M * j) * K + k + q
                products = _read6(half, row * span, M * span)
                _write_pixels(y, pixel, OW - M * j, output(*products))


@inline
def gradient_tiles(whole: Array, i: int, d: Array, first: int, stride: int) -> None:
    """Write A dY A^T of row i of tiles of an image of dy that whole tiles cover.

    A loop like that of `output_tiles` is equally fast but changes the order of sums, hence the
    rounding.
    """
    _, columns, K = whole.shape
    line = columns * K
    row = SIDE * stride
    for k in range(0, K, len(lanes(whole))):
        for j in range(columns // M):
            pixel = M * i * line + M * j * K + k
            target = first + j * K + k
            y0 = gradient(*_read4(whole, pixel, K))
            y1 = gradient(*_read4(whole, pixel + line, K))
            y2 = gradient(*_read4(whole, pixel + 2 * line, K))
            y3 = gradient(*_read4(whole, pixel + 3 * line, K))
            _write6(d, target, row, gradient(y0[0], y1[0], y2[0], y3[0]))
            _write6(d, target + stride, row, gradient(y0[1], y1[1], y2[1], y3[1]))
            _write6(d, target + 2 * stride, row, gradient(y0[2], y1[2], y2[2], y3[2]))
            _write6(d, target + 3 * stride, row, gradient(y0[3], y1[3], y2[3], y3[3]))
            _write6(d, target + 4 * stride, row, gradient(y0[4], y1[4], y2[4], y3[4]))
            _write6(d, target + 5 * stride, row, gradient(y0[5], y1[5], y2[5], y3[5]))


@inline
def add_chunks(du: Array, c: int, m: Array) -> None:
    """Write the sums of channel c, all chunks added in order, to `m`, (36, K)."""
    chunks, _, C, K = du.shape
    for p in range(PRODUCTS):
        for k in range(0, K, len(lanes(du))):
            first = (p * C + c) * K + k
            total = load_inside(du, first)
            for chunk in range(1, chunks):
                total = total + load_inside(du, first + chunk * PRODUCTS * C * K)
            store_inside(m, p * K + k, total)


@inline
def filter_gradient(m: Array, k: int, dw: Array, c: int) -> None:
    """Write G^T m G of a register of filters k, channel c."""
    _, _, C, K = dw.shape
    m0 = filters_gradient(*_read6(m, k, SIDE * K))
    m1 = filters_gradient(*_read6(m, k + K, SIDE * K))
    m2 = filters_gradient(*_read6(m, k + 2 * K, SIDE * K))
    m3 = filters_gradient(*_read6(m, k + 3 * K, SIDE * K))
    m4 = filters_gradient(*_read6(m, k + 4 * K, SIDE * K))
    m5 = filters_gradient(*_read6(m, k + 5 * K, SIDE * K))
    dg = c * K + k
    stride = C * K
    _write3(dw, dg, stride, filters_gradient(m0[0], m1[0], m2[0], m3[0], m4[0], m5[0]))
    dg += 3 * stride
    _write3(dw, dg, stride, filters_gradient(m0[1], m1[1], m2[1], m3[1], m4[1], m5[1]))
    dg += 3 * stride
    _write3(dw, dg, stride, filters_gradient(m0[2], m1[2], m2[2], m3[2], m4[2], m5[2]))
