"""How fast is one op? Each pass of those that fill a ResNet's step, at the sizes of its three stages, and PyTorch's.

PyTorch's passes are called one by one, as its own autograd calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from minires.bench.nets import PEERS
from minires.bench.workers import Steps, ask, worker
from minires.errors import InputError
from minires.ops import get_ops
from minires.text import columns

STAGES = ((16, 32), (32, 16), (64, 8))  # channels, and height = width: the stages of section 4.2
EPS = 1e-5
CONTENDERS = ("numba", *PEERS["torch"])


def bench(
    rounds: int, batch_size: int, report: Callable[[str], None]
) -> dict[str, dict[str, list[float]]]:
    """Time each pass in turn with each contender.

    Parameters
    ----------
    rounds, batch_size : int
    report : callable
        Told what is going on.

    Returns
    -------
    seconds : dict
        seconds[pass][contender], one number a round.

    Raises
    ------
    InputError
        If there is no round, or Numba or PyTorch is missing.
    """
    if rounds < 1 or batch_size < 1:
        raise InputError(
            f"expected at least one round and one image, got {rounds} and {batch_size}"
        )
    with ExitStack() as stack:
        pipes = {name: stack.enter_context(worker(_steps, name, batch_size)) for name in CONTENDERS}
        for name, pipe in pipes.items():
            report(f"ops, {name}: first steps")
            ask(pipe, "start")
        seconds: dict[str, dict[str, list[float]]] = {
            name: {c: [] for c in CONTENDERS} for name in _passes()
        }
        for i in range(rounds):
            report(f"ops: round {i + 1} of {rounds}")
            for name in _passes():
                for contender, pipe in pipes.items():
                    seconds[name][contender].append(ask(pipe, name))
    return seconds


def _passes() -> list[str]:
    kinds = ["conv forward", "conv dx", "conv dw", "batch norm forward", "batch norm backward"]
    kinds += ["ReLU forward", "ReLU backward"]
    return [f"{kind} {C}@{H}x{H}" for kind in kinds for C, H in STAGES]


def _steps(name: str, batch_size: int) -> Steps:
    make = _torch_stage if name.startswith("torch") else _our_stage
    found: Steps = {}
    for C, H in STAGES:
        rng = np.random.default_rng(0)
        x, dy = (
            rng.standard_normal((batch_size, H, H, C), np.float32) for _ in range(2)
        )  # apart, as in a network
        w = rng.standard_normal((3, 3, C, C), np.float32)
        found |= {f"{kind} {C}@{H}x{H}": step for kind, step in make(name, x, w, dy).items()}
    return found


def _our_stage(backend: str, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> Steps:
    from minires.ops.compiled import conv

    ops, gamma = get_ops(backend), np.ones(x.shape[3], np.float32)
    *_, normed = ops.batchnorm_forward(x, gamma, gamma, EPS)
    _, rectified = ops.relu_forward(x)
    return {
        "conv forward": lambda: ops.conv2d_forward(x, w, 1, 1),
        "conv dx": lambda: conv.backward_input(dy, x.shape, w, 1, 1),
        "conv dw": lambda: conv.backward_weights(dy, x, w.shape, 1, 1),
        "batch norm forward": lambda: ops.batchnorm_forward(x, gamma, gamma, EPS),
        "batch norm backward": lambda: ops.batchnorm_backward(dy, normed),
        "ReLU forward": lambda: ops.relu_forward(x),
        "ReLU backward": lambda: ops.relu_backward(dy, rectified),
    }


def _torch_stage(how: str, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> Steps:
    from minires.exchange import torch_twin
    from minires.exchange.torch_twin import torch

    layout, aten = torch_twin.prepare(how), torch.ops.aten
    torch.set_grad_enabled(False)

    def tensor(a: np.ndarray, *axes: int) -> Any:
        return torch.from_numpy(np.ascontiguousarray(a.transpose(axes))).contiguous(
            memory_format=layout
        )

    image, filters, gradient = tensor(x, 0, 3, 1, 2), tensor(w, 3, 2, 0, 1), tensor(dy, 0, 3, 1, 2)
    gamma, beta, mean, var = torch.ones(4, x.shape[3])
    _, batch_mean, inv_std = aten.native_batch_norm(image, gamma, beta, mean, var, True, 0.1, EPS)
    rectified = torch.relu(image)

    def backward(*wanted: bool) -> Any:
        return aten.convolution_backward(
            gradient,
            image,
            filters,
            None,
            (1, 1),
            (1, 1),
            (1, 1),
            False,
            (0, 0),
            1,
            (*wanted, False),
        )

    return {
        "conv forward": lambda: torch.nn.functional.conv2d(image, filters, padding=1),
        "conv dx": lambda: backward(True, False),
        "conv dw": lambda: backward(False, True),
        "batch norm forward": lambda: aten.native_batch_norm(
            image, gamma, beta, mean, var, True, 0.1, EPS
        ),
        "batch norm backward": lambda: aten.native_batch_norm_backward(
            gradient, image, gamma, mean, var, batch_mean, inv_std, True, EPS, (True, True, True)
        ),
        "ReLU forward": lambda: torch.relu(image),
        "ReLU backward": lambda: aten.threshold_backward(gradient, rectified, 0),
    }


def table(seconds: dict[str, dict[str, list[float]]]) -> str:
    """Median milliseconds of each pass with its range, and how many times as fast as the better PyTorch ours is."""
    lines = [["pass", *(f"{c} ms" for c in CONTENDERS), "ours against the better PyTorch"]]
    for name, times in seconds.items():
        medians = [float(np.median(times[c])) for c in CONTENDERS]
        lines.append(
            [
                name,
                *(_milliseconds(times[c]) for c in CONTENDERS),
                f"{min(medians[1:]) / medians[0]:.2f}x",
            ]
        )
    return columns(lines, left=1)


def _milliseconds(seconds: Sequence[float]) -> str:
    ms = 1e3 * np.array(seconds)
    return f"{np.median(ms):.2f} ({ms.min():.2f}-{ms.max():.2f})"
