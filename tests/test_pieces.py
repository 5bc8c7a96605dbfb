"""Work is cut by shapes alone: enough pieces, and the same ones on any number of threads."""

import ctypes
import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

SMALL = 100_000  # values: an op that touches fewer of them may have fewer pieces
THREADS = (1, 2, 3, 8, 16)
# more pieces would add in another order, and change the bits of every training run
FEWER = {"conv2d dw": 8, "batchnorm_relu forward": 32, "batchnorm_relu backward": 32}
FEWER |= dict.fromkeys(("linear forward", "linear dx", "linear dw"), 0)  # touch few values

# N, H, W, C, filter size, K, stride
CIFAR = [
    (128, 32, 32, 16, 3, 16, 1),
    (128, 32, 32, 16, 3, 32, 2),
    (128, 16, 16, 32, 3, 32, 1),
    (128, 16, 16, 32, 3, 64, 2),
    (128, 8, 8, 64, 3, 64, 1),
]
ONE_PICTURE = [
    (1, 224, 224, 3, 7, 64, 2),
    (1, 56, 56, 64, 3, 64, 1),
    (1, 56, 56, 64, 1, 256, 1),
    (1, 56, 56, 128, 3, 128, 2),
    (1, 28, 28, 128, 3, 128, 1),
    (1, 28, 28, 512, 1, 1024, 2),
    (1, 14, 14, 256, 3, 256, 1),
    (1, 14, 14, 1024, 1, 256, 1),
    (1, 7, 7, 512, 3, 512, 1),
    (1, 7, 7, 512, 1, 2048, 1),
    (1, 7, 7, 2048, 1, 512, 1),
]
BITS = [
    (9, 13, 11, 16, 3, 32, 1),
    (2, 14, 9, 64, 3, 80, 1),
    (3, 15, 14, 3, 7, 64, 2),
    (2, 9, 9, 64, 1, 96, 2),
    (1, 14, 15, 80, 3, 64, 2),
    (17, 8, 8, 16, 1, 16, 1),
]


def count_pieces(found):
    """Let Numba's loops over pieces report how many they have, through the list `found`."""
    import numba
    from llvmlite import binding
    from numba.np.ufunc import omppool, parallel, workqueue

    numba.get_num_threads()
    library = {"omp": omppool, "workqueue": workqueue}[numba.threading_layer()]
    assert parallel._is_initialized
    integers = ctypes.POINTER(ctypes.c_ssize_t)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_ssize_t, integers, integers, ctypes.c_size_t,
                            integers, ctypes.c_ssize_t)  # fmt: skip

    def reporting(schedule):
        def report(axes, starts, ends, threads, ranges, debug):
            found.append(int(np.prod([ends[i] - starts[i] + 1 for i in range(axes)])))
            schedule(axes, starts, ends, threads, ranges, debug)

        return kind(report)

    callbacks = {
        name: reporting(kind(getattr(library, name)))
        for name in ("do_scheduling_signed", "do_scheduling_unsigned")
    }
    for name, callback in callbacks.items():
        binding.add_symbol(name, ctypes.cast(callback, ctypes.c_void_p).value)
    return callbacks  # the caller must hold them


def operations(problem):
    """Name of every op that a network runs on these arrays, and a call without arguments."""
    from minires.ops import get_ops
    from minires.ops.compiled import conv

    ops, rng = get_ops("numba"), np.random.default_rng(0)
    N, H, W, C, side, K, stride = problem
    x = rng.standard_normal((N, H, W, C), np.float32)
    w = rng.standard_normal((side, side, C, K), np.float32)
    gamma, beta = rng.standard_normal((2, K), np.float32)
    y, cache = ops.conv2d_forward(x, w, stride, side // 2)
    dy = rng.standard_normal(y.shape, np.float32)
    *_, normal = ops.batchnorm_relu_forward(y, gamma, beta, 1e-5)
    z, rectified = ops.add_relu_forward(y, dy)
    features, matrix = x.reshape(-1, C)[:1000].copy(), w[0, 0].copy()
    scores, multiplied = ops.linear_forward(features, matrix, beta)
    return {
        "conv2d forward": lambda: ops.conv2d_forward(x, w, stride, side // 2)[0],
        "conv2d dx": lambda: conv.backward_input(dy, x.shape, w, stride, side // 2),
        "conv2d dw": lambda: conv.backward_weights(dy, *cache[:1], w.shape, stride, side // 2),
        "batchnorm_relu forward": lambda: ops.batchnorm_relu_forward(y, gamma, beta, 1e-5)[0],
        "batchnorm_relu backward": lambda: ops.batchnorm_relu_backward(dy, normal)[0],
        "add_relu forward": lambda: ops.add_relu_forward(y, dy)[0],
        "add_relu backward": lambda: ops.add_relu_backward(z, rectified),
        "max_pool forward": lambda: ops.max_pool_forward(y, 2, 1)[0],
        "linear forward": lambda: ops.linear_forward(features, matrix, beta)[0],
        "linear dx": lambda: ops.linear_backward(scores, multiplied)[0],
        "linear dw": lambda: ops.linear_backward(scores, multiplied)[1],
        "inference": lambda: ops.conv2d_inference(x, w, beta, stride, side // 2),
    }


def report(what):
    """Print the most pieces of a loop of each op, or digests of the results, as JSON."""
    found = []
    callbacks = count_pieces(found) if what == "pieces" else None
    answers = []
    for problem in CIFAR + ONE_PICTURE if what == "pieces" else BITS:
        answer = {}
        for name, call in operations(problem).items():
            found.clear()
            result = call()
            digest = hashlib.sha256(result.tobytes()).hexdigest()
            answer[name] = max(found, default=0) if callbacks else digest
        answers.append(answer)
    print(json.dumps(answers))


@cache
def in_process(what, threads):
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "NUMBA_NUM_THREADS": str(threads),
    }
    done = subprocess.run([sys.executable, __file__, what], env=environment, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def size(problem):
    N, H, W, C, side, K, stride = problem
    inputs, outputs = N * H * W * C, N * -(-H // stride) * -(-W // stride) * K
    return inputs + outputs, outputs * side * side * C


@pytest.mark.parametrize("problem", range(len(CIFAR)))
def test_every_op_of_resnet20_at_a_batch_of_128_has_64_pieces(problem):
    assert size(CIFAR[problem])[0] > SMALL
    pieces = in_process("pieces", 2)[problem]
    few = {name: n for name, n in pieces.items() if n < FEWER.get(name, 64)}
    assert not few


@pytest.mark.parametrize("problem", range(len(ONE_PICTURE)))
def test_every_large_convolution_of_one_picture_has_16_pieces(problem):
    assert size(ONE_PICTURE[problem])[1] > 10_000_000
    pieces = in_process("pieces", 2)[len(CIFAR) + problem]
    few = {name: n for name, n in pieces.items() if n < 16 and "conv2d" in name}
    assert not few


@pytest.mark.parametrize("threads", THREADS[1:])
def test_same_pieces_and_same_bits_on_any_number_of_threads(threads):
    assert in_process("bits", threads) == in_process("bits", 1)


if __name__ == "__main__":
    report(sys.argv[1])
