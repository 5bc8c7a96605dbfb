"""Sizes that depend on the host's registers."""

from __future__ import annotations

from llvmlite import binding
from numba.core import config


def _host_vector_bytes() -> int:
    """Width of the widest registers of the host, or of the processor that NUMBA_CPU_NAME names."""
    features = (
        config.CPU_FEATURES
    )  # set by NUMBA_CPU_FEATURES, and empty for NUMBA_CPU_NAME=generic
    if features is None:
        features = binding.get_host_cpu_features().flatten()
        if (
            config.CPU_NAME is not None
        ):  # a processor that is named need not have the 64-byte registers of the host
            features = features.replace("+avx512", "-avx512")
    return 64 if "+avx512f" in features else 32 if "+avx2" in features else 16


VECTOR_BYTES = _host_vector_bytes()
# (rows, registers) of a tile by register width in bytes. Measured on 16@32x32, 32@16x16, 64@8x8 in float32 as a share
# of the speed of a BLAS matrix product. 32 bytes (AMD Zen 3, 16 registers): 4x2 0.94-1.03, 2x4 0.84-0.93, 5x2 0.55 to
# 0.88, 6x2 0.65-0.88, 8x1 0.66-0.72, 3x4 0.45. 64 bytes (Intel Xeon, 32 registers): 8x2 forward is 1.3 times as fast
# as 8x1 on 32 and 64 channels; on 16, where one register is a whole pixel, 16x1 is alike (AMD Zen 4).
PIXEL_TILE = {16: (4, 2), 32: (4, 2), 64: (8, 2)}[VECTOR_BYTES]
IMAGES = 4  # images a chunk of work: 32 chunks in a batch of 128
# each has its own sum of weights' gradients; with older kernels 16 took 1.1 to 1.3 times as long on 64 channels
WEIGHT_CHUNKS = 8
CACHE_LINE = 64  # bytes
