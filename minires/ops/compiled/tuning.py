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

IMAGES = 4  # images in a chunk of work: a batch of 128 has 32 chunks
WEIGHT_CHUNKS = 8  # chunks of images that each have a partial sum of dw
BAND_PIXELS = 128  # output pixels in a band, the block of rows of dy that is reused from the cache

# Winograd tiles that are transformed and multiplied together while they are in the cache
TILES = {16: 8, 32: 8, 64: 16}[VECTOR_BYTES]  # forward and dx
WEIGHT_TILES = 32  # dw
