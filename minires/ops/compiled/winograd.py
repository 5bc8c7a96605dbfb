"""3x3 convolution by Winograd F(4x4, 3x3): 36 multiplications per tile instead of 144.

In one dimension, four neighbouring outputs of a filter with three weights need six products
instead of twelve. Sums of inputs are multiplied by sums of weights. These sums are the values of
two polynomials at six points, and the outputs follow from the values of their product. In two
dimensions, a 6x6 tile d of the image gives 4x4 outputs Y:

    Y = A^T [ (G g G^T) * (B^T d B) ] A
    dg = G^T [ sum of (B^T d B) * (A dY A^T) ] G        backward

with * element by element. Summed over channels, each of the 36 elements is a matrix product:
(tiles, channels) by (channels, filters). Register tiles compute it, as in the direct convolution.
The transforms are short sums. Winograd, Arithmetic Complexity of Computations, 1980; for networks:
Lavin & Gray 2015, arXiv 1509.09308.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minires.ops.compiled import winograd_blocked
from minires.ops.compiled.jit import inline, kernel
from minires.ops.compiled.register_tile import tile_load, tile_outer, tile_store, tile_zeros
from minires.ops.compiled.scratch import Kept, once, pad_image, scratch
from minires.ops.compiled.shortcut import NO_BOUND, Ending, finish_pixels
from minires.ops.compiled.simd import lane_count, lanes, prefetch
from minires.ops.compiled.tuning import (
    PIECES,
    PIXEL_TILE,
    TILES,
    WEIGHT_CHUNKS,
    WEIGHT_TILES,
    divide_channels,
    keep_tiles,
)
from minires.ops.compiled.winograd_tiles import (
    PRODUCTS,
    SIDE,
    M,
    add_chunks,
    data_transform,
    filter_gradient_transform,
    filter_tile,
    filter_transform,
    gradient_transform,
    output_transform,
)
from minires.ops.geometry import Pair, pair

Array = np.ndarray


def suits(
    kernel_size: Pair, stride: int | Pair, channels: tuple[int, int], dtype: np.dtype
) -> bool:
    """Whether this is a 3x3 convolution of stride 1 whose channels fill vectors and tiles."""
    if tuple(kernel_size) != (3, 3) or pair(stride) != (1, 1):
        return False
    whole = max(lane_count(dtype), PIXEL_TILE[0])
    return all(c % whole == 0 for c in channels)


def tiles(shape: tuple) -> int:
    """How many tiles cover outputs of this shape, (N, H, W, K)."""
    N, H, W, _ = shape
    return N * -(-H // M) * -(-W // M)


# ----------------------------------------------------------------------------------- kernel helpers


@inline
def _grid(y: Array, tiles: int) -> tuple:
    """Rows and columns of tiles in an image, and the number of rows of tiles in a band."""
    TH = (y.shape[1] + M - 1) // M
    TW = (y.shape[2] + M - 1) // M
    return TH, TW, max(1, tiles // TW)


@inline
def _zeroed(rows: int, columns: int, like: Array) -> Array:
    """Scratch memory of zeros for an image with the channels of `like`."""
    C = like.shape[3]
    memory = scratch(rows * columns * C, like).reshape(rows, columns, C)
    memory[:] = 0
    return memory


@inline
def _prefetch_part(a: Array, band: tuple, TH: int, p: int) -> None:
    """Prefetch part p of 36 of a band of rows of tiles, while the products p are computed.

    (first, last) = `band` may lie beyond the end of `a`: a prefetch never faults.
    """
    _, H, W, C = a.shape
    first, last = band
    begin = (first // TH * H + M * (first % TH)) * W * C
    share = (last - first) * M * W * C // PRODUCTS
    for i in range(begin + p * share, begin + (p + 1) * share, 2 * len(lanes(a))):
        prefetch(a, i)


@inline
def _finish_rows(y: Array, band: tuple, TH: int, b: Array, shortcut: Array, bound: float) -> None:
    """Finish the pixels of a band of rows of tiles, see `shortcut.finish_pixels`."""
    _, OH, OW, K = y.shape
    flat = y.reshape(-1)
    first, last = band
    for row in range(first, last):
        top = M * (row % TH)
        pixel = (row // TH * OH + top) * OW * K
        finish_pixels(flat, pixel, min(M, OH - top) * OW, b, shortcut, bound)


@inline
def _transform(x: Array, band: tuple, offset: tuple, padded: Array, half: Array, v: Array,
               strides: tuple) -> None:  # fmt: skip
    """Write B^T d B of a band of rows of tiles; (begin, last, TH) = `band`."""
    TW = padded.shape[1] // M
    begin, last, TH = band
    for row in range(begin, last):
        pad_image(x, row // TH, offset[0] - row % TH * M, offset[1], padded)
        first = (row - begin) * TW * strides[1]
        data_transform(padded, 0, half, v, first, strides)


@inline
def _multiply(v: Array, source: tuple, C: int, u: Array, panel: int, m: Array, target: tuple,
              tile: tuple) -> None:  # fmt: skip
    """Compute m[t, :] = sum_c v[t, c] u[c, :] for tiles t, one for each row of a register tile.

    (position, block) = `source`: in `v` the stride between tiles is one vector, and the stride
    between the vectors of their channels is `block`. (first, width) = `target`: in `m` the stride
    between tiles is `width` filters.
    """
    rows, vectors = tile
    position, block = source
    first, width = target
    sums = tile_zeros(m, rows, vectors)
    span = len(lanes(v))
    for start in range(0, C, span):
        for c in range(span):  # the stride between tiles is a constant for the compiler
            sums = tile_outer(sums, v, position + c, span, u, panel + (start + c) * width)
        position += block
    tile_store(sums, m, first, width)


@inline
def _accumulate(v: Array, d: Array, first: tuple, tiles: int, du: Array, target: int, begins: bool,
                tile: tuple) -> None:  # fmt: skip
    """Add sum_t v[t, c] d[t, :] to rows c of `du`, or write it if the chunk `begins`."""
    _, _, C, K = du.shape
    rows, vectors = tile
    v_first, d_first = first
    sums = tile_zeros(du, rows, vectors) if begins else tile_load(du, target, K, rows, vectors)
    for t in range(tiles):
        sums = tile_outer(sums, v, v_first + t * C, 1, d, d_first + t * K)
    tile_store(sums, du, target, K)


# ----------------------------------------------------------------------------------------- kernels


@kernel
def _winograd_filters(w: Array, width: int) -> Array:
    """Return G g G^T of all filters, (K / width, 36, C, width), where `width` fill a register tile.

    The strides between products are padded so that none is a power of two.
    """
    _, _, C, K = w.shape
    span = len(lanes(w))
    stride = C * width + 2 * span
    u = scratch(PRODUCTS * (K // width) * stride, w)
    for c in prange(C):
        for k in range(0, K, span):
            first = k // width * PRODUCTS * stride + c * width + k % width
            filter_transform(w, c, k, u, first, stride)
    return u


@kernel
def _winograd_correlate(x: Array, u: Array, y: Array, offset: tuple, b: Array, shortcut: Array,
                        bound: float, tile: tuple) -> None:  # fmt: skip
    """Write Y of all tiles, and finish it with `b` and `shortcut` unless b is empty.

    (top, left) = `offset` is the position of x in xpad, and u is that of `_winograd_filters`.
    """
    N, _, _, C = x.shape
    rows, vectors = tile
    TH, TW, band = _grid(y, TILES)
    height = (band * TW + len(rows) - 1) // len(rows) * len(rows)
    span = len(lanes(x))
    width = len(vectors) * span
    panels = y.shape[3] // width
    u_stride = C * width + 2 * span
    v_stride = height * C + 2 * span
    m_stride = height * width + 2 * span
    block = height * span
    share = (N * TH + PIECES - 1) // PIECES
    for piece in prange((N * TH + share - 1) // share):
        padded = _zeroed(SIDE, M * TW + 2, x)
        half = scratch(SIDE * (M * TW + 2) * span, x)
        v = scratch(PRODUCTS * v_stride, x)
        m = scratch(PRODUCTS * m_stride, x)
        v[:] = 0
        end = min(N * TH, (piece + 1) * share)
        # a band of rows of tiles may extend over several images
        for begin in range(piece * share, end, band):
            last = min(end, begin + band)
            _transform(x, (begin, last, TH), offset, padded, half, v, (v_stride, span, block))
            for k in range(panels):
                for p in range(PRODUCTS):
                    if k == 0:
                        _prefetch_part(y, (begin, last), TH, p)
                        if TH > band:  # small images stay in the cache
                            _prefetch_part(x, (last, last + band), TH, p)
                    for t in range(0, (last - begin) * TW, len(rows)):
                        source = (p * v_stride + t * span, block)
                        panel = (k * PRODUCTS + p) * u_stride
                        target = (p * m_stride + t * width, width)
                        _multiply(v, source, C, u, panel, m, target, (rows, vectors))
                for row in range(begin, last):
                    products = ((row - begin) * TW * width, width, m_stride)
                    output_transform(m, products, half, y, (row // TH, row % TH, k * width))
            if len(b):
                _finish_rows(y, (begin, last), TH, b, shortcut, bound)


@kernel
def _winograd_dw(x: Array, dy: Array, dw: Array, du: Array, offset: tuple, tile: tuple) -> None:
    """Write the gradient of the filters.

    G^T m G with m[p, c, k] = sum of (B^T d B)[p, c] (A dY A^T)[p, k] over all tiles. Each chunk of
    images has its own partial sum in `du`, (chunks, 36, C, K). The partial sums are added in order.
    """
    N, _, _, C = x.shape
    chunks, _, _, K = du.shape
    rows, vectors = tile
    TH, TW, band = _grid(dy, WEIGHT_TILES)
    span = len(lanes(x))
    v_stride = band * TW * C + 2 * span
    d_stride = band * TW * K + 2 * span
    for chunk in prange(chunks):
        padded = _zeroed(SIDE, M * TW + 2, x)
        whole = _zeroed(M * TH, M * TW, dy)
        half = scratch(SIDE * (M * TW + 2) * span, x)
        v = scratch(PRODUCTS * v_stride, x)
        d = scratch(PRODUCTS * d_stride, x)
        first = N * chunk // chunks * TH
        end = N * (chunk + 1) // chunks * TH
        for begin in range(first, end, band):
            last = min(end, begin + band)
            _transform(x, (begin, last, TH), offset, padded, half, v, (v_stride, C, span))
            for row in range(begin, last):
                if row % TH == 0:
                    pad_image(dy, row // TH, 0, 0, whole)
                gradient_transform(whole, row % TH, d, (row - begin) * TW * K, d_stride)
            for p in range(PRODUCTS):
                if TH > band:  # small images stay in the cache
                    _prefetch_part(x, (last, last + band), TH, p)
                    _prefetch_part(dy, (begin + TH, last + TH), TH, p)  # of the next image
                for k in range(0, K, len(vectors) * len(lanes(x))):
                    for c in range(0, C, len(rows)):
                        target = ((chunk * PRODUCTS + p) * C + c) * K + k
                        sources = (p * v_stride + c, p * d_stride + k)
                        tiles = (last - begin) * TW
                        _accumulate(
                            v, d, sources, tiles, du, target, begin == first, (rows, vectors)
                        )
    for c in prange(C):
        m = scratch(PRODUCTS * K, x)
        add_chunks(du, c, m)
        for k in range(0, K, len(lanes(x))):
            filter_gradient_transform(m, (k, K), dw, (c * K + k, C * K))


# -------------------------------------------------------------------------------- called by conv


def correlate(x: Array, w: Array, y: Array, offset: Pair, ending: Ending | None = None,
              kept: Kept | None = None) -> None:  # fmt: skip
    """Write the correlation of x with 3x3 filters to y; `offset` is the position of x in xpad."""
    _, H, W, K = y.shape
    if keep_tiles(len(x) * -(-H // M), -(-W // M), *w.shape[2:]):
        winograd_blocked.correlate(x, w, y, offset)
        if ending:
            ending.finish(y)
        return
    tile = filter_tile(K, x.dtype)
    width = len(tile[1]) * lane_count(x.dtype)
    u = once(kept, "winograd", lambda: _winograd_filters(w, width))
    nothing = np.empty(0, x.dtype)
    _winograd_correlate(x, u, y, offset, *(ending or (nothing, nothing, NO_BOUND)), tile)


def correlate_weights(x: Array, dy: Array, offset: Pair) -> Array:
    """Return the gradient of 3x3 filters, the same on any number of threads."""
    C = x.shape[3]
    K = dy.shape[3]
    down, across = (-(-side // M) for side in dy.shape[1:3])  # tiles
    if divide_channels(len(x), down * across, C, K):
        return winograd_blocked.correlate_weights(x, dy, offset)
    dw = np.empty((3, 3, C, K), x.dtype)
    du = np.empty((min(len(x), WEIGHT_CHUNKS), PRODUCTS, C, K), x.dtype)
    _winograd_dw(x, dy, dw, du, offset, filter_tile(K, x.dtype))
    return dw
