"""Tuning parameters: sizes of vectors, tiles and chunks of work.

All were chosen by measurement on several machines. LOG.md has the measurements.
"""

from __future__ import annotations

from llvmlite import binding
from numba.core import config


def _host_vector_bytes() -> int:
    """Width of the widest registers of the host, or of the processor that NUMBA_CPU_NAME names."""
    features = config.CPU_FEATURES  # NUMBA_CPU_FEATURES; empty for NUMBA_CPU_NAME=generic
    if features is None:
        features = binding.get_host_cpu_features().flatten()
        if config.CPU_NAME is not None:  # that processor may lack the 64-byte registers of the host
            features = features.replace("+avx512", "-avx512")
    return 64 if "+avx512f" in features else 32 if "+avx2" in features else 16


VECTOR_BYTES = _host_vector_bytes()
CACHE_LINE = 64  # bytes

# register tiles by VECTOR_BYTES: (rows, vectors in a row)
PIXEL_TILE = {16: (4, 2), 32: (4, 2), 64: (8, 2)}[VECTOR_BYTES]  # forward and dx: rows of pixels
WEIGHT_TILE = {16: (6, 2), 32: (6, 2), 64: (12, 2)}[VECTOR_BYTES]  # dw: rows of input values

PIECES = 64  # of an operation, where its shapes allow it: enough for 16 threads to share evenly
WEIGHT_CHUNKS = 8  # chunks of images that each have a partial sum of dw
ROW_CHUNKS = 16  # chunks of rows, for fewer images than that
BAND_PIXELS = 128  # output pixels in a band, the block of rows of dy that is reused from the cache


def weight_chunks(images: int, rows: int) -> int:
    """How many partial sums of dw there are; an image has `rows` rows of outputs."""
    return WEIGHT_CHUNKS if images >= WEIGHT_CHUNKS else min(ROW_CHUNKS, images * rows)


# Winograd tiles that are transformed and multiplied together while they are in the cache
TILES = {16: 8, 32: 8, 64: 16}[VECTOR_BYTES]  # forward and dx
WEIGHT_TILES = 32  # dw

# ------------------------------------------------------------ convolutions with many channels
#
# shape                                              | way                   | why
# 3x3, stride 1; at most 64 to 64 channels           | winograd              | filters fit a cache
# 3x3, stride 1; more channels, or few rows of tiles | winograd_blocked      | filters do not fit,
#                                                    |                       | or rows are too few
# 3x3, stride 1; many channels, hardly any tiles     | blocked               | nothing to save
# others; less than 64 to 64 channels                | direct, in conv       | filters fit a cache
# others; more channels                              | blocked               | filters do not fit
#
# The numbers are where the ways take equally long; see LOG.md.

FEW_CHANNELS = 64 * 64  # channels times filters


def many_channels(C: int, K: int) -> bool:
    """Whether a convolution is a matrix product of blocks, unless Winograd's tiles suit it."""
    return C * K >= FEW_CHANNELS


FEWEST_TILES = 128  # fewer are cut into rows or images alone, as their work is short
# by VECTOR_BYTES: with so few tiles, transforming the filters takes longer than it saves
TOO_FEW_TILES = {16: 0, 32: 0, 64: 4}[VECTOR_BYTES]
# channels times filters up to which a few tiles at a time are transformed and multiplied
MOST_FILTERS = {16: 4, 32: 4, 64: 3}[VECTOR_BYTES] * FEW_CHANNELS


def too_few_tiles(tiles: int, C: int, K: int) -> bool:
    """Whether a 3x3 convolution of `tiles` tiles is a matrix product of blocks instead."""
    return tiles <= TOO_FEW_TILES and C * K > 4 * FEW_CHANNELS


def keep_tiles(rows: int, tiles: int, C: int, K: int) -> bool:
    """Whether all of Winograd's tiles, `tiles` a row, are transformed before any product."""
    few_rows = rows < PIECES and rows * tiles >= FEWEST_TILES
    return C * K > MOST_FILTERS or (C * K >= FEW_CHANNELS and few_rows)


def divide_channels(images: int, tiles: int, C: int, K: int) -> bool:
    """Whether pieces of dw are channels and filters, rather than images of `tiles` tiles."""
    few_images = images < WEIGHT_CHUNKS and images * tiles >= FEWEST_TILES
    return C * K > FEW_CHANNELS or (C * K == FEW_CHANNELS and few_images)


# blocks of matrix products, in values that stay in the cache of a core: see `blocked`
DEPTH = 256  # values of a window: rows of DEPTH x 16 weights fill half of a 32 KB cache
PACKED = 16  # rows of filters that are put in order together
GRADIENT_ROWS = 192  # values of a window in a block of dw; tiles of 6 and of 12 rows divide it
GRADIENT_PIXELS = 128
MOST = (192, 256)  # pixels and filters in a block of the output
ENOUGH = ((PIECES, 64, 64), (16, 16, 16))  # pieces that are wanted while a block has that many


def blocks_of_pixels(pixels: int, K: int, width: int) -> tuple[int, int]:
    """Pixels and filters in a block of the output; `width` filters fill a register tile.

    Large blocks reuse each copied value more often, small ones are more pieces of work. A side is
    halved, the longer one first, while there are too few pieces and half is long enough.
    """
    down = -(-pixels // MOST[0])
    across = -(-K // MOST[1])
    for pieces, pixels_left, filters_left in ENOUGH:
        while down * across < pieces:
            many = -(-pixels // (2 * down))
            wide = -(-K // (2 * across))
            if wide >= max(filters_left, width) and (wide >= many or many < pixels_left):
                across *= 2
            elif many >= pixels_left:
                down *= 2
            else:
                break
    return -(-pixels // down), -(-K // (across * width)) * width


def gradient_blocks(pixels: int, R: int, K: int, width: int) -> tuple[int, int]:
    """How many partial sums of dw (R, K) there are, and filters in a block of it.

    Blocks of 128 filters, or fewer for 16 pieces at least. A partial sum has enough pixels to be
    worth its memory.
    """
    most = max(1, pixels // (2 * GRADIENT_PIXELS))
    down = -(-R // GRADIENT_ROWS)
    wide = min(8 * width, -(-K // width) * width)
    while wide > width and down * -(-K // wide) * most < 16:
        wide = -(-wide // (2 * width)) * width
    return min(most, -(-PIECES // (down * -(-K // wide)))), wide


# Winograd's convolution with many channels: see `winograd_blocked`
CHANNELS = 64  # whose transformed filters are multiplied while they are in the cache
GRADIENT_TILES = 64
KEPT = 1 << 21  # transformed values that are kept, about


def rows_kept(rows: int, values: int) -> int:
    """How many of the rows of tiles, of `values` transformed values each, are kept at a time."""
    return min(rows, max(1, KEPT // values))


def winograd_blocks(rows: int, tiles: int, K: int, width: int) -> tuple[int, int]:
    """Rows of tiles, of `tiles` tiles each, and filters in a block of the output.

    Every block transforms its filters for itself, so that it should have many tiles; those of all
    rows, if 16 blocks of filters remain.
    """
    band = min(rows, max(1, 64 // tiles))
    wide = 2 * width if K % (2 * width) == 0 else width
    while -(-rows // band) * (K // wide) < 16 and (wide > width or band > 1):
        if wide > width:
            wide = width
        else:
            band = -(-band // 2)
    return band, wide


def winograd_gradient_blocks(C: int, K: int, width: int) -> tuple[int, int]:
    """Channels and filters in a block of dw: at most 32, or fewer for 16 blocks at least."""
    channels = next(c for c in (32, 16, 8, 4, 2, 1) if C % c == 0)
    wide = 2 * width if K % (2 * width) == 0 else width
    while C // channels * (K // wide) < 16 and (channels > 8 or wide > width):
        if wide > width:
            wide = width
        else:
            channels //= 2
    return channels, wide
