"""Compile every kernel beforehand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minires.ops.compiled import conv
from minires.ops.numba_ops import (
    Array,
    batchnorm_backward,
    batchnorm_forward,
    batchnorm_inference,
    conv2d_backward,
    conv2d_forward,
    relu_backward,
    relu_forward,
)


def warm_up(dtype: str = "float32", backwards: bool = False) -> None:
    """Compile every kernel that the networks for CIFAR-10 need, or load it from the disk.

    Kernels depend on the dtype and on how many registers the channels fill, on no other size, so small arrays will do.
    `jit.announce` tells which kernels are compiled meanwhile. Two processes of which one goes `backwards` meet halfway:
    those that take longest are at either end.
    """

    def images(C: int) -> Array:
        return np.zeros((1, 16, 16, C), dtype)

    def convolve(C: int, K: int, stride: int, side: int) -> None:
        y, cache = conv2d_forward(images(C), np.zeros((side, side, C, K), dtype), stride, side // 2)
        conv2d_backward(y, cache)

    def filter_images(C: int) -> None:
        conv2d_forward(images(C), np.zeros((3, 3, C, C), dtype), 1, 1)

    def weigh_images(C: int) -> None:
        conv.backward_weights(images(C), images(C), (3, 3, C, C), 1, 1)

    def normalise(C: int) -> None:
        ones = np.ones(C, dtype)
        batchnorm_backward(images(C), batchnorm_forward(images(C), ones, ones, 1e-5)[3])
        batchnorm_inference(images(C), ones, ones, ones, ones, 1e-5)

    def rectify(C: int) -> None:
        relu_backward(images(C), relu_forward(images(C))[1])

    projection, stem, tiles = (16, 16, 1, 1), (3, 16, 1, 3), (16, 32, 2, 3)
    calls: list[tuple[Callable, tuple]] = [(filter_images, (16,)), (filter_images, (32,))]
    calls += [(convolve, sizes) for sizes in (projection, stem, tiles)]
    calls += [(normalise, (16,)), (rectify, (16,)), (weigh_images, (32,)), (weigh_images, (16,))]
    for call, sizes in reversed(calls) if backwards else calls:
        call(*sizes)
