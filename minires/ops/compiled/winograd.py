"""3x3 convolution with 36 multiplications where the formula has 144: Winograd's minimal filtering F(4x4, 3x3).

Four neighbouring outputs of a filter of three weights need six products, not twelve, if sums of inputs are multiplied
with sums of weights: these are values of two polynomials at six points, and the outputs are made of the values of their
product. In two dimensions a 6x6 tile d of the image gives its 4x4 outputs Y by

    Y = A^T [ (G g G^T) * (B^T d B) ] A        and backward        dg = G^T [ sum of (B^T d B) * (A dY A^T) ] G

with * element by element. Summed over channels, each of the 36 elements is a matrix product of its own, tiles x
channels by channels x filters: the register tiles of the direct convolution do it, and the transforms are short sums.
Winograd, Arithmetic Complexity of Computations, 1980; for networks: Lavin & Gray 2015, arXiv 1509.09308.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minires.ops.compiled.jit import inner, kernel
from minires.ops.compiled.simd import (
    contiguous,
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
)
from minires.ops.compiled.tuning import IMAGES, PIXEL_TILE, VECTOR_BYTES, WEIGHT_CHUNKS
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

# How many tiles are transformed and multiplied together, while they are near, forward and for the weights' gradient.
# 32 bytes (AMD Zen 3): 16 forward take 0.96 to 1.08 times as long, 16 and 64 for the gradient 0.98 to 1.12 times; 64
# bytes (Zen 4, older transforms): half as many and twice as many 0.98 to 1.14 times.
TILES, WEIGHT_TILES = {16: 8, 32: 8, 64: 16}[VECTOR_BYTES], 32


def suits(
    kernel_size: tuple[int, int], stride: int, channels: tuple[int, int], dtype: np.dtype
) -> bool:
    """Whether this is a 3x3 convolution of stride 1 whose channels fill registers and tiles."""
    whole = max(lanes(dtype), PIXEL_TILE[0])
    return tuple(kernel_size) == (3, 3) and stride == 1 and all(c % whole == 0 for c in channels)


def _tile(K: int, dtype: np.dtype) -> tuple[tuple, tuple]:
    """Sizes of a register tile that divides K filters."""
    rows, vectors = PIXEL_TILE
    return (0,) * rows, (0,) * (1 if K % (vectors * lanes(dtype)) else vectors)


# ---------------------------------------------------------------------------------------------------- tiles in memory


@inner
def _read3(x: Array, at: int, step: int) -> tuple:
    """Three vectors of x, `step` apart."""
    return load_inside(x, at), load_inside(x, at + step), load_inside(x, at + 2 * step)


@inner
def _read4(x: Array, at: int, step: int) -> tuple:
    """Four vectors of x, `step` apart."""
    return (
        load_inside(x, at),
        load_inside(x, at + step),
        load_inside(x, at + 2 * step),
        load_inside(x, at + 3 * step),
    )


@inner
def _read6(x: Array, at: int, step: int) -> tuple:
    """Six vectors of x, `step` apart."""
    x0, x1, x2, x3 = _read4(x, at, step)
    return x0, x1, x2, x3, load_inside(x, at + 4 * step), load_inside(x, at + 5 * step)


@inner
def _write3(x: Array, at: int, step: int, values: tuple) -> None:
    """Write three vectors to x, `step` apart."""
    store_inside(x, at, values[0])
    store_inside(x, at + step, values[1])
    store_inside(x, at + 2 * step, values[2])


@inner
def _write4(x: Array, at: int, step: int, values: tuple) -> None:
    """Write four vectors to x, `step` apart."""
    store_inside(x, at, values[0])
    store_inside(x, at + step, values[1])
    store_inside(x, at + 2 * step, values[2])
    store_inside(x, at + 3 * step, values[3])


@inner
def _write6(x: Array, at: int, step: int, values: tuple) -> None:
    """Write six vectors to x, `step` apart."""
    _write4(x, at, step, (values[0], values[1], values[2], values[3]))
    store_inside(x, at + 4 * step, values[4])
    store_inside(x, at + 5 * step, values[5])


@inner
def _write_pixels(y: Array, at: int, count: int, values: tuple) -> None:
    """Write neighbouring pixels of y, the first `count` of four."""
    K = y.shape[3]
    store_inside(y, at, values[0])
    if count > 1:
        store_inside(y, at + K, values[1])
    if count > 2:
        store_inside(y, at + 2 * K, values[2])
    if count > 3:
        store_inside(y, at + 3 * K, values[3])


@inner
def _filter_points(w: Array, c: int, k: int, u: Array, at: int, apart: int) -> None:
    """Write G g G^T of a register of filters k, channel c; in `u` its elements lie `apart`."""
    _, _, C, K = w.shape
    corner, line = c * K + k, 3 * C * K
    g0, g1 = filters(*_read3(w, corner, line)), filters(*_read3(w, corner + C * K, line))
    g2 = filters(*_read3(w, corner + 2 * C * K, line))
    _write6(u, at, apart, filters(g0[0], g1[0], g2[0]))
    _write6(u, at + 6 * apart, apart, filters(g0[1], g1[1], g2[1]))
    _write6(u, at + 12 * apart, apart, filters(g0[2], g1[2], g2[2]))
    _write6(u, at + 18 * apart, apart, filters(g0[3], g1[3], g2[3]))
    _write6(u, at + 24 * apart, apart, filters(g0[4], g1[4], g2[4]))
    _write6(u, at + 30 * apart, apart, filters(g0[5], g1[5], g2[5]))


@inner
def _image_tiles(
    padded: Array, i: int, half: Array, v: Array, at: int, apart: int, step: int, block: int
) -> None:
    """Write B^T d B of the tiles in row i of tiles, which lie M pixels apart and share two columns.

    In `v` tiles lie `step` apart, the registers of their channels `block`, and the elements of a tile `apart`. `half`
    holds B^T d meanwhile, six registers for each column: the processor has too few to keep a tile in.
    """
    (_, columns, C), span = padded.shape, len(register(padded))
    for c in range(0, C, span):
        corner, to = M * i * columns * C + c, at + c // span * block
        for j in range(columns):
            _write6(
                half, j * SIDE * span, span, image(*_read6(padded, corner + j * C, columns * C))
            )
        for j in range(columns // M):
            for row in range(SIDE):
                d = _read6(half, (M * j * SIDE + row) * span, SIDE * span)
                _write6(v, to + j * step + row * SIDE * apart, apart, image(*d))


@inner
def _output_tiles(
    m: Array, at: int, width: int, apart: int, half: Array, y: Array, n: int, i: int, k: int
) -> None:
    """Write Y = A^T m A of row i of tiles to image n, filters k and on, as far as the image goes."""
    (_, OH, OW, K), span = y.shape, len(register(y))
    for q in range(0, width, span):
        for j in range((OW + M - 1) // M):
            for column in range(SIDE):
                products = _read6(m, at + j * width + q + column * apart, SIDE * apart)
                _write4(half, column * M * span, span, output(*products))
            for row in range(min(M, OH - M * i)):
                to = ((n * OH + M * i + row) * OW + M * j) * K + k + q
                _write_pixels(y, to, OW - M * j, output(*_read6(half, row * span, M * span)))


@inner
def _gradient_tiles(whole: Array, i: int, d: Array, at: int, apart: int) -> None:
    """Write A dY A^T of row i of tiles of an image of dy that whole tiles cover.

    A loop like that of `_output_tiles` is as fast, and rounds otherwise: products are joined with other sums.
    """
    _, columns, K = whole.shape
    line = columns * K
    for k in range(0, K, len(register(whole))):
        for j in range(columns // M):
            corner, to = M * i * line + M * j * K + k, at + j * K + k
            y0 = gradient(*_read4(whole, corner, K))
            y1 = gradient(*_read4(whole, corner + line, K))
            y2 = gradient(*_read4(whole, corner + 2 * line, K))
            y3 = gradient(*_read4(whole, corner + 3 * line, K))
            _write6(d, to, SIDE * apart, gradient(y0[0], y1[0], y2[0], y3[0]))
            _write6(d, to + apart, SIDE * apart, gradient(y0[1], y1[1], y2[1], y3[1]))
            _write6(d, to + 2 * apart, SIDE * apart, gradient(y0[2], y1[2], y2[2], y3[2]))
            _write6(d, to + 3 * apart, SIDE * apart, gradient(y0[3], y1[3], y2[3], y3[3]))
            _write6(d, to + 4 * apart, SIDE * apart, gradient(y0[4], y1[4], y2[4], y3[4]))
            _write6(d, to + 5 * apart, SIDE * apart, gradient(y0[5], y1[5], y2[5], y3[5]))


@inner
def _add_chunks(du: Array, c: int, m: Array) -> None:
    """Write the sums of channel c, all chunks added in order, to `m`, (36, K)."""
    chunks, _, C, K = du.shape
    for p in range(PRODUCTS):
        for k in range(0, K, len(register(du))):
            at = (p * C + c) * K + k
            total = load_inside(du, at)
            for chunk in range(1, chunks):
                total = total + load_inside(du, at + chunk * PRODUCTS * C * K)
            store_inside(m, p * K + k, total)


@inner
def _filter_gradient(m: Array, k: int, dw: Array, c: int) -> None:
    """Write G^T m G of a register of filters k, channel c."""
    _, _, C, K = dw.shape
    m0 = filters_gradient(*_read6(m, k, SIDE * K))
    m1 = filters_gradient(*_read6(m, k + K, SIDE * K))
    m2 = filters_gradient(*_read6(m, k + 2 * K, SIDE * K))
    m3 = filters_gradient(*_read6(m, k + 3 * K, SIDE * K))
    m4 = filters_gradient(*_read6(m, k + 4 * K, SIDE * K))
    m5 = filters_gradient(*_read6(m, k + 5 * K, SIDE * K))
    to, apart = c * K + k, C * K
    _write3(dw, to, apart, filters_gradient(m0[0], m1[0], m2[0], m3[0], m4[0], m5[0]))
    _write3(dw, to + 3 * apart, apart, filters_gradient(m0[1], m1[1], m2[1], m3[1], m4[1], m5[1]))
    _write3(dw, to + 6 * apart, apart, filters_gradient(m0[2], m1[2], m2[2], m3[2], m4[2], m5[2]))


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
        for c in range(
            span
        ):  # neighbouring tiles lie one register apart, a distance that the compiler knows
            tile = tile_outer(tile, v, at + c, span, u, panel + (first + c) * width)
        at += block
    tile_store(tile, m, to, width)


@inner
def _grid(y: Array, tiles: int) -> tuple:
    """Rows and columns of tiles in an image, and how many such rows are worked on at a time."""
    TH, TW = (y.shape[1] + M - 1) // M, (y.shape[2] + M - 1) // M
    return TH, TW, max(1, tiles // TW)


@inner
def _expect_share(a: Array, row: int, last: int, TH: int, p: int) -> None:
    """Ask for a share of the pixels in rows of tiles from `row` to `last`, while the products p are computed.

    They may lie beyond the end of `a`: nothing is read.
    """
    _, H, W, C = a.shape
    begin, share = (row // TH * H + M * (row % TH)) * W * C, (last - row) * M * W * C // PRODUCTS
    for i in range(begin + p * share, begin + (p + 1) * share, 2 * len(register(a))):
        expect(a, i)


@kernel
def _filter(x: Array, w: Array, y: Array, corner: tuple, rows: tuple, vectors: tuple) -> None:
    """Write Y of all tiles; (top, left) = `corner` is where x begins in xpad.

    The filters G g G^T are (K / width, 36, C, width): those of one register tile follow each other in memory.
    """
    (N, _, _, C), (_, _, _, K), (top, left), (TH, TW, band) = (
        x.shape,
        w.shape,
        corner,
        _grid(y, TILES),
    )
    height, span = (band * TW + len(rows) - 1) // len(rows) * len(rows), len(register(x))
    width = len(vectors) * span
    panels, u_apart = K // width, C * width + 2 * span
    u = scratch(PRODUCTS * panels * u_apart, x)
    for c in prange(C):
        for k in range(0, K, len(register(x))):
            _filter_points(
                w, c, k, u, k // width * PRODUCTS * u_apart + c * width + k % width, u_apart
            )
    v_apart, m_apart, block = (
        height * C + 2 * span,
        height * width + 2 * span,
        height * span,
    )  # no power of two
    for chunk in prange((N + IMAGES - 1) // IMAGES):
        padded = scratch((M * TH + 2) * (M * TW + 2) * C, x).reshape(M * TH + 2, M * TW + 2, C)
        half = scratch(SIDE * (M * TW + 2) * span, x)
        v, m = scratch(PRODUCTS * v_apart, x), scratch(PRODUCTS * m_apart, x)
        padded[:], v[:] = 0, 0
        end = min(N, (chunk + 1) * IMAGES) * TH
        for first in range(
            chunk * IMAGES * TH, end, band
        ):  # a band of rows of tiles, of one image or several
            last = min(end, first + band)
            for row in range(first, last):
                n, i = row // TH, row % TH
                if i == 0:
                    pad_image(x, n, top, left, padded)
                _image_tiles(padded, i, half, v, (row - first) * TW * span, v_apart, span, block)
            for k in range(panels):
                for p in range(PRODUCTS):
                    if k == 0:
                        _expect_share(y, first, last, TH, p)
                        if TH > band:  # smaller images come fast enough
                            _expect_share(x, first + TH, last + TH, TH, p)  # of the next image
                    for t in range(0, (last - first) * TW, len(rows)):
                        _multiply(v, p * v_apart + t * span, block, C, u, (k * PRODUCTS + p) * u_apart,
                                  m, p * m_apart + t * width, width, rows, vectors)  # fmt: skip
                for row in range(first, last):
                    _output_tiles(m, (row - first) * TW * width, width, m_apart, half,
                                  y, row // TH, row % TH, k * width)  # fmt: skip


@inner
def _accumulate(v: Array, at: int, C: int, d: Array, column: int, K: int, tiles: int, du: Array, to: int,
                begins: bool, rows: tuple, vectors: tuple) -> None:  # fmt: skip
    """Add sum_t v[t, c] d[t, :] to len(rows) rows c of `du`; where a chunk begins there is nothing in them yet."""
    tile = tile_zeros(du, rows, vectors) if begins else tile_load(du, to, K, rows, vectors)
    for t in range(tiles):
        tile = tile_outer(tile, v, at + t * C, 1, d, column + t * K)
    tile_store(tile, du, to, K)


@kernel
def _weigh(
    x: Array, dy: Array, dw: Array, du: Array, corner: tuple, rows: tuple, vectors: tuple
) -> None:
    """Write the filters' gradient: G^T m G with m[p, c, k] = sum of (B^T d B)[p, c] (A dY A^T)[p, k] over all tiles.

    The chunks of images have a sum each, (chunks, 36, C, K) = `du`, and these are added in order.
    """
    (N, _, _, C), (chunks, _, _, K), (top, left), (TH, TW, band) = (
        x.shape,
        du.shape,
        corner,
        _grid(dy, WEIGHT_TILES),
    )
    span = len(register(x))
    v_apart, d_apart = band * TW * C + 2 * span, band * TW * K + 2 * span
    for chunk in prange(chunks):
        padded = scratch((M * TH + 2) * (M * TW + 2) * C, x).reshape(M * TH + 2, M * TW + 2, C)
        whole, half = (
            scratch(M * TH * M * TW * K, x).reshape(M * TH, M * TW, K),
            scratch(SIDE * (M * TW + 2) * span, x),
        )
        v, d = scratch(PRODUCTS * v_apart, x), scratch(PRODUCTS * d_apart, x)
        padded[:], whole[:] = 0, 0
        begin, end = N * chunk // chunks * TH, N * (chunk + 1) // chunks * TH
        for first in range(begin, end, band):
            last = min(end, first + band)
            for row in range(first, last):
                n, i = row // TH, row % TH
                if i == 0:
                    pad_image(x, n, top, left, padded)
                    pad_image(dy, n, 0, 0, whole)
                _image_tiles(padded, i, half, v, (row - first) * TW * C, v_apart, C, span)
                _gradient_tiles(whole, i, d, (row - first) * TW * K, d_apart)
            for p in range(PRODUCTS):
                if TH > band:  # smaller images come fast enough
                    _expect_share(x, first + TH, last + TH, TH, p)
                    _expect_share(dy, first + TH, last + TH, TH, p)
                for k in range(0, K, len(vectors) * len(register(x))):
                    for c in range(0, C, len(rows)):
                        to = ((chunk * PRODUCTS + p) * C + c) * K + k
                        _accumulate(v, p * v_apart + c, C, d, p * d_apart + k, K, (last - first) * TW,
                                    du, to, first == begin, rows, vectors)  # fmt: skip
    for c in prange(C):
        m = scratch(PRODUCTS * K, x)
        _add_chunks(du, c, m)
        for k in range(0, K, len(register(x))):
            _filter_gradient(m, k, dw, c)


# ---------------------------------------------------------------------------------------------- what conv calls


def correlate(x: Array, w: Array, y: Array, corner: tuple[int, int]) -> None:
    """Write the correlation of x with 3x3 filters w to y; (top, left) = `corner` is where x begins when padded."""
    _filter(x, contiguous(w), y, corner, *_tile(w.shape[3], x.dtype))


def correlate_weights(x: Array, dy: Array, corner: tuple[int, int]) -> Array:
    """Return the gradient of 3x3 filters, the same on any number of threads."""
    C, K = x.shape[3], dy.shape[3]
    dw, du = (
        np.empty((3, 3, C, K), x.dtype),
        np.empty((min(len(x), WEIGHT_CHUNKS), PRODUCTS, C, K), x.dtype),
    )
    _weigh(x, dy, dw, du, corner, *_tile(K, x.dtype))
    return dw
