"""The ops of `numpy_ops` under the same names, compiled. What gains nothing from compiling is imported by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numba import prange

from minires.ops import checks, numba_conv, numba_norm, numpy_ops
from minires.ops.jit import keep_freed_memory, kernel, start_threads
from minires.ops.numba_pool import max_pool_backward, max_pool_forward  # noqa: F401
from minires.ops.numpy_ops import (  # noqa: F401 - ops of this backend too
    col2im,
    global_avg_pool_backward,
    global_avg_pool_forward,
    im2col,
    linear_backward,
    linear_forward,
    softmax_cross_entropy,
)
from minires.ops.simd import contiguous, keep, load_pair, maximum, register, store

Array = np.ndarray
Cache = tuple
Op = TypeVar("Op", bound=Callable)

BLOCK = 1 << 14  # values in a chunk of work


def smooth(module: ModuleType) -> Callable[[Op], Op]:
    """Leave complex numbers, which only a numerical check of gradients sends, to the NumPy op of the same name."""

    def decorate(function: Op) -> Op:
        in_numpy = getattr(module, function.__name__)

        @wraps(function)
        def op(*args: Any, **named: Any) -> Any:
            values = [value for a in (*args, *named.values()) for value in (a if isinstance(a, tuple) else (a,))]
            is_complex = any(isinstance(value, np.ndarray) and value.dtype.kind == "c" for value in values)
            return (in_numpy if is_complex else function)(*args, **named)

        return op  # type: ignore[return-value]

    return decorate


start_threads()
keep_freed_memory()

conv2d_forward = smooth(numpy_ops)(numba_conv.conv2d_forward)
conv2d_backward = smooth(numpy_ops)(numba_conv.conv2d_backward)

# ------------------------------------------------------------------------------------------------ batch normalisation


@smooth(numpy_ops)
def batchnorm_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array, Cache]:
    """Read x twice and write y once."""
    return numba_norm.forward(x, gamma, beta, eps, floor=numba_norm.NO_FLOOR)


@smooth(numpy_ops)
def batchnorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Read dy and x twice, write dx."""
    return numba_norm.backward(dy, cache)


@smooth(numpy_ops)
def batchnorm_inference(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float) -> Array:
    """Read x and write y."""
    return numba_norm.inference(x, gamma, beta, mean, var, eps, floor=numba_norm.NO_FLOOR)


# --------------------------------------------------------------------------------------------------------------- ReLU


@kernel
def _relu(x: Array, y: Array) -> None:
    """Compute y = max(x, 0)."""
    for b in prange((x.size + BLOCK - 1) // BLOCK):
        for i in range(b * BLOCK, min(x.size, (b + 1) * BLOCK), 2 * len(register(x))):
            store(y, i, maximum(load_pair(x, i), 0.0))


@kernel
def _relu_gradient(dy: Array, y: Array, dx: Array) -> None:
    """Compute dx = dy where y > 0, else 0."""
    for b in prange((y.size + BLOCK - 1) // BLOCK):
        for i in range(b * BLOCK, min(y.size, (b + 1) * BLOCK), 2 * len(register(y))):
            store(dx, i, keep(load_pair(dy, i), load_pair(y, i), 0.0))


def relu_forward(x: Array) -> tuple[Array, Cache]:
    """Remember y itself, which the layer that follows keeps anyway: it is positive where x is."""
    checks.arrays("relu", x=x)
    x = contiguous(x)
    y = np.empty_like(x)
    _relu(x.reshape(-1), y.reshape(-1))
    return y, (y,)


def relu_backward(dy: Array, cache: Cache) -> Array:
    """Read dy and y, write dx."""
    (y,) = cache
    checks.same_shape("relu_backward", "dy", dy, y.shape)
    dx = np.empty_like(y)
    _relu_gradient(contiguous(dy, y.dtype).reshape(-1), y.reshape(-1), dx.reshape(-1))
    return dx


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
        numba_conv.backward_weights(images(C), images(C), (3, 3, C, C), 1, 1)

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
