"""Speed of single ops against PyTorch's: the passes of a ResNet's step at its three sizes.

PyTorch's passes are called one by one, as its autograd calls them.
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
    """Time each pass with each contender. They take turns.

    Parameters
    ----------
    rounds, batch_size : int
    report : callable
        Called with a line about each step of the work.

    Returns
    -------
    seconds : dict
        seconds[pass][contender], one number per round.

    Raises
    ------
    InputError
        If there is no round, or Numba or PyTorch is missing.
    """
    if rounds < 1 or batch_size < 1:
        raise InputError(
            f"expected at least one round and one image, got {rounds} and {batch_size}"
        )
    return time_passes(_steps, (batch_size,), CONTENDERS, _passes(), rounds, report)


def time_passes(
    make: Callable[..., Steps],
    arguments: tuple,
    contenders: Sequence[str],
    passes: Sequence[str],
    rounds: int,
    report: Callable[[str], None],
) -> dict[str, dict[str, list[float]]]:
    """Time each pass with each contender, in turn: seconds[pass][contender], one for each round.

    `make(contender, *arguments)` returns the passes of a contender, in its own process.
    """
    with ExitStack() as stack:
        pipes = {name: stack.enter_context(worker(make, name, *arguments)) for name in contenders}
        for name, pipe in pipes.items():
            report(f"{name}: first steps")
            ask(pipe, "start")
        seconds: dict[str, dict[str, list[float]]] = {
            name: {c: [] for c in contenders} for name in passes
        }
        for i in range(rounds):
            report(f"round {i + 1} of {rounds}")
            for name in passes:
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
        x = rng.standard_normal((batch_size, H, H, C), np.float32)
        dy = rng.standard_normal((batch_size, H, H, C), np.float32)
        w = rng.standard_normal((3, 3, C, C), np.float32)
        found |= {f"{kind} {C}@{H}x{H}": step for kind, step in make(name, x, w, dy).items()}
    return found


def _our_stage(backend: str, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> Steps:
    from minires.ops.compiled import conv

    ops = get_ops(backend)
    gamma = np.ones(x.shape[3], np.float32)
    *_, normed = ops.batchnorm_forward(x, gamma, gamma, EPS)
    _, rectified = ops.relu_forward(x)
    _, convolved = ops.conv2d_forward(x, w, 1, 1)
    return {
        "conv forward": lambda: ops.conv2d_forward(x, w, 1, 1),
        "conv dx": lambda: conv.backward_input(dy, x.shape, w, 1, 1),
        "conv dw": lambda: ops.conv2d_backward(dy, convolved, input_gradient=False),
        "batch norm forward": lambda: ops.batchnorm_forward(x, gamma, gamma, EPS),
        "batch norm backward": lambda: ops.batchnorm_backward(dy, normed),
        "ReLU forward": lambda: ops.relu_forward(x),
        "ReLU backward": lambda: ops.relu_backward(dy, rectified),
    }


def _torch_stage(how: str, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> Steps:
    from minires.exchange import torch_twin
    from minires.exchange.torch_twin import torch

    layout = torch_twin.prepare(how)
    torch.set_grad_enabled(False)

    def tensor(a: np.ndarray, *axes: int) -> Any:
        made = torch.from_numpy(np.ascontiguousarray(a.transpose(axes)))
        return made.contiguous(memory_format=layout)

    image = tensor(x, 0, 3, 1, 2)
    filters = tensor(w, 3, 2, 0, 1)
    gradient = tensor(dy, 0, 3, 1, 2)
    return {
        **_torch_convolution(torch, image, filters, gradient),
        **_torch_batch_norm(torch, image, gradient),
        **_torch_relu(torch, image, gradient),
    }


def _torch_convolution(torch: Any, image: Any, filters: Any, gradient: Any) -> Steps:
    stride = padding = dilation = (1, 1)

    def backward(*wanted: bool) -> Any:
        """The wanted gradients (image, filters) of a convolution without groups and bias."""
        layout = (stride, padding, dilation, False, (0, 0), 1)
        return torch.ops.aten.convolution_backward(
            gradient, image, filters, None, *layout, (*wanted, False)
        )

    return {
        "conv forward": lambda: torch.nn.functional.conv2d(image, filters, padding=1),
        "conv dx": lambda: backward(True, False),
        "conv dw": lambda: backward(False, True),
    }


def _torch_batch_norm(torch: Any, image: Any, gradient: Any) -> Steps:
    aten = torch.ops.aten
    gamma, beta, mean, var = torch.ones(4, image.shape[1])

    def forward() -> Any:
        return aten.native_batch_norm(image, gamma, beta, mean, var, True, 0.1, EPS)

    _, batch_mean, inv_std = forward()
    statistics = (mean, var, batch_mean, inv_std)
    wanted = (True, True, True)
    return {
        "batch norm forward": forward,
        "batch norm backward": lambda: aten.native_batch_norm_backward(
            gradient, image, gamma, *statistics, True, EPS, wanted
        ),
    }


def _torch_relu(torch: Any, image: Any, gradient: Any) -> Steps:
    rectified = torch.relu(image)
    return {
        "ReLU forward": lambda: torch.relu(image),
        "ReLU backward": lambda: torch.ops.aten.threshold_backward(gradient, rectified, 0),
    }


def table(seconds: dict[str, dict[str, list[float]]]) -> str:
    """Median milliseconds of each pass with its range, and our speed over the better PyTorch's."""
    lines = [["pass", *(f"{c} ms" for c in CONTENDERS), "ours against the better PyTorch"]]
    for name, times in seconds.items():
        ours, *peers = (float(np.median(times[c])) for c in CONTENDERS)
        cells = [ranged(times[c]) for c in CONTENDERS]
        lines.append([name, *cells, f"{min(peers) / ours:.2f}x"])
    return columns(lines, left=1)


def ranged(seconds: Sequence[float]) -> str:
    """Median and range in milliseconds."""
    ms = 1e3 * np.array(seconds)
    return f"{np.median(ms):.2f} ({ms.min():.2f}-{ms.max():.2f})"
