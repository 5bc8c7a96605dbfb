"""Convolution: forward, dx and dw from two register-tiled kernels.

In a zero-padded NHWC image the KW*C values under one row of a filter are contiguous, whatever C is.
So each loop reads *runs* of `run = KW*C` values and adds outer products to a tile that stays in
registers. Most convolutions of a ResNet, 3x3 at stride 1, go to `winograd`, which needs fewer
multiplications; others with many channels go to `blocked`, which reads each value less often.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minires.ops import checks
from minires.ops.compiled import blocked, winograd
from minires.ops.compiled.jit import inline, kernel
from minires.ops.compiled.register_tile import tile_load, tile_outer, tile_store, tile_zeros
from minires.ops.compiled.scratch import Kept, contiguous, once, pad_image
from minires.ops.compiled.shortcut import Ending
from minires.ops.compiled.simd import lane_count, lanes
from minires.ops.compiled.tuning import (
    BAND_PIXELS,
    PIECES,
    PIXEL_TILE,
    WEIGHT_TILE,
    many_channels,
    too_few_tiles,
    weight_chunks,
)
from minires.ops.geometry import Pair, channel_groups, pair

Array = np.ndarray
Cache = tuple

ONE_ROW = (0,)  # the height of a tile of one row


def _tile(most: int, K: int, dtype: np.dtype, sizes: Pair) -> tuple[int, tuple]:
    """Return K rounded up to whole vectors, and a tile of at most `most` rows that divides it."""
    rows, vectors = sizes
    total = -(-K // lane_count(dtype))  # vectors that hold K values
    if total % vectors:
        rows *= vectors
        vectors = 1
    return total * lane_count(dtype), ((0,) * (rows if rows <= most else 1), (0,) * vectors)


# ----------------------------------------------------------------------------------------- kernels


@inline
def _filter_pixels(
    padded: Array, source: tuple, panels: Array, k: int, y: Array, target: tuple, tile: tuple
) -> None:
    """Apply panel k of the filters to neighbouring windows, one for each row of the tile.

    `source` is (position of the first window in `padded`, stride to the next window), and `target`
    is (position of the first pixel in `y`, stride to the next pixel).
    """
    _, columns, C = padded.shape
    _, KH, run, block = panels.shape
    rows, vectors = tile
    first, stride = source
    sums = tile_zeros(y, rows, vectors)
    for p in range(KH):
        window = first + p * columns * C
        weight = (k * KH + p) * run * block
        for r in range(run):
            sums = tile_outer(sums, padded, window + r, stride, panels, weight + r * block)
    tile_store(sums, y, target[0], target[1])


@kernel
def _correlate(x: Array, panels: Array, y: Array, stride: tuple, offset: tuple, y_stride: tuple,
               y_offset: tuple, tile: tuple) -> None:  # fmt: skip
    """Correlate padded images with filters and write every y_stride-th pixel of y.

    y[n, y_offset + (i, j) * y_stride, :] = sum_pr xpad[n, i*SH + p, j*SW*C + r] panels[:, p, r, :]

    `panels` is (K / block, KH, run, block): the filters of one tile are contiguous.
    (SH, SW) = `stride`; (top, left) = `offset` is the position of x in xpad.
    """
    N, _, _, C = x.shape
    _, YH, YW, K = y.shape
    blocks, KH, run, block = panels.shape
    SH, SW = stride
    top, left = offset
    down, right = y_stride
    row, col = y_offset
    rows, vectors = tile
    OH = (YH - row + down - 1) // down
    OW = (YW - col + right - 1) // right
    share = (N * OH + PIECES - 1) // PIECES
    height = (min(share, OH) - 1) * SH + KH
    for piece in prange((N * OH + share - 1) // share):
        padded = np.zeros((height, (OW - 1) * SW + run // C, C), x.dtype)
        columns = padded.shape[1]
        begin = piece * share
        while begin < min(N * OH, (piece + 1) * share):  # once for each image
            n = begin // OH
            end = min(N * OH, (piece + 1) * share, (n + 1) * OH)
            pad_image(x, n, top - begin % OH * SH, left, padded)
            for k in range(blocks):
                for i in range(end - begin):
                    window = i * SH * columns * C
                    line = n * YH + row + (begin % OH + i) * down
                    pixel = (line * YW + col) * K + k * block
                    for first in range(0, OW, len(rows)):
                        j = min(first, OW - len(rows))  # the last tile may overlap the one before
                        source = (window + j * SW * C, SW * C)
                        target = (pixel + j * right * K, right * K)
                        _filter_pixels(padded, source, panels, k, y, target, (rows, vectors))
            begin = end


@inline
def _accumulate_band(padded: Array, source: int, stride: tuple, dy: Array, band: tuple, dw: Array,
                target: int, tile: tuple) -> None:  # fmt: skip
    """Add the products of a band of `dy` and the inputs of its windows to rows of `dw`.

    `band` is (position in dy, rows of pixels). `source` is a position in `padded`, `target` one in
    `dw`.
    """
    _, columns, C = padded.shape
    _, _, OW, K = dy.shape
    SH, SW = stride
    first, height = band
    sums = tile_load(dw, target, K, tile[0], tile[1])
    for i in range(height):
        for j in range(OW):
            value = source + (i * SH * columns + j * SW) * C
            sums = tile_outer(sums, padded, value, 1, dy, first + (i * OW + j) * K)
    tile_store(sums, dw, target, K)


@inline
def _accumulate_rows(padded: Array, part: tuple, stride: tuple, dy: Array, chunk: int, dw: Array,
                     tile: tuple) -> None:  # fmt: skip
    """Add the products of a padded image with rows of `dy` to a chunk of `dw`.

    (n, begin, end) = `part` are an image and its rows; `padded` begins at the window of the first.
    """
    _, columns, C = padded.shape
    _, OH, OW, K = dy.shape
    _, KH, run, _ = dw.shape
    n, begin, end = part
    rows, vectors = tile
    block = len(vectors) * len(lanes(dy))
    tiled = run - run % len(rows)
    band = max(1, BAND_PIXELS // OW)
    for start in range(begin, end, band):
        height = min(band, end - start)
        for k in range(0, K, block):
            pixels = (((n * OH + start) * OW) * K + k, height)
            for p in range(KH):
                source = ((start - begin) * stride[0] + p) * columns * C
                target = (chunk * KH + p) * run * K + k
                for r in range(0, tiled, len(rows)):
                    _accumulate_band(
                        padded, source + r, stride, dy, pixels, dw, target + r * K, tile
                    )
                for r in range(tiled, run):
                    single = (ONE_ROW, vectors)
                    _accumulate_band(
                        padded, source + r, stride, dy, pixels, dw, target + r * K, single
                    )


@kernel
def _filter_gradient(
    x: Array, dy: Array, dw: Array, stride: tuple, offset: tuple, tile: tuple
) -> None:
    """Write the gradient of the filters, one partial sum for each chunk of rows of images.

    dw[chunk, p, r, :] = sum_nij xpad[n, i*SH + p, j*SW*C + r] dy[n, i, j, :] over a chunk of (n, i)

    Chunks are whole images unless there are more chunks than images.
    """
    N, _, _, C = x.shape
    _, OH, OW, _ = dy.shape
    chunks, KH, run, _ = dw.shape
    SH, SW = stride
    top, left = offset
    rows, vectors = tile
    unit = OH if chunks <= N else 1
    units = N * OH // unit
    for chunk in prange(chunks):
        height = (min(OH, (units + chunks - 1) // chunks * unit) - 1) * SH + KH
        padded = np.zeros((height, (OW - 1) * SW + run // C, C), x.dtype)
        dw[chunk] = 0
        begin = units * chunk // chunks * unit
        last = units * (chunk + 1) // chunks * unit
        while begin < last:  # once for each image
            n = begin // OH
            end = min(last, (n + 1) * OH)
            pad_image(x, n, top - begin % OH * SH, left, padded)
            part = (n, begin % OH, begin % OH + end - begin)
            _accumulate_rows(padded, part, (SH, SW), dy, chunk, dw, (rows, vectors))
            begin = end


# -------------------------------------------------------------------------------------- one group


def correlate(x: Array, w: Array, y: Array, stride: Pair, offset: Pair, y_stride: Pair = (1, 1),
              y_offset: Pair = (0, 0), ending: Ending | None = None, kept: Kept | None = None
              ) -> None:  # fmt: skip
    """Correlate contiguous x and w, and write every y_stride-th pixel of y from y_offset on.

    An `ending` is applied to all of y. Filters in the order of the kernels are looked up in `kept`.
    """
    KH, KW, C, K = w.shape
    if (
        y_stride == (1, 1)
        and winograd.suits((KH, KW), stride, (C, K), x.dtype)
        and not too_few_tiles(winograd.tiles(y.shape), C, K)
    ):
        winograd.correlate(x, w, y, offset, ending, kept)
        return
    if many_channels(C, K):
        blocked.correlate(x, w, y, stride, offset, y_stride, y_offset)
    else:
        _correlate_few(x, w, y, (stride, offset, y_stride, y_offset), kept)
    if ending:
        ending.finish(y)


def _correlate_few(x: Array, w: Array, y: Array, window: tuple, kept: Kept | None) -> None:
    """Correlate arrays of few channels; `window` are strides and offsets, as in `correlate`."""
    stride, offset, y_stride, y_offset = window
    K = w.shape[3]
    pixels = y[:, y_offset[0] :: y_stride[0], y_offset[1] :: y_stride[1]]
    padded_K, tile = _tile(pixels.shape[2], K, x.dtype, PIXEL_TILE)
    block = len(tile[1]) * lane_count(x.dtype)
    panels = once(kept, f"panels of {block}", lambda: _panels(w, padded_K, block))
    if padded_K == K:
        _correlate(x, panels, y, stride, offset, y_stride, y_offset, tile)
    else:  # the last vector of each pixel is not full: compute extra filters and drop them
        extra = np.empty((*pixels.shape[:3], padded_K), x.dtype)
        _correlate(x, panels, extra, stride, offset, (1, 1), (0, 0), tile)
        pixels[...] = extra[..., :K]


def _panels(w: Array, padded_K: int, block: int) -> Array:
    """Return the filters of each tile side by side, (K / block, KH, run, block)."""
    KH, KW, C, K = w.shape
    panels = np.zeros((KH, KW * C, padded_K), w.dtype)
    panels[:, :, :K] = w.reshape(KH, KW * C, K)
    panels = panels.reshape(KH, KW * C, padded_K // block, block).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(panels)


def backward_input(
    dy: Array, shape: tuple[int, ...], w: Array, stride: int | Pair, pad: int | Pair
) -> Array:
    """Correlate dy with the filters, flipped along both axes, channels and filters transposed.

    With a stride, only every SH-th, SW-th weight contributes to the pixels (row + i*SH, col + j*SW)
    of dx. So there are SH * SW small correlations. One correlation with zeros inserted into dy
    would need SH * SW times as many multiplications.
    """
    SH, SW = pair(stride)
    PH, PW = pair(pad)
    dx = np.empty(shape, dy.dtype)
    for row in range(min(SH, shape[1])):
        for col in range(min(SW, shape[2])):
            # the first weights that contribute to these pixels
            p = (row + PH) % SH
            q = (col + PW) % SW
            if p < len(w) and q < w.shape[1]:
                flipped = blocked.flip(w, (p, q), (SH, SW))  # (.., .., K, C)
                top = len(flipped) - 1 - (row + PH - p) // SH
                left = flipped.shape[1] - 1 - (col + PW - q) // SW
                correlate(dy, flipped, dx, (1, 1), (top, left), (SH, SW), (row, col))
            else:
                dx[:, row::SH, col::SW] = 0
    return dx


def backward_weights(
    dy: Array, x: Array, shape: tuple[int, ...], stride: int | Pair, pad: int | Pair
) -> Array:
    """Sum the products of each chunk of rows, then the chunks in order.

    Any number of threads gives the same bits.
    """
    KH, KW, C, K = shape
    if winograd.suits((KH, KW), pair(stride), (C, K), x.dtype):
        return winograd.correlate_weights(x, dy, pair(pad))
    if many_channels(C, K):
        return blocked.correlate_weights(x, dy, shape, pair(stride), pair(pad))
    padded_K, tile = _tile(KW * C, K, dy.dtype, WEIGHT_TILE)
    if padded_K != K:
        dy = np.pad(dy, ((0, 0), (0, 0), (0, 0), (0, padded_K - K)))
    chunks = np.empty((weight_chunks(*dy.shape[:2]), KH, KW * C, padded_K), dy.dtype)
    _filter_gradient(x, dy, chunks, pair(stride), pair(pad), tile)
    return np.ascontiguousarray(chunks.sum(axis=0)[..., :K]).reshape(shape)


# -------------------------------------------------------------------------------------- public ops


def conv2d_forward(
    x: Array, w: Array, stride: int | Pair = 1, pad: int | Pair = 0, groups: int = 1
) -> tuple[Array, Cache]:
    """Copy one padded image at a time to scratch memory and compute tiles of pixels x filters."""
    shape = checks.conv2d(x, w, stride, pad, groups)
    x = contiguous(x)
    w = contiguous(w)
    return apply(x, w, shape, pair(stride), pair(pad), groups), (x, w, stride, pad)


def apply(x: Array, w: Array, shape: tuple, stride: Pair, pad: Pair, groups: int,
          ending: Ending | None = None, kept: Kept | None = None) -> Array:  # fmt: skip
    """Return y, of `shape`, for contiguous x and w that fit; see `correlate`."""
    if groups == 1:
        y = np.empty(shape, x.dtype)
        correlate(x, w, y, stride, pad, ending=ending, kept=kept)
        return y
    *pixels, K = shape
    parts = []
    for c, k in channel_groups(x.shape[3], K, groups):
        y = np.empty((*pixels, K // groups), x.dtype)
        correlate(contiguous(x[..., c]), contiguous(w[..., k]), y, stride, pad)
        parts.append(y)
    y = np.concatenate(parts, axis=-1)
    if ending:
        ending.finish(y)
    return y


def conv2d_backward(
    dy: Array, cache: Cache, input_gradient: bool = True
) -> tuple[Array | None, Array]:
    """Correlate dy with the flipped filters for dx, and x with dy for dw."""
    x, w, stride, pad = cache
    groups = checks.conv2d_backward(dy, cache)
    dy = contiguous(dy, x.dtype)
    dx, dw = [], []
    for c, k in channel_groups(x.shape[3], w.shape[3], groups):
        x_group, w_group, dy_group = (contiguous(a) for a in (x[..., c], w[..., k], dy[..., k]))
        if input_gradient:
            dx.append(backward_input(dy_group, x_group.shape, w_group, stride, pad))
        dw.append(backward_weights(dy_group, x_group, w_group.shape, stride, pad))
    return _join(dx) if input_gradient else None, _join(dw)


def _join(groups: list[Array]) -> Array:
    """Concatenate the channels or filters of all groups."""
    return groups[0] if len(groups) == 1 else np.concatenate(groups, axis=-1)
