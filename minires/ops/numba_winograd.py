"""3x3 convolution with 16 multiplications where the formula has 36: Winograd's minimal filtering F(2x2, 3x3).

Two neighbouring outputs of a filter of three weights need four products, not six, if sums of inputs are multiplied with
sums of weights; in two dimensions a 4x4 tile d of the image gives its 2x2 outputs Y by

    Y = A^T [ (G g G^T) * (B^T d B) ] A        and backward        dg = G^T [ sum of (B^T d B) * (A dY A^T) ] G

with * element by element. Summed over channels, each of the 16 elements is a matrix product of its own, tiles x
channels by channels x filters: the register tiles of the direct convolution do it, and the transforms are additions.
Winograd, Arithmetic Complexity of Computations, 1980; for networks: Lavin & Gray 2015, arXiv 1509.09308.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minires.ops.jit import inner, kernel
from minires.ops.simd import (
    IMAGES,
    PIXEL_TILE,
    VECTOR_BYTES,
    WEIGHT_CHUNKS,
    Vector,
    expect,
    lanes,
    load_inside,
    pad_image,
    register,
    scratch,
    store_inside,
    tile_load,
    tile_outer,
    tile_store,
    tile_zeros,
    zeros,
)

Array = np.ndarray

G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
PRODUCTS = 16  # elements of a transformed tile

TILES = 32  # image tiles transformed and multiplied together, while they are near: 64 alike, 16 and 128 up to 16 % more
WEIGHT_TILES = {16: 32, 32: 32, 64: 64}[VECTOR_BYTES]  # 64 for 32: 3-8 % faster with 64 bytes, 1-4 % slower with 32


def suits(kernel_size: tuple[int, int], stride: int, channels: tuple[int, int], dtype: np.dtype) -> bool:
    """Whether this is a 3x3 convolution of stride 1 whose channels fill registers and tiles."""
    whole = max(lanes(dtype), PIXEL_TILE[0])
    return tuple(kernel_size) == (3, 3) and stride == 1 and all(c % whole == 0 for c in channels)


def _tile(C: int, K: int, dtype: np.dtype) -> tuple[tuple, tuple]:
    """Sizes of a register tile that divides C channels and K filters: where it must be narrow, it is higher."""
    rows, vectors = PIXEL_TILE
    if K % (vectors * lanes(dtype)):
        rows, vectors = rows * vectors if C % (rows * vectors) == 0 else rows, 1
    return (0,) * rows, (0,) * vectors


# ---------------------------------------------------------------------------------------------------------- transforms
# Each of these does its matrix to one direction of a tile; the tile's other direction is done by calling it again.


@inner
def _image(d0: Vector, d1: Vector, d2: Vector, d3: Vector) -> tuple:
    """B^T d."""
    return d0 - d2, d1 + d2, d2 - d1, d3 - d1


@inner
def _output(m0: Vector, m1: Vector, m2: Vector, m3: Vector) -> tuple:
    """A^T m."""
    return m0 + m1 + m2, m1 - m2 + m3


@inner
def _gradient(y0: Vector, y1: Vector) -> tuple:
    """A dy."""
    return y0, y0 + y1, y0 - y1, y1


@inner
def _read(x: Array, at: int, step: int) -> tuple:
    """Four vectors of x, `step` apart."""
    return load_inside(x, at), load_inside(x, at + step), load_inside(x, at + 2 * step), load_inside(x, at + 3 * step)


@inner
def _write(x: Array, at: int, step: int, values: tuple) -> None:
    """Write four vectors to x, `step` apart."""
    store_inside(x, at, values[0])
    store_inside(x, at + step, values[1])
    store_inside(x, at + 2 * step, values[2])
    store_inside(x, at + 3 * step, values[3])


@inner
def _image_tiles(padded: Array, i: int, v: Array, at: int, apart: int, step: int, block: int) -> None:
    """Write B^T d B of the tiles in row i of tiles, which lie two pixels apart and share two columns.

    In `v` tiles lie `step` apart, the registers of their channels `block`, and the elements of a tile `apart`.
    """
    _, columns, C = padded.shape
    line = columns * C
    for c in range(0, C, len(register(padded))):
        corner, to = 2 * i * line + c, at + c // len(register(padded)) * block
        d0, d1 = _image(*_read(padded, corner, line)), _image(*_read(padded, corner + C, line))
        for _ in range(columns // 2 - 1):
            corner += 2 * C
            d2, d3 = _image(*_read(padded, corner, line)), _image(*_read(padded, corner + C, line))
            _write(v, to, apart, _image(d0[0], d1[0], d2[0], d3[0]))
            _write(v, to + 4 * apart, apart, _image(d0[1], d1[1], d2[1], d3[1]))
            _write(v, to + 8 * apart, apart, _image(d0[2], d1[2], d2[2], d3[2]))
            _write(v, to + 12 * apart, apart, _image(d0[3], d1[3], d2[3], d3[3]))
            d0, d1 = d2, d3
            to += step


@inner
def _output_tiles(m: Array, at: int, width: int, apart: int, y: Array, n: int, i: int, k: int) -> None:
    """Write Y = A^T m A of row i of tiles to image n, filters k and on; the last row and column may be single."""
    _, OH, OW, K = y.shape
    for q in range(0, width, len(register(y))):
        for j in range((OW + 1) // 2):
            source, to = at + j * width + q, ((n * OH + 2 * i) * OW + 2 * j) * K + k + q
            top0, low0 = _output(*_read(m, source, 4 * apart))
            top1, low1 = _output(*_read(m, source + apart, 4 * apart))
            top2, low2 = _output(*_read(m, source + 2 * apart, 4 * apart))
            top3, low3 = _output(*_read(m, source + 3 * apart, 4 * apart))
            left, right = _output(top0, top1, top2, top3)
            store_inside(y, to, left)
            if 2 * j + 1 < OW:
                store_inside(y, to + K, right)
            if 2 * i + 1 < OH:
                left, right = _output(low0, low1, low2, low3)
                store_inside(y, to + OW * K, left)
                if 2 * j + 1 < OW:
                    store_inside(y, to + OW * K + K, right)


@inner
def _gradient_tiles(dy: Array, n: int, i: int, d: Array, at: int, apart: int) -> None:
    """Write A dY A^T of row i of tiles of image n; beyond the last row and column dy is 0."""
    _, OH, OW, K = dy.shape
    for k in range(0, K, len(register(dy))):
        for j in range((OW + 1) // 2):
            corner = ((n * OH + 2 * i) * OW + 2 * j) * K + k
            top0, top1, low0, low1 = load_inside(dy, corner), zeros(dy), zeros(dy), zeros(dy)
            if 2 * j + 1 < OW:
                top1 = load_inside(dy, corner + K)
            if 2 * i + 1 < OH:
                low0 = load_inside(dy, corner + OW * K)
                if 2 * j + 1 < OW:
                    low1 = load_inside(dy, corner + OW * K + K)
            d0, d1 = _gradient(top0, low0), _gradient(top1, low1)
            to = at + j * K + k
            _write(d, to, apart, _gradient(d0[0], d1[0]))
            _write(d, to + 4 * apart, apart, _gradient(d0[1], d1[1]))
            _write(d, to + 8 * apart, apart, _gradient(d0[2], d1[2]))
            _write(d, to + 12 * apart, apart, _gradient(d0[3], d1[3]))


# ------------------------------------------------------------------------------------------------------------- kernels


@inner
def _multiply(v: Array, at: int, block: int, C: int, u: Array, panel: int, m: Array, to: int, width: int,
              rows: tuple, vectors: tuple) -> None:  # fmt: skip
    """Compute m[t, :] = sum_c v[t, c] u[c, :] for len(rows) tiles t and one panel of filters.

    In `v` tiles lie one register of channels apart, and the next registers of their channels `block`.
    """
    tile = tile_zeros(m, rows, vectors)
    span = len(register(v))
    for first in range(0, C, span):
        for c in range(span):  # neighbouring tiles lie one register apart, a distance that the compiler knows
            tile = tile_outer(tile, v, at + c, span, u, panel + (first + c) * width)
        at += block
    tile_store(tile, m, to, width)


@inner
def _grid(y: Array, tiles: int) -> tuple:
    """Rows and columns of tiles in an image, and how many such rows are worked on at a time."""
    TH, TW = (y.shape[1] + 1) // 2, (y.shape[2] + 1) // 2
    return TH, TW, max(1, tiles // TW)


@inner
def _expect_share(y: Array, row: int, last: int, TH: int, p: int) -> None:
    """Ask for a share of what rows of tiles from `row` to `last` will write, while the products are computed."""
    _, OH, OW, K = y.shape
    begin, share = (row // TH * OH + 2 * (row % TH)) * OW * K, (last - row) * 2 * OW * K // PRODUCTS
    for i in range(begin + p * share, begin + (p + 1) * share, 2 * len(register(y))):
        expect(y, i)


@kernel
def _filter(x: Array, u: Array, y: Array, corner: tuple, rows: tuple, vectors: tuple) -> None:
    """Write Y of all tiles; `u` is (K / width, 16, C, width), and (top, left) = `corner` is where x begins in xpad."""
    (N, _, _, C), (panels, _, _, width), (top, left), (TH, TW, band) = x.shape, u.shape, corner, _grid(y, TILES)
    height, span = (band * TW + len(rows) - 1) // len(rows) * len(rows), len(register(x))
    v_apart, m_apart, block = height * C + 2 * span, height * width + 2 * span, height * span  # no power of two
    for chunk in prange((N + IMAGES - 1) // IMAGES):
        padded = np.zeros((2 * TH + 2, 2 * TW + 2, C), x.dtype)
        v, m = scratch(PRODUCTS * v_apart, x), scratch(PRODUCTS * m_apart, x)
        v[:] = 0
        end = min(N, (chunk + 1) * IMAGES) * TH
        for first in range(chunk * IMAGES * TH, end, band):  # a band of rows of tiles, of one image or several
            last = min(end, first + band)
            for row in range(first, last):
                n, i = row // TH, row % TH
                if i == 0:
                    pad_image(x, n, top, left, padded)
                _image_tiles(padded, i, v, (row - first) * TW * span, v_apart, span, block)
            for k in range(panels):
                for p in range(PRODUCTS):
                    if k == 0:  # 1.27, 1.08, 1.03 times as fast on 16, 32, 64 channels, registers of 64 bytes
                        _expect_share(y, first, last, TH, p)
                    for t in range(0, (last - first) * TW, len(rows)):
                        _multiply(v, p * v_apart + t * span, block, C, u, (k * PRODUCTS + p) * C * width,
                                  m, p * m_apart + t * width, width, rows, vectors)  # fmt: skip
                for row in range(first, last):
                    _output_tiles(m, (row - first) * TW * width, width, m_apart, y, row // TH, row % TH, k * width)


@inner
def _accumulate(v: Array, at: int, C: int, d: Array, column: int, K: int, tiles: int, du: Array, to: int,
                rows: tuple, vectors: tuple) -> None:  # fmt: skip
    """Add sum_t v[t, c] d[t, :] to len(rows) rows c of `du`."""
    tile = tile_load(du, to, K, rows, vectors)
    for t in range(tiles):
        tile = tile_outer(tile, v, at + t * C, 1, d, column + t * K)
    tile_store(tile, du, to, K)


@kernel
def _weigh(x: Array, dy: Array, du: Array, corner: tuple, rows: tuple, vectors: tuple) -> None:
    """Compute du[chunk, p, c, k] = sum of (B^T d B)[p, c] (A dY A^T)[p, k] over the tiles of the chunk's images."""
    (N, _, _, C), (chunks, _, _, K), (top, left), (TH, TW, band) = x.shape, du.shape, corner, _grid(dy, WEIGHT_TILES)
    v_apart, d_apart = band * TW * C + 2 * len(register(x)), band * TW * K + 2 * len(register(x))
    for chunk in prange(chunks):
        padded = np.zeros((2 * TH + 2, 2 * TW + 2, C), x.dtype)
        v, d = scratch(PRODUCTS * v_apart, x), scratch(PRODUCTS * d_apart, x)
        du[chunk] = 0
        end = N * (chunk + 1) // chunks * TH
        for first in range(N * chunk // chunks * TH, end, band):
            last = min(end, first + band)
            for row in range(first, last):
                n, i = row // TH, row % TH
                if i == 0:
                    pad_image(x, n, top, left, padded)
                _image_tiles(padded, i, v, (row - first) * TW * C, v_apart, C, len(register(x)))
                _gradient_tiles(dy, n, i, d, (row - first) * TW * K, d_apart)
            for p in range(PRODUCTS):
                for k in range(0, K, len(vectors) * len(register(x))):
                    for c in range(0, C, len(rows)):
                        _accumulate(v, p * v_apart + c, C, d, p * d_apart + k, K, (last - first) * TW,
                                    du, ((chunk * PRODUCTS + p) * C + c) * K + k, rows, vectors)  # fmt: skip


# ---------------------------------------------------------------------------------------------- what numba_conv calls


def _both(M: Array, a: Array) -> Array:
    """M a M^T for every channel and filter of a, (4, 4, C, K) or (3, 3, C, K)."""
    rows = (M @ a.reshape(len(a), -1)).reshape(len(M), *a.shape[1:])
    return np.asarray(M @ rows.reshape(len(M), len(a), -1)).reshape(len(M), len(M), *a.shape[2:])


def correlate(x: Array, w: Array, y: Array, corner: tuple[int, int]) -> None:
    """Write the correlation of x with 3x3 filters w to y; (top, left) = `corner` is where x begins when padded."""
    _, _, C, K = w.shape
    rows, vectors = _tile(C, K, x.dtype)
    width = len(vectors) * lanes(x.dtype)
    u = _both(G.astype(x.dtype), w).reshape(PRODUCTS, C, K // width, width)
    _filter(x, np.ascontiguousarray(u.transpose(2, 0, 1, 3)), y, corner, rows, vectors)


def correlate_weights(x: Array, dy: Array, corner: tuple[int, int]) -> Array:
    """Return the gradient of 3x3 filters; the chunks' sums are added in order, the same on any number of threads."""
    C, K = x.shape[3], dy.shape[3]
    du = np.empty((min(len(x), WEIGHT_CHUNKS), PRODUCTS, C, K), x.dtype)
    _weigh(x, dy, du, corner, *_tile(C, K, x.dtype))
    return _both(G.T.astype(x.dtype), du.sum(axis=0).reshape(4, 4, C, K))
