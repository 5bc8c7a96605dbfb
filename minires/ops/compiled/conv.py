"""Convolution, compiled: three passes that are two loops over register tiles.

In a zero-padded NHWC image the KW*C values under one row of the kernel are neighbours, whatever C is. So each of the
two kernels walks over *runs* of `run = KW*C` values and adds outer products to a tile that never leaves the registers.
Most of a ResNet, 3x3 at stride 1, goes to `winograd`, whose tiles do the same with fewer multiplications.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minires.ops import checks
from minires.ops.compiled import winograd
from minires.ops.compiled.jit import inner, kernel
from minires.ops.compiled.simd import (
    ONE,
    contiguous,
    lanes,
    pad_image,
    register,
    tile_load,
    tile_outer,
    tile_store,
    tile_zeros,
)
from minires.ops.compiled.tuning import IMAGES, PIXEL_TILE, VECTOR_BYTES, WEIGHT_CHUNKS

Array = np.ndarray
Cache = tuple

WEIGHT_TILE = {16: (6, 2), 32: (6, 2), 64: (12, 2)}[
    VECTOR_BYTES
]  # 32 bytes: 6x2 0.88 of a matrix product, 4x2 0.7
BAND_PIXELS = 128  # output pixels that every weight tile reads in turn while they are near; 32-4096 are within 10 %


def _tile(most: int, K: int, dtype: np.dtype, rows: int, vectors: int) -> tuple[int, tuple, tuple]:
    """Return K rounded up to whole registers, and the sizes of a tile that fits it and `most` rows."""
    registers = -(-K // lanes(dtype))
    if registers % vectors:
        rows, vectors = rows * vectors, 1
    return registers * lanes(dtype), (0,) * (rows if rows <= most else 1), (0,) * vectors


# ------------------------------------------------------------------------------------------------------------- kernels


@inner
def _filter_pixels(padded: Array, corner: int, step: int, panels: Array, k: int, y: Array, at: int, apart: int,
                   rows: tuple, vectors: tuple) -> None:  # fmt: skip
    """Apply one panel of filters to len(rows) neighbouring windows, `step` apart in `padded` and `apart` in `y`."""
    _, columns, C = padded.shape
    _, KH, run, block = panels.shape
    tile = tile_zeros(y, rows, vectors)
    for p in range(KH):
        window, weight = corner + p * columns * C, (k * KH + p) * run * block
        for r in range(run):
            tile = tile_outer(tile, padded, window + r, step, panels, weight + r * block)
    tile_store(tile, y, at, apart)


@kernel
def _correlate(x: Array, panels: Array, y: Array, stride: int, corner: tuple, phase: tuple,
               rows: tuple, vectors: tuple) -> None:  # fmt: skip
    """Compute y[n, row + i*step, col + j*step, :] = sum_pr xpad[n, i*stride + p, j*stride*C + r] panels[:, p, r, :].

    `panels` is (K / block, KH, run, block): the filters of one tile follow each other in memory. (top, left) = `corner`
    is where x begins in xpad; (step, row, col) = `phase` are the pixels of y to write.
    """
    N, _, _, C = x.shape
    _, YH, YW, K = y.shape
    blocks, KH, run, block = panels.shape
    top, left = corner
    step, row, col = phase
    OH, OW = (YH - row + step - 1) // step, (YW - col + step - 1) // step
    for chunk in prange((N + IMAGES - 1) // IMAGES):
        padded = np.zeros(((OH - 1) * stride + KH, (OW - 1) * stride + run // C, C), x.dtype)
        columns = padded.shape[1]
        for n in range(chunk * IMAGES, min(N, (chunk + 1) * IMAGES)):
            pad_image(x, n, top, left, padded)
            for k in range(blocks):
                for i in range(OH):
                    source = i * stride * columns * C
                    target = ((n * YH + row + i * step) * YW + col) * K + k * block
                    for first in range(0, OW, len(rows)):
                        j = min(
                            first, OW - len(rows)
                        )  # the last tile ends with the row, some pixels are done twice
                        _filter_pixels(padded, source + j * stride * C, stride * C, panels, k,
                                       y, target + j * step * K, step * K, rows, vectors)  # fmt: skip


@inner
def _weigh_band(padded: Array, corner: int, stride: int, dy: Array, at: int, height: int, dw: Array, to: int,
                rows: tuple, vectors: tuple) -> None:  # fmt: skip
    """Add to len(rows) rows of `dw` the products of a band of `height` rows of `dy` with the values they came from."""
    _, columns, C = padded.shape
    _, _, OW, K = dy.shape
    tile = tile_load(dw, to, K, rows, vectors)
    for i in range(height):
        for j in range(OW):
            tile = tile_outer(
                tile, padded, corner + (i * columns + j) * stride * C, 1, dy, at + (i * OW + j) * K
            )
    tile_store(tile, dw, to, K)


@kernel
def _correlate_weights(
    x: Array, dy: Array, dw: Array, stride: int, corner: tuple, rows: tuple, vectors: tuple
) -> None:
    """Compute dw[chunk, p, r, :] = sum_nij xpad[n, i*stride + p, j*stride*C + r] dy[n, i, j, :], n in the chunk."""
    N, _, _, C = x.shape
    _, OH, OW, K = dy.shape
    chunks, KH, run, _ = dw.shape
    top, left = corner
    block = len(vectors) * len(register(dy))
    tiled = run - run % len(rows)
    band = max(1, BAND_PIXELS // OW)
    for chunk in prange(chunks):
        padded = np.zeros(((OH - 1) * stride + KH, (OW - 1) * stride + run // C, C), x.dtype)
        columns = padded.shape[1]
        dw[chunk] = 0
        for n in range(N * chunk // chunks, N * (chunk + 1) // chunks):
            pad_image(x, n, top, left, padded)
            for start in range(0, OH, band):
                height = min(band, OH - start)
                for k in range(0, K, block):
                    at = (n * OH + start) * OW * K + k
                    for p in range(KH):
                        source = (start * stride + p) * columns * C
                        to = (chunk * KH + p) * run * K + k
                        for r in range(0, tiled, len(rows)):
                            _weigh_band(
                                padded,
                                source + r,
                                stride,
                                dy,
                                at,
                                height,
                                dw,
                                to + r * K,
                                rows,
                                vectors,
                            )
                        for r in range(tiled, run):
                            _weigh_band(
                                padded,
                                source + r,
                                stride,
                                dy,
                                at,
                                height,
                                dw,
                                to + r * K,
                                ONE,
                                vectors,
                            )


# ---------------------------------------------------------------------------------------------------------- public ops


def _apply(
    x: Array, w: Array, y: Array, stride: int, corner: tuple, phase: tuple = (1, 0, 0)
) -> None:
    """Write the correlation of x with the filters w into the pixels of y that `phase` names."""
    KH, KW, C, K = w.shape
    step, row, col = phase
    if step == 1 and winograd.suits((KH, KW), stride, (C, K), x.dtype):
        winograd.correlate(x, w, y, corner)
        return
    pixels = y[:, row::step, col::step]
    wide, *tile = _tile(pixels.shape[2], K, x.dtype, *PIXEL_TILE)
    block = len(tile[1]) * lanes(x.dtype)
    panels = np.zeros((KH, KW * C, wide), x.dtype)
    panels[:, :, :K] = w.reshape(KH, KW * C, K)
    panels = np.ascontiguousarray(
        panels.reshape(KH, KW * C, wide // block, block).transpose(2, 0, 1, 3)
    )
    if wide == K:
        _correlate(x, panels, y, stride, corner, phase, *tile)
    else:  # the last register of each pixel is not full: work with more filters and drop them
        more = np.empty((*pixels.shape[:3], wide), x.dtype)
        _correlate(x, panels, more, stride, corner, (1, 0, 0), *tile)
        pixels[...] = more[..., :K]


def conv2d_forward(x: Array, w: Array, stride: int = 1, pad: int = 0) -> tuple[Array, Cache]:
    """Tiles of pixels x filters; an image at a time is padded into a small scratch."""
    y = np.empty(checks.conv2d(x, w, stride, pad), x.dtype.newbyteorder("="))
    x, w = contiguous(x), contiguous(w)
    _apply(x, w, y, stride, (pad, pad))
    return y, (x, w, stride, pad)


def conv2d_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """The gradient of the input is a convolution too, that of the weights one over pixels."""
    x, w, stride, pad = cache
    checks.same_shape("conv2d_backward", "dy", dy, checks.conv2d(x, w, stride, pad))
    dy = contiguous(dy, x.dtype)
    return backward_input(dy, x.shape, w, stride, pad), backward_weights(
        dy, x, w.shape, stride, pad
    )


def backward_input(dy: Array, shape: tuple[int, ...], w: Array, stride: int, pad: int) -> Array:
    """Correlate dy with the filters flipped in both directions, channels and filters exchanged.

    With a stride, the pixels (row + i*stride, col + j*stride) of dx meet only every stride-th weight in each direction:
    stride^2 small correlations, where filling dy up with zeros would multiply stride^2 times as much.
    """
    dx = np.empty(shape, dy.dtype)
    for row in range(min(stride, shape[1])):
        for col in range(min(stride, shape[2])):
            p, q = (
                (row + pad) % stride,
                (col + pad) % stride,
            )  # the first weights that these pixels meet
            flipped = w[p::stride, q::stride][::-1, ::-1].swapaxes(2, 3)  # (.., .., K, C)
            if flipped.size:
                top = len(flipped) - 1 - (row + pad - p) // stride
                left = flipped.shape[1] - 1 - (col + pad - q) // stride
                _apply(dy, flipped, dx, 1, (top, left), (stride, row, col))
            else:
                dx[:, row::stride, col::stride] = 0
    return dx


def backward_weights(dy: Array, x: Array, shape: tuple[int, ...], stride: int, pad: int) -> Array:
    """Each chunk of images adds up its own gradient, and the chunks are added in order: the same bits on any thread."""
    KH, KW, C, K = shape
    if winograd.suits((KH, KW), stride, (C, K), x.dtype):
        return winograd.correlate_weights(x, dy, (pad, pad))
    wide, *tile = _tile(KW * C, K, dy.dtype, *WEIGHT_TILE)
    if wide != K:
        dy = np.pad(dy, ((0, 0), (0, 0), (0, 0), (0, wide - K)))
    chunks = np.empty((min(len(x), WEIGHT_CHUNKS), KH, KW * C, wide), dy.dtype)
    _correlate_weights(x, dy, chunks, stride, (pad, pad), *tile)
    return np.ascontiguousarray(chunks.sum(axis=0)[..., :K]).reshape(shape)
