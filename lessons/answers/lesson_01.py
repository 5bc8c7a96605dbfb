"""Lesson 1, for the weekend: a convolution as a sum over the pixels of the filter.

`conv2d_forward` is the model answer. Each `wrong_` function is a usual wrong one.
"""

import numpy as np

EXERCISE = "conv2d_forward"


def conv2d_forward(x, w, stride=1, pad=0):
    """For each pixel (p, q) of the filter, one matrix product of a shifted image."""
    KH, KW, _, K = w.shape
    xpad = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    N, H, W, _ = xpad.shape
    OH = (H - KH) // stride + 1
    OW = (W - KW) // stride + 1
    y = np.zeros((N, OH, OW, K), x.dtype)
    for p in range(KH):
        for q in range(KW):
            shifted = xpad[:, p : p + stride * OH : stride, q : q + stride * OW : stride]
            y += shifted @ w[p, q]  # (N, OH, OW, C) @ (C, K)
    return y, (x, w, stride, pad)


def wrong_padding_forgotten(x, w, stride=1, pad=0):
    """Right for pad = 0, the only case that was tried."""
    y, _ = conv2d_forward(x, w, stride, 0)
    return y, (x, w, stride, pad)


def wrong_filter_flipped(x, w, stride=1, pad=0):
    """The convolution of mathematics: it reads the filter backwards."""
    y, _ = conv2d_forward(x, w[::-1, ::-1], stride, pad)
    return y, (x, w, stride, pad)


def wrong_size_rounded_up(x, w, stride=1, pad=0):
    """A window at the border that is not whole counts too: wrong if the division has a rest."""
    KH, KW = w.shape[:2]
    rest = [-(size + 2 * pad - K) % stride for size, K in zip(x.shape[1:3], (KH, KW), strict=True)]
    larger = np.pad(x, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0)))
    y, _ = conv2d_forward(larger, w, stride, pad)
    return y, (x, w, stride, pad)
