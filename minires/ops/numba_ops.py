"""The ops of `numpy_ops` under the same names, compiled. What gains nothing from compiling is imported by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numba import prange

from minires.ops import checks, numpy_ops
from minires.ops.compiled import conv, norm
from minires.ops.compiled.jit import kernel
from minires.ops.compiled.pool import max_pool_backward, max_pool_forward  # noqa: F401
from minires.ops.compiled.simd import contiguous, keep, load_pair, maximum, register, store
from minires.ops.compiled.threads import keep_freed_memory, start_threads
from minires.ops.numpy_ops import (  # noqa: F401 - ops of this backend too
    col2im,
    global_avg_pool_backward,
    global_avg_pool_forward,
    im2col,
    linear_backward,
    linear_forward,
    softmax_cross_entropy,
)

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
            values = [
                value
                for a in (*args, *named.values())
                for value in (a if isinstance(a, tuple) else (a,))
            ]
            is_complex = any(
                isinstance(value, np.ndarray) and value.dtype.kind == "c" for value in values
            )
            return (in_numpy if is_complex else function)(*args, **named)

        return op  # type: ignore[return-value]

    return decorate


start_threads()
keep_freed_memory()

conv2d_forward = smooth(numpy_ops)(conv.conv2d_forward)
conv2d_backward = smooth(numpy_ops)(conv.conv2d_backward)

# ------------------------------------------------------------------------------------------------ batch normalisation


@smooth(numpy_ops)
def batchnorm_forward(
    x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array, Cache]:
    """Read x twice and write y once."""
    return norm.forward(x, gamma, beta, eps, floor=norm.NO_FLOOR)


@smooth(numpy_ops)
def batchnorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Read dy and x twice, write dx."""
    return norm.backward(dy, cache)


@smooth(numpy_ops)
def batchnorm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
) -> Array:
    """Read x and write y."""
    return norm.inference(x, gamma, beta, mean, var, eps, floor=norm.NO_FLOOR)


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
