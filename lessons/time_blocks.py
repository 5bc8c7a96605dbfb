"""Measurements of lesson 10: every step of a residual block on one thread, and the limits of a core."""

import time
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from style import seconds

from minires.layers import Conv2d, Identity
from minires.nets.resnet import ResidualBlock


@dataclass(frozen=True)
class Step:
    """A convolution, a norm, a ReLU, or the sum at the end of a block."""

    kind: str  # "3x3", "1x1" or "rest"
    macs: int  # multiply-adds of a convolution; otherwise values of the output
    moved: int  # bytes that are read and written at least
    seconds: float

    @property
    def intensity(self):
        """Operations per byte that must move."""
        return 2 * self.macs / self.moved

    @property
    def gflops(self):
        """10^9 operations a second."""
        return 2e-9 * self.macs / self.seconds


@contextmanager
def one_thread(backend):
    """Let the compiled backend use one thread."""
    if backend != "numba":
        yield
        return
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def steps(body, x, backend):
    """Time every step of y = relu(body(x) + x), in evaluation mode."""
    found, kept = [], x
    for layer in ResidualBlock(body, Identity()).use(backend).body.children.values():
        y = layer.forward(x)
        spent = seconds(lambda f=layer, a=x: f.forward(a), 5, time.thread_time)
        if isinstance(layer, Conv2d):
            KH, KW, _, _ = layer.params["w"].shape
            macs = len(x) * layer.describe(x.shape[1:]).macs
            moved = x.nbytes + y.nbytes + layer.params["w"].nbytes
            found.append(Step(f"{KH}x{KW}", macs, moved, spent))
        else:
            found.append(Step("rest", y.size, x.nbytes + y.nbytes, spent))
        x = y
    spent = seconds(lambda: np.maximum(x + kept, 0), 5, time.thread_time)
    return [*found, Step("rest", x.size, 3 * x.nbytes, spent)]


def limits():
    """10^9 operations a second of a matrix product, and 10^9 bytes a second of a copy."""
    square = np.ones((1024, 1024), np.float32)
    long = np.ones(2**24, np.float32)
    peak = 2e-9 * 1024**3 / seconds(lambda: square @ square, 5, time.thread_time)
    half = len(long) // 2
    spent = seconds(lambda: np.copyto(long[:half], long[half:]), 5, time.thread_time)
    return peak, 1e-9 * long.nbytes / spent
