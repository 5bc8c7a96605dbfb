"""Winograd's convolution with many channels: transform all tiles, then multiply blocks.

`winograd` transforms a few tiles and multiplies them by all filters. With hundreds of channels, the
transformed filters are many times larger than a cache, so that every few tiles would read them from
main memory. Here the transformed tiles are kept, and a *piece* of work is a block of the result:
some filters for some rows of tiles, or some channels and filters of dw. It transforms the filters
that it needs, a block of channels at a time, and never stores all of them. No two pieces add to the
same value, so dw needs no partial sums. Pieces depend on the shapes alone, so any number of threads
gives the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minires.ops.compiled.jit import inline, kernel
from minires.ops.compiled.register_tile import tile_load, tile_outer, tile_store, tile_zeros
from minires.ops.compiled.scratch import pad_part, scratch
from minires.ops.compiled.simd import lane_count, lanes, load, store
from minires.ops.compiled.tuning import (
    CHANNELS,
    GRADIENT_TILES,
    rows_kept,
    winograd_blocks,
    winograd_gradient_blocks,
)
from minires.ops.compiled.winograd_tiles import (
    PRODUCTS,
    SIDE,
    WEIGHTS,
    M,
    data_transform,
    filter_gradient_transform,
    filter_tile,
    filter_transform,
    gradient_transform,
    output_transform,
)
from minires.ops.geometry import Pair

Array = np.ndarray


# ----------------------------------------------------------------------------------- kernel helpers


@inline
def _transform_block(x: Array, row: int, offset: tuple, c: int, padded: Array, half: Array,
                     target: tuple, v: Array) -> None:  # fmt: skip
    """Write B^T d B of a row of tiles, for the channels from c on that `padded` has room for.

    (first, strides) = `target`, see `winograd_tiles`; (top, left) = `offset` is the position of x
    in xpad.
    """
    TH = (offset[2] + M - 1) // M
    corner = (row % TH * M - offset[0], -offset[1])
    pad_part(x, row // TH, corner, c, padded)
    data_transform(padded, 0, half, v, target[0], (target[1], target[2], target[3]))


@inline
def _multiply(v: Array, source: tuple, channels: int, u: Array, panel: int, m: Array,
              target: tuple, tile: tuple) -> None:  # fmt: skip
    """Add sum_c v[t, c] u[c, :] to m[t, :] for the tiles of a register tile, or write it.

    (position, block) = `source`: in `v` the stride between tiles is one vector, and the stride
    between the vectors of their channels is `block`. (first, stride, begins) = `target`.
    """
    rows, vectors = tile
    position, block = source
    first, stride, begins = target
    span = len(lanes(v))
    width = len(vectors) * span
    sums = tile_zeros(m, rows, vectors)
    if not begins:
        sums = tile_load(m, first, stride, rows, vectors)
    for start in range(0, channels, span):
        for c in range(span):  # the stride between tiles is a constant for the compiler
            sums = tile_outer(sums, v, position + c, span, u, panel + (start + c) * width)
        position += block
    tile_store(sums, m, first, stride)


@inline
def _accumulate(v: Array, d: Array, first: tuple, strides: tuple, tiles: int, m: Array,
                target: tuple, tile: tuple) -> None:  # fmt: skip
    """Add sum_t v[t, c] d[t, :] to rows c of m, or write it; (place, stride, begins) = `target`."""
    rows, vectors = tile
    place, stride, begins = target
    sums = tile_zeros(m, rows, vectors)
    if not begins:
        sums = tile_load(m, place, stride, rows, vectors)
    for t in range(tiles):
        sums = tile_outer(sums, v, first[0] + t * strides[0], 1, d, first[1] + t * strides[1])
    tile_store(sums, m, place, stride)


# ----------------------------------------------------------------------------------------- kernels


@kernel
def _winograd_correlate_blocked(x: Array, w: Array, y: Array, offset: tuple, sizes: tuple,
                                tile: tuple) -> None:  # fmt: skip
    """Write Y of all tiles; (top, left) = `offset` is the position of x in xpad.

    (kept, band, wide) = `sizes`: rows of tiles that are transformed before they are multiplied,
    rows of tiles and filters of a piece.
    """
    N, _, _, C = x.shape
    _, OH, OW, K = y.shape
    kept, band, wide = sizes
    rows, vectors = tile
    span = len(lanes(x))
    width = len(vectors) * span
    TH = (OH + M - 1) // M
    TW = (OW + M - 1) // M
    tiles = kept * TW + len(rows)
    block = tiles * span
    v_stride = C * tiles + 2 * span
    u_stride = CHANNELS * width + 2 * span
    m_stride = (band * TW + len(rows)) * wide + 2 * span
    v = scratch(PRODUCTS * v_stride, x)
    groups = (C + CHANNELS - 1) // CHANNELS
    across = K // wide
    for begin in range(0, N * TH, kept):
        end = min(N * TH, begin + kept)
        for piece in prange((end - begin) * groups):
            row = piece // groups
            c = piece % groups * CHANNELS
            few = min(CHANNELS, C - c)
            padded = scratch(SIDE * (M * TW + 2) * few, x).reshape(SIDE, M * TW + 2, few)
            half = scratch(SIDE * (M * TW + 2) * span, x)
            target = (c * tiles + row * TW * span, v_stride, span, block)
            _transform_block(x, begin + row, (offset[0], offset[1], OH), c, padded, half, target, v)
        for piece in prange((end - begin + band - 1) // band * across):
            first = piece // across * band
            last = min(end - begin, first + band)
            k = piece % across * wide
            u = scratch(wide // width * PRODUCTS * u_stride, x)
            m = scratch(PRODUCTS * m_stride, x)
            half = scratch(SIDE * (M * TW + 2) * span, x)
            for c in range(0, C, CHANNELS):
                few = min(CHANNELS, C - c)
                for i in range(few):
                    for q in range(0, wide, span):
                        place = q // width * PRODUCTS * u_stride + i * width + q % width
                        filter_transform(w, c + i, k + q, u, place, u_stride)
                for p in range(PRODUCTS):
                    for q in range(0, wide, width):
                        panel = (q // width * PRODUCTS + p) * u_stride
                        for t in range(0, (last - first) * TW, len(rows)):
                            source = (p * v_stride + c * tiles + (first * TW + t) * span, block)
                            sums = (p * m_stride + t * wide + q, wide, c == 0)
                            _multiply(v, source, few, u, panel, m, sums, (rows, vectors))
            for row in range(first, last):
                products = ((row - first) * TW * wide, wide, m_stride)
                image = (begin + row) // TH
                output_transform(m, products, half, y, (image, (begin + row) % TH, k))


@kernel
def _winograd_dw_blocked(x: Array, dy: Array, dw: Array, offset: tuple, sizes: tuple,
                         tile: tuple) -> None:  # fmt: skip
    """Write the gradient of the filters.

    (kept, channels, wide) = `sizes`: rows of tiles that are transformed before they are multiplied,
    channels and filters of a piece.
    """
    N, _, _, C = x.shape
    _, OH, OW, K = dy.shape
    kept, channels, wide = sizes
    rows, vectors = tile
    span = len(lanes(x))
    width = len(vectors) * span
    TH = (OH + M - 1) // M
    TW = (OW + M - 1) // M
    tiles = kept * TW
    v_stride = C * tiles + 2 * span
    d_stride = K * tiles + 2 * span
    m_stride = channels * wide + 2 * span
    v = scratch(PRODUCTS * v_stride, x)
    d = scratch(PRODUCTS * d_stride, x)
    groups = C // channels
    across = K // wide
    for begin in range(0, N * TH, kept):
        end = min(N * TH, begin + kept)
        for piece in prange((end - begin) * (groups + across)):
            row = piece // (groups + across)
            part = piece % (groups + across)
            columns = M * TW + 2
            if part < groups:
                c = part * channels
                padded = scratch(SIDE * columns * channels, x).reshape(SIDE, columns, channels)
                half = scratch(SIDE * columns * span, x)
                target = (c * tiles + row * TW * channels, v_stride, channels, span)
                _transform_block(
                    x, begin + row, (offset[0], offset[1], OH), c, padded, half, target, v
                )
            else:
                k = (part - groups) * wide
                whole = scratch(M * M * TW * wide, x).reshape(M, M * TW, wide)
                pad_part(dy, (begin + row) // TH, ((begin + row) % TH * M, 0), k, whole)
                gradient_transform(whole, 0, d, k * tiles + row * TW * wide, d_stride)
        for piece in prange(groups * across):
            c = piece // across * channels
            k = piece % across * wide
            m = scratch(PRODUCTS * m_stride, x)
            taps = scratch(WEIGHTS * span, x)
            for p in range(PRODUCTS):
                for t in range(0, (end - begin) * TW, GRADIENT_TILES):
                    count = min(GRADIENT_TILES, (end - begin) * TW - t)
                    for q in range(0, wide, width):
                        for i in range(0, channels, len(rows)):
                            sources = (
                                p * v_stride + c * tiles + t * channels + i,
                                p * d_stride + k * tiles + t * wide + q,
                            )
                            sums = (p * m_stride + i * wide + q, wide, t == 0)
                            _accumulate(
                                v, d, sources, (channels, wide), count, m, sums, (rows, vectors)
                            )
            for i in range(channels):
                for q in range(0, wide, span):
                    filter_gradient_transform(m, (i * wide + q, m_stride), taps, (0, span))
                    for tap in range(WEIGHTS):
                        place = (tap * C + c + i) * K + k + q
                        total = load(taps, tap * span)
                        if begin > 0:
                            total = total + load(dw, place)
                        store(dw, place, total)


# ------------------------------------------------------------------------------ called by winograd


def correlate(x: Array, w: Array, y: Array, offset: Pair) -> None:
    """Write the correlation of x with 3x3 filters to y; `offset` is the position of x in xpad."""
    C, K = w.shape[2:]
    TH, TW = (-(-side // M) for side in y.shape[1:3])
    height, vectors = filter_tile(K, x.dtype)
    kept = rows_kept(len(x) * TH, TW * C * PRODUCTS)
    blocks = winograd_blocks(kept, TW, K, len(vectors) * lane_count(x.dtype))
    _winograd_correlate_blocked(x, w, y, offset, (kept, *blocks), (height, vectors))


def correlate_weights(x: Array, dy: Array, offset: Pair) -> Array:
    """Return the gradient of 3x3 filters."""
    C = x.shape[3]
    K = dy.shape[3]
    TH, TW = (-(-side // M) for side in dy.shape[1:3])
    height, vectors = filter_tile(K, x.dtype)
    kept = rows_kept(len(x) * TH, TW * max(C, K) * PRODUCTS)
    blocks = winograd_gradient_blocks(C, K, len(vectors) * lane_count(x.dtype))
    dw = np.empty((3, 3, C, K), x.dtype)
    _winograd_dw_blocked(x, dy, dw, offset, (kept, *blocks), (height, vectors))
    return dw
