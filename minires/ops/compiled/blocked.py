"""Convolution with many channels: a matrix product, one block of rows and columns at a time.

The windows of `w` (KH, KW, C, K) are rows of R = KH*KW*C values, and the filters are a matrix
(R, K). So y = rows @ w and dw = rows.T @ dy, as on the page `numpy_ops`. Neither the rows nor the
filters fit into a cache at once. A *piece* of work is a block of the result. It walks over the
common axis of the two matrices, copies a block of each to scratch memory, and multiplies them there
while they are in the cache. Pieces depend on the shapes alone, so any number of threads gives the
same bits. Goto & van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minires.ops.compiled.jit import inline, kernel
from minires.ops.compiled.register_tile import (
    tile_load,
    tile_outer,
    tile_store,
    tile_transpose,
    tile_zeros,
)
from minires.ops.compiled.scratch import scratch
from minires.ops.compiled.simd import copy, lane_count, lanes, load, store
from minires.ops.compiled.tuning import (
    DEPTH,
    FEW_CHANNELS,
    GRADIENT_PIXELS,
    GRADIENT_ROWS,
    PACKED,
    PIXEL_TILE,
    WEIGHT_TILE,
    blocks_of_pixels,
    gradient_blocks,
)
from minires.ops.geometry import Pair

Array = np.ndarray


# ------------------------------------------------------------------------------------------ copies


@inline
def _copy_windows(x: Array, window: tuple, pixels: tuple, part: tuple, rows: Array,
                  row: int) -> None:  # fmt: skip
    """Copy values r, ..., r + depth - 1 of the windows of neighbouring pixels to `rows`.

    (KW, SH, SW, top, left, OH, OW) = `window`, (first, count) = `pixels`, (r, depth) = `part`;
    a row of `rows` is `row` values long. Values outside the image are zero.
    """
    _, H, W, C = x.shape
    KW, SH, SW, top, left, OH, OW = window
    first, count = pixels
    r, depth = part
    for tap in range(r // C, (r + depth - 1) // C + 1):
        c = max(0, r - tap * C)
        length = min(C, r + depth - tap * C) - c
        target = tap * C + c - r
        n = first // (OH * OW)
        i = first // OW % OH
        j = first % OW
        for _ in range(count):
            h = i * SH + tap // KW - top
            v = j * SW + tap % KW - left
            if 0 <= h < H and 0 <= v < W:
                copy(x, ((n * H + h) * W + v) * C + c, rows, target, length)
            else:
                rows[target : target + length] = 0
            target += row
            j += 1
            if j == OW:
                j = 0
                i += 1
                if i == OH:
                    i = 0
                    n += 1


@inline
def _copy_panels(a: Array, first: int, stride: int, columns: int, panels: Array, place: int,
                 sizes: tuple) -> None:  # fmt: skip
    """Copy rows of a matrix to panels of `width` columns; columns of zeros fill the last one.

    Row i begins at a[first + i * stride], and the first panel at `place`. (count, width,
    panel_stride) = `sizes`: rows, columns of a panel, distance between panels.
    """
    count, width, panel_stride = sizes
    span = len(lanes(a))
    for i in range(count):
        for k in range(0, columns, width):
            source = first + i * stride + k
            target = place + k // width * panel_stride + i * width
            if k + width <= columns:
                for v in range(0, width, span):
                    store(panels, target + v, load(a, source + v))
            else:
                for v in range(width):
                    panels[target + v] = 0
                for v in range(columns - k):
                    panels[target + v] = a[source + v]


@inline
def _write_pixels(sums: Array, stride: int, pixels: tuple, y: Array, grid: tuple,
                  filters: tuple) -> None:  # fmt: skip
    """Copy sums to every (down, right)-th pixel of y, from (row, col) on, as `grid` says.

    (k, length) = `filters`: filters k, ..., k + length - 1.
    """
    _, YH, YW, K = y.shape
    down, right, row, col = grid
    k, length = filters
    OH = (YH - row + down - 1) // down
    OW = (YW - col + right - 1) // right
    first, count = pixels
    for m in range(count):
        pixel = first + m
        n = pixel // (OH * OW)
        i = row + pixel // OW % OH * down
        j = col + pixel % OW * right
        copy(sums, m * stride, y, ((n * YH + i) * YW + j) * K + k, length)


# ----------------------------------------------------------------------------------------- kernels


@inline
def _multiply(rows: Array, count: int, panels: Array, part: tuple, sums: Array, target: tuple,
              tile: tuple) -> None:  # fmt: skip
    """Add rows @ panel to sums, or write it.

    (panel, depth) = `part`: position in `panels`, rows of the panel. (first, stride, begins) =
    `target`.
    """
    first, stride, begins = target
    panel, depth = part
    height, vectors = tile
    width = len(vectors) * len(lanes(rows))
    for m in range(0, count, len(height)):
        place = first + m * stride
        total = tile_zeros(sums, height, vectors)
        if not begins:
            total = tile_load(sums, place, stride, height, vectors)
        for d in range(depth):
            total = tile_outer(total, rows, m * DEPTH + d, DEPTH, panels, panel + d * width)
        tile_store(total, sums, place, stride)


@kernel
def _correlate(x: Array, w: Array, y: Array, window: tuple, grid: tuple, sizes: tuple,
               tile: tuple) -> None:  # fmt: skip
    """Write y[n, i, j, :] = sum_r window(n, i, j)[r] w[r, :] for every pixel of a grid of y.

    (KW, SH, SW, top, left, OH, OW) = `window`; (down, right, row, col) = `grid` is the stride
    between pixels of y that are written, and the first of them; (pixels, filters) of a piece =
    `sizes`.
    """
    R, K = w.shape
    OH = window[5]
    OW = window[6]
    many, wide = sizes
    height, vectors = tile
    width = len(vectors) * len(lanes(x))
    total = x.shape[0] * OH * OW
    weights = w.reshape(-1)
    across = (K + wide - 1) // wide
    panels = scratch((K + width - 1) // width * width * R, x)
    for piece in prange((R + PACKED - 1) // PACKED):
        r = piece * PACKED
        block = (min(PACKED, R - r), width, R * width)
        _copy_panels(weights, r * K, K, K, panels, r * width, block)
    for piece in prange((total + many - 1) // many * across):
        first = piece // across * many
        k = piece % across * wide
        count = min(many, total - first)
        length = min(wide, K - k)
        rows = scratch((many + len(height)) * DEPTH, x)
        sums = scratch((many + len(height)) * wide, x)
        rows[count * DEPTH :] = 0  # a tile computes a few rows more than there are pixels
        for r in range(0, R, DEPTH):
            depth = min(DEPTH, R - r)
            _copy_windows(x, window, (first, count), (r, depth), rows, DEPTH)
            for q in range(0, length, width):
                part = (((k + q) // width * R + r) * width, depth)
                _multiply(rows, count, panels, part, sums, (q, wide, r == 0), (height, vectors))
        _write_pixels(sums, wide, (first, count), y, grid, (k, length))


@kernel
def _filter_gradient(x: Array, dy: Array, dw: Array, window: tuple, wide: int, tile: tuple) -> None:
    """Write dw[chunk, r, :] = sum of window(n, i, j)[r] dy[n, i, j, :] over a chunk of pixels."""
    chunks, R, K = dw.shape
    height, vectors = tile
    width = len(vectors) * len(lanes(x))
    total = dy.size // K
    gradients = dy.reshape(-1)
    across = (K + wide - 1) // wide
    down = (R + GRADIENT_ROWS - 1) // GRADIENT_ROWS
    for piece in prange(chunks * down * across):
        chunk = piece // (down * across)
        r = piece // across % down * GRADIENT_ROWS
        k = piece % across * wide
        depth = min(GRADIENT_ROWS, R - r)
        length = min(wide, K - k)
        end = total * (chunk + 1) // chunks
        rows = scratch(GRADIENT_PIXELS * GRADIENT_ROWS, x)
        panels = scratch(GRADIENT_PIXELS * wide, x)
        sums = scratch(GRADIENT_ROWS * wide, x)
        rows[:] = 0
        sums[:] = 0
        for first in range(total * chunk // chunks, end, GRADIENT_PIXELS):
            count = min(GRADIENT_PIXELS, end - first)
            _copy_windows(x, window, (first, count), (r, depth), rows, GRADIENT_ROWS)
            block = (count, width, GRADIENT_PIXELS * width)
            _copy_panels(gradients, first * K + k, K, length, panels, 0, block)
            for q in range(0, length, width):
                for a in range(0, depth, len(height)):
                    panel = q * GRADIENT_PIXELS
                    place = a * wide + q
                    products = tile_load(sums, place, wide, height, vectors)
                    for m in range(count):
                        value = m * GRADIENT_ROWS + a
                        products = tile_outer(products, rows, value, 1, panels, panel + m * width)
                    tile_store(products, sums, place, wide)
        for a in range(depth):
            copy(sums, a * wide, dw, (chunk * R + r + a) * K + k, length)


@kernel
def _flip(w: Array, taps: tuple, flipped: Array, square: tuple) -> None:
    """Write flipped[a, b, k, c] = w[p - a*SH, q - b*SW, c, k] with (p, q, SH, SW) = `taps`.

    The lanes of a vector divide C and K. `square` has one vector, and as many rows as lanes.
    """
    A, B, K, C = flipped.shape
    p, q, SH, SW = taps
    KW = w.shape[1]
    height, vectors = square
    span = len(height)
    across = C // span
    for piece in prange(A * B * across):
        a = piece // (B * across)
        b = piece // across % B
        c = piece % across * span
        source = (((p - a * SH) * KW + q - b * SW) * C + c) * K
        target = (a * B + b) * K * C + c
        for k in range(0, K, span):
            tile = tile_load(w, source + k, K, height, vectors)
            tile_store(tile_transpose(tile), flipped, target + k * C, C)


@kernel
def _add(parts: Array, total: Array) -> None:
    """Compute total = parts[0] + parts[1] + ..., in order."""
    chunks, size = parts.shape
    for piece in prange((size + SUMS - 1) // SUMS):
        first = piece * SUMS
        last = min(size, first + SUMS)
        total[first:last] = parts[0, first:last]
        for chunk in range(1, chunks):
            for i in range(first, last):
                total[i] += parts[chunk, i]


# -------------------------------------------------------------------------------- called by conv

SUMS = 2048  # values in a piece of a sum of arrays


def sum_of_chunks(parts: Array) -> Array:
    """Return the sum over the first axis, added in order."""
    total = np.empty(parts.shape[1:], parts.dtype)
    _add(parts.reshape(len(parts), -1), total.reshape(-1))
    return total


def flip(w: Array, first: Pair, stride: Pair) -> Array:
    """Every SH-th, SW-th weight from `first` on, in opposite order, channels and filters swapped.

    w (KH, KW, C, K) -> (.., .., K, C). NumPy serves few channels, and odd numbers of them.
    """
    (p, q), (SH, SW) = first, stride
    KH, KW, C, K = w.shape
    lanes_of_w = lane_count(w.dtype)
    if C * K <= FEW_CHANNELS or C % lanes_of_w or K % lanes_of_w:
        return np.ascontiguousarray(w[p::SH, q::SW][::-1, ::-1].swapaxes(2, 3))
    shape = len(range(p, KH, SH)), len(range(q, KW, SW))
    flipped = np.empty((*shape, K, C), w.dtype)
    last = p + (shape[0] - 1) * SH, q + (shape[1] - 1) * SW
    _flip(w, (*last, SH, SW), flipped, ((0,) * lanes_of_w, (0,)))
    return flipped


def correlate(x: Array, w: Array, y: Array, stride: Pair, offset: Pair, y_stride: Pair,
              y_offset: Pair) -> None:  # fmt: skip
    """Correlate x with w and write every y_stride-th pixel of y from y_offset on."""
    KH, KW, C, K = w.shape
    OH = -(-(y.shape[1] - y_offset[0]) // y_stride[0])
    OW = -(-(y.shape[2] - y_offset[1]) // y_stride[1])
    window = KW, *stride, *offset, OH, OW
    width = PIXEL_TILE[1] * lane_count(x.dtype)
    sizes = blocks_of_pixels(len(x) * OH * OW, K, width)
    tile = (0,) * PIXEL_TILE[0], (0,) * PIXEL_TILE[1]
    _correlate(x, w.reshape(KH * KW * C, K), y, window, (*y_stride, *y_offset), sizes, tile)


def correlate_weights(x: Array, dy: Array, shape: tuple[int, ...], stride: Pair, offset: Pair
                      ) -> Array:  # fmt: skip
    """Return the gradient of filters of `shape`."""
    KH, KW, C, K = shape
    R = KH * KW * C
    window = KW, *stride, *offset, *dy.shape[1:3]
    width = WEIGHT_TILE[1] * lane_count(x.dtype)
    chunks, wide = gradient_blocks(dy.size // K, R, K, width)
    dw = np.empty((chunks, R, K), x.dtype)
    tile = (0,) * WEIGHT_TILE[0], (0,) * WEIGHT_TILE[1]
    _filter_gradient(x, dy, dw, window, wide, tile)
    return (dw[0] if len(dw) == 1 else sum_of_chunks(dw)).reshape(shape)
