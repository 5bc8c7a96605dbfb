"""Compile every kernel that the networks for CIFAR-10 need, before it is timed or watched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

from minires.ops.compiled import conv, jit
from minires.ops.compiled.tuning import VECTOR_BYTES
from minires.ops.geometry import Array
from minires.ops.numba_fused import (
    add_relu_backward,
    add_relu_forward,
    add_shortcut_gradient,
)
from minires.ops.numba_ops import (
    batchnorm_backward,
    batchnorm_forward,
    batchnorm_inference,
    conv2d_backward,
    conv2d_forward,
    global_avg_pool_backward,
    global_avg_pool_forward,
    relu_backward,
    relu_forward,
)

BACKWARDS = "from minires.ops.compiled.warm_up import warm_up; warm_up(backwards=True)"


# compiled versions of kernels after `warm_up`; 16 channels fill one vector of 64 bytes, 32 fill two
NEEDED = 19 if VECTOR_BYTES == 64 else 15


def ready() -> int:
    """How many of the versions that are needed are compiled or loaded."""
    return min(NEEDED, sum(len(kernel.signatures) for kernel in jit.KERNELS))


def prepare(report: Callable[[str, int, int], None]) -> None:
    """Compile or load every kernel; call `report(name, ready, needed)` before each compilation."""

    def announce(name: str) -> None:
        report(name, ready(), NEEDED)

    with jit.announce(announce), compile_from_both_ends(BACKWARDS):
        warm_up()


def warm_up(dtype: str = "float32", backwards: bool = False) -> None:
    """Compile every kernel that the networks for CIFAR-10 need, or load it from the disk.

    The machine code depends on the dtype and on the number of registers that the channels fill, but
    on no other size, so small arrays are enough.

    Parameters
    ----------
    dtype : str
    backwards : bool
        Take the kernels in the opposite order. Two processes, one going backwards, meet in the
        middle; the slowest kernels are at the ends.
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

    def add(C: int) -> None:
        _, cache = add_relu_forward(images(C), images(C))
        add_shortcut_gradient(images(C), add_relu_backward(images(C), cache))

    def average(C: int) -> None:
        y, cache = global_avg_pool_forward(images(C))
        global_avg_pool_backward(y, cache)

    projection, stem, tiles = (16, 16, 1, 1), (3, 16, 1, 3), (16, 32, 2, 3)
    calls: list[tuple[Callable, tuple]] = [(filter_images, (16,)), (filter_images, (32,))]
    calls += [(convolve, sizes) for sizes in (projection, stem, tiles)]
    calls += [
        (normalise, (16,)),
        (rectify, (16,)),
        (add, (16,)),
        (average, (16,)),
        (weigh_images, (32,)),
        (weigh_images, (16,)),
    ]
    for call, sizes in reversed(calls) if backwards else calls:
        call(*sizes)


@contextmanager
def compile_from_both_ends(code: str) -> Iterator[None]:
    """Compile in two processes: a helper works through the kernels from the other end.

    Numba compiles in one thread at a time. `code` asks for the same kernels in the opposite order:
    what one process compiles, the other loads from the disk. The helper starts when the first
    kernel is compiled, and is stopped at the end of the block. Without a cache on disk, or if no
    process can be started, there is no helper.
    """
    helpers: list[subprocess.Popen] = []

    def start(_: str) -> None:
        on_disk = all(kernel.stats.cache_path for kernel in jit.KERNELS)
        if not helpers and (os.cpu_count() or 1) > 1 and on_disk and sys.executable:
            words = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path}; {code}"]
            quiet = subprocess.DEVNULL
            with suppress(OSError):
                helpers.append(subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet))

    try:
        with jit.announce(start):
            yield
    finally:
        for helper in helpers:
            helper.terminate()
            helper.wait()
