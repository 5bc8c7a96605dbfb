"""Lesson 3, for the weekend: the backward pass of a convolution, and training with a wrong one.

`conv2d_backward` is the model answer. Each `wrong_` function is a usual wrong one.
"""

import numpy as np

from minires import plain
from minires.data import training_batch
from minires.ops.numpy_ops import col2im, im2col
from minires.optim import SGD
from minires.train.step import train_step

EXERCISE = "conv2d_backward"


def conv2d_backward(dy, cache):
    """Two matrix products, then col2im."""
    x, w, stride, pad = cache
    KH, KW, C, K = w.shape
    N, OH, OW, _ = dy.shape
    rows = im2col(x, KH, KW, stride, pad).reshape(-1, KH * KW * C)
    dy_rows = dy.reshape(-1, K)
    dw = (rows.T @ dy_rows).reshape(KH, KW, C, K)
    dcols = (dy_rows @ w.reshape(-1, K).T).reshape(N, OH, OW, KH, KW, C)
    return col2im(dcols, x.shape[1], x.shape[2], stride, pad), dw


def wrong_filter_not_flipped(dy, cache):
    """The mistake of the lesson: dx from the filter turned by half a circle."""
    x, w, stride, pad = cache
    dx, _ = conv2d_backward(dy, (x, w[::-1, ::-1], stride, pad))
    return dx, conv2d_backward(dy, cache)[1]


def wrong_mean_over_the_batch(dy, cache):
    """dw divided by N: the loss has divided by N already."""
    dx, dw = conv2d_backward(dy, cache)
    return dx, dw / len(dy)


def wrong_overlap_overwritten(dy, cache):
    """col2im with = in place of +=: a pixel keeps the share of its last window only."""
    x, w, stride, pad = cache
    KH, KW = w.shape[:2]
    dcols = np.tensordot(dy, w, (3, 3))
    N, H, W, C = x.shape
    OH, OW = dy.shape[1:3]
    xpad = np.zeros((N, H + 2 * pad, W + 2 * pad, C), dy.dtype)
    for p in range(KH):
        for q in range(KW):
            at = slice(p, p + stride * OH, stride), slice(q, q + stride * OW, stride)
            xpad[:, at[0], at[1]] = dcols[:, :, :, p, q]
    return xpad[:, pad : pad + H, pad : pad + W], conv2d_backward(dy, cache)[1]


def losses(backward, data, steps=200, lr=0.02, batch_size=64):
    """Loss of each step of a plain-8 that trains with this backward pass.

    data : minires.data.load("shapes10")
    """
    net = plain(8, rng=0).use("numpy", conv2d_backward=backward)
    optimizer = SGD(net.parameters())
    found = []
    for step in range(steps):
        x, labels = training_batch(data, seed=0, iteration=step, batch_size=batch_size)
        found.append(train_step(net, optimizer, x, labels, lr)[0])
    return found
