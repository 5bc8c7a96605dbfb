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
def _transform_image(x: Array, row: int, image: tuple, part: tuple, v: Array, target: tuple
                     ) -> None:  # fmt: skip
    """Write B^T d B of a row of tiles, for some channels.

    (top, left, TH, TW) = `image`: position of x in xpad, rows and columns of tiles. (c, channels) =
    `part`. (first, strides) = `target`, see `winograd_tiles`.
    """
    top, left, TH, TW = image
    c, channels = part
    span = len(lanes(x))
    padded = scratch(SIDE * (M * TW + 2) * channels, x).reshape(SIDE, M * TW + 2, channels)
    half = scratch(SIDE * (M * TW + 2) * span, x)
    pad_part(x, row // TH, (row % TH * M - top, -left), c, padded)
    data_transform(padded, 0, half, v, target[0], target[1])


@inline
def _transform_gradient(dy: Array, row: int, image: tuple, part: tuple, d: Array, first: int,
                        stride: int) -> None:  # fmt: skip
    """Write A dY A^T of a row of tiles, for some filters; arguments as `_transform_image`."""
    _, _, TH, TW = image
    k, wide = part
    whole = scratch(M * M * TW * wide, dy).reshape(M, M * TW, wide)
    pad_part(dy, row // TH, (row % TH * M, 0), k, whole)
    gradient_transform(whole, 0, d, first, stride)


@inline
def _transform_filters(w: Array, channels: tuple, filters: tuple, u: Array, width: int, stride: int
                       ) -> None:  # fmt: skip
    """Write G g G^T of a block of filters, (filters / width, 36, channels, width).

    (c, few) = `channels`, (k, wide) = `filters`.
    """
    c, few = channels
    k, wide = filters
    for i in range(few):
        for q in range(0, wide, len(lanes(w))):
            place = q // width * PRODUCTS * stride + i * width + q % width
            filter_transform(w, c + i, k + q, u, place, stride)


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
def _multiply_block(v: Array, source: tuple, channels: int, u: Array, stride: int, m: Array,
                    target: tuple, tile: tuple) -> None:  # fmt: skip
    """Add all 36 products of a block of tiles and filters to m, or write them.

    (first, v_stride, block) = `source`, (tiles, wide, m_stride, begins) = `target`.
    """
    rows, vectors = tile
    first, v_stride, block = source
    tiles, wide, m_stride, begins = target
    span = len(lanes(v))
    width = len(vectors) * span
    for p in range(PRODUCTS):
        for q in range(0, wide, width):
            panel = (q // width * PRODUCTS + p) * stride
            for t in range(0, tiles, len(rows)):
                place = (first + p * v_stride + t * span, block)
                sums = (p * m_stride + t * wide + q, wide, begins)
                _multiply(v, place, channels, u, panel, m, sums, tile)


@inline
def _write_outputs(m: Array, stride: int, band: tuple, filters: tuple, y: Array) -> None:
    """Write A^T m A of rows of tiles; (first, last, TH, TW) = `band`, (k, wide) = `filters`."""
    first, last, TH, TW = band
    k, wide = filters
    half = scratch(SIDE * M * len(lanes(m)), m)
    for row in range(first, last):
        products = ((row - first) * TW * wide, wide, stride)
        output_transform(m, products, half, y, (row // TH, row % TH, k))


@inline
def _accumulate(v: Array, d: Array, first: tuple, sizes: tuple, m: Array, target: tuple,
                tile: tuple) -> None:  # fmt: skip
    """Add sum_t v[t, c] d[t, :] to rows c of m, or write it.

    (tiles, channels, wide) = `sizes`; (place, begins) = `target`.
    """
    rows, vectors = tile
    tiles, channels, wide = sizes
    place, begins = target
    for k in range(0, wide, len(vectors) * len(lanes(v))):
        for c in range(0, channels, len(rows)):
            at = place + c * wide + k
            sums = tile_zeros(m, rows, vectors)
            if not begins:
                sums = tile_load(m, at, wide, rows, vectors)
            for t in range(tiles):
                value = first[0] + t * channels + c
                sums = tile_outer(sums, v, value, 1, d, first[1] + t * wide + k)
            tile_store(sums, m, at, wide)


@inline
def _accumulate_block(v: Array, d: Array, first: tuple, strides: tuple, sizes: tuple, m: Array,
                      tile: tuple) -> None:  # fmt: skip
    """Write all 36 sums over tiles of a block of channels and filters; sizes as `_accumulate`."""
    tiles, channels, wide = sizes
    v_stride, d_stride, m_stride = strides
    for p in range(PRODUCTS):
        for t in range(0, tiles, GRADIENT_TILES):
            first_v = first[0] + p * v_stride + t * channels
            first_d = first[1] + p * d_stride + t * wide
            part = (min(GRADIENT_TILES, tiles - t), channels, wide)
            _accumulate(v, d, (first_v, first_d), part, m, (p * m_stride, t == 0), tile)


@inline
def _write_filters(m: Array, stride: int, sizes: tuple, dw: Array, first: tuple, adds: bool
                   ) -> None:  # fmt: skip
    """Write G^T m G, or add it, to channels c, ... and filters k, ... of dw; (c, k) = `first`."""
    channels, wide = sizes
    c, k = first
    _, _, C, K = dw.shape
    span = len(lanes(m))
    taps = scratch(WEIGHTS * span, m)
    for i in range(channels):
        for q in range(0, wide, span):
            filter_gradient_transform(m, (i * wide + q, stride), taps, (0, span))
            for tap in range(WEIGHTS):
                place = (tap * C + c + i) * K + k + q
                total = load(taps, tap * span)
                if adds:
                    total = total + load(dw, place)
                store(dw, place, total)


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
    image = (offset[0], offset[1], TH, TW)
    for begin in range(0, N * TH, kept):
        end = min(N * TH, begin + kept)
        for piece in prange((end - begin) * groups):
            row = piece // groups
            c = piece % groups * CHANNELS
            target = (c * tiles + row * TW * span, (v_stride, span, block))
            _transform_image(x, begin + row, image, (c, min(CHANNELS, C - c)), v, target)
        for piece in prange((end - begin + band - 1) // band * across):
            first = piece // across * band
            last = min(end - begin, first + band)
            k = piece % across * wide
            u = scratch(wide // width * PRODUCTS * u_stride, x)
            m = scratch(PRODUCTS * m_stride, x)
            for c in range(0, C, CHANNELS):
                few = min(CHANNELS, C - c)
                _transform_filters(w, (c, few), (k, wide), u, width, u_stride)
                source = (c * tiles + first * TW * span, v_stride, block)
                products = ((last - first) * TW, wide, m_stride, c == 0)
                _multiply_block(v, source, few, u, u_stride, m, products, (rows, vectors))
            rows_of_tiles = (begin + first, begin + last, TH, TW)
            _write_outputs(m, m_stride, rows_of_tiles, (k, wide), y)


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
    image = (offset[0], offset[1], TH, TW)
    for begin in range(0, N * TH, kept):
        end = min(N * TH, begin + kept)
        for piece in prange((end - begin) * (groups + across)):
            row = piece // (groups + across)
            part = piece % (groups + across)
            if part < groups:
                c = part * channels
                target = (c * tiles + row * TW * channels, (v_stride, channels, span))
                _transform_image(x, begin + row, image, (c, channels), v, target)
            else:
                k = (part - groups) * wide
                first = k * tiles + row * TW * wide
                _transform_gradient(dy, begin + row, image, (k, wide), d, first, d_stride)
        for piece in prange(groups * across):
            c = piece // across * channels
            k = piece % across * wide
            m = scratch(PRODUCTS * m_stride, x)
            block = ((end - begin) * TW, channels, wide)
            strides = (v_stride, d_stride, m_stride)
            _accumulate_block(v, d, (c * tiles, k * tiles), strides, block, m, (rows, vectors))
            _write_filters(m, m_stride, (channels, wide), dw, (c, k), begin > 0)


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
