"""Lesson 8, for the weekend: a convolution in Numba with a tile of 4 pixels by 16 filters.

`conv2d_forward` is the model answer. Each `wrong_` function is a usual wrong one. Compile the
kernel with `numba.njit(fastmath=True)`; without it, the same lines run as Python.
"""

import numpy as np

EXERCISE = "conv2d_forward"
PIXELS, FILTERS = 4, 16


def kernel(xpad, w, y, stride):
    """y[n, i, j, k], one tile after the other; a tile at the edge is smaller."""
    N, OH, OW, K = y.shape
    KH, KW, C, _ = w.shape
    tile = np.zeros((PIXELS, FILTERS), y.dtype)  # small enough for registers
    for n in range(N):
        for i in range(OH):
            for j in range(0, OW, PIXELS):
                R = min(PIXELS, OW - j)
                for k in range(0, K, FILTERS):
                    F = min(FILTERS, K - k)
                    tile[:] = 0
                    for p in range(KH):
                        for q in range(KW):
                            for c in range(C):
                                for r in range(R):  # an outer product: R + F loads
                                    value = xpad[n, i * stride + p, (j + r) * stride + q, c]
                                    for f in range(F):
                                        tile[r, f] += value * w[p, q, c, k + f]
                    for r in range(R):
                        for f in range(F):
                            y[n, i, j + r, k + f] = tile[r, f]


def conv2d_forward(x, w, stride=1, pad=0, run=kernel):
    """Pad, make room for y, and call the kernel."""
    KH, KW, _, K = w.shape
    xpad = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    OH = (xpad.shape[1] - KH) // stride + 1
    OW = (xpad.shape[2] - KW) // stride + 1
    y = np.zeros((len(x), OH, OW, K), x.dtype)
    run(xpad, w, y, stride)
    return y, (x, w, stride, pad)


def wrong_whole_tiles_only(x, w, stride=1, pad=0):
    """Pixels and filters that do not fill a tile are left out."""
    y, cache = conv2d_forward(x, w, stride, pad)
    y[:, :, y.shape[2] // PIXELS * PIXELS :] = 0
    y[..., y.shape[3] // FILTERS * FILTERS :] = 0
    return y, cache


def wrong_tile_not_cleared(x, w, stride=1, pad=0):
    """The tile still holds the sums of the tile before."""

    def run(xpad, w, y, stride):
        kernel(xpad, w, y, stride)
        tiles = y.reshape(-1, y.shape[-1])
        tiles[:] = np.cumsum(tiles, axis=0)

    return conv2d_forward(x, w, stride, pad, run)
