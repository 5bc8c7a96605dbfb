"""Speed of every distinct convolution of a network, against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minires.bench.nets import PEERS
from minires.bench.ops import ranged, time_passes
from minires.bench.workers import Steps
from minires.errors import InputError
from minires.layers.core import Conv2d
from minires.layers.describe import Shape
from minires.nets.network import Network
from minires.nets.registry import by_name
from minires.ops import get_ops
from minires.ops.geometry import Size, output_shape, pair
from minires.text import columns

CONTENDERS = ("numba", *PEERS["torch"])


@dataclass(frozen=True)
class Problem:
    """One convolution: H, W, C of its input, (KH, KW, C / groups, K) of its filters."""

    x_shape: Shape
    w_shape: Shape
    stride: Size
    pad: Size
    groups: int
    is_first: bool  # of the network: nothing needs the gradient of its input

    def __str__(self) -> str:
        H, W, C = self.x_shape
        KH, KW, _, K = self.w_shape
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return f"{H}x{W}x{C} -> {K}, {KH}x{KW} stride {pair(self.stride)[0]}{groups}"


def convolutions(net: Network) -> dict[Problem, int]:
    """Each distinct convolution of a network, and how often it occurs; no image is computed."""
    found: dict[Problem, int] = {}

    def recording(layer: Conv2d) -> Callable[[Shape], Any]:
        describe = layer.describe

        def record(x_shape: Shape) -> Any:
            w_shape = layer.params["w"].shape
            problem = Problem(
                tuple(x_shape), w_shape, layer.stride, layer.pad, layer.groups, not found
            )
            found[problem] = found.get(problem, 0) + 1
            return describe(x_shape)

        return record

    for _, layer in net.named_layers():
        if isinstance(layer, Conv2d):
            vars(layer)["describe"] = recording(layer)
    net.describe(net.facts.input_shape)
    return found


def bench(
    name: str, rounds: int, batch_size: int, report: Callable[[str], None]
) -> dict[str, dict[str, list[float]]]:
    """Time each distinct convolution of network `name`, forward and backward, in turn.

    Returns
    -------
    seconds : dict
        seconds[pass][contender], one number per round.

    Raises
    ------
    InputError
        If the network has no convolution, or Numba or PyTorch is missing.
    """
    problems = list(convolutions(by_name(name)))
    if not problems:
        raise InputError(f"expected a network with convolutions, got {name}; choose another one")
    passes = [f"{p} {way}" for p in problems for way in ("forward", "backward")]
    arguments = (problems, batch_size)
    return time_passes(_steps, arguments, CONTENDERS, passes, rounds, report)


def _steps(contender: str, problems: list[Problem], batch_size: int) -> Steps:
    make = _torch_passes if contender.startswith("torch") else _our_passes
    found: Steps = {}
    for problem in problems:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((batch_size, *problem.x_shape), np.float32)
        w = rng.standard_normal(problem.w_shape, np.float32)
        KH, KW, _, K = problem.w_shape
        OH, OW = output_shape(x, KH, KW, problem.stride, problem.pad)
        dy = rng.standard_normal((batch_size, OH, OW, K), np.float32)
        forward, backward = make(contender, problem, x, w, dy)
        found |= {f"{problem} forward": forward, f"{problem} backward": backward}
    return found


def _our_passes(
    backend: str, problem: Problem, x: np.ndarray, w: np.ndarray, dy: np.ndarray
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    ops = get_ops(backend)
    options = (problem.stride, problem.pad, problem.groups)
    _, cache = ops.conv2d_forward(x, w, *options)
    return (
        lambda: ops.conv2d_forward(x, w, *options),
        lambda: ops.conv2d_backward(dy, cache, input_gradient=not problem.is_first),
    )


def _torch_passes(
    how: str, problem: Problem, x: np.ndarray, w: np.ndarray, dy: np.ndarray
) -> tuple[Callable[[], Any], Callable[[], Any]]:
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
    stride = pair(problem.stride)
    pad = pair(problem.pad)
    options = (stride, pad, (1, 1), False, (0, 0), problem.groups)
    wanted = (not problem.is_first, True, False)
    return (
        lambda: torch.nn.functional.conv2d(
            image, filters, None, stride, pad, groups=problem.groups
        ),
        lambda: torch.ops.aten.convolution_backward(
            gradient, image, filters, None, *options, wanted
        ),
    )


def table(name: str, seconds: dict[str, dict[str, list[float]]]) -> str:
    """Median milliseconds of each pass, GFLOP/s of the formula, and our speed over PyTorch's."""
    head = ["convolution", "times", *(f"{c} ms" for c in CONTENDERS), "ours against the better"]
    lines = [head]
    totals = np.zeros(2)
    for problem, count in convolutions(by_name(name)).items():
        for way in ("forward", "backward"):
            times = seconds[f"{problem} {way}"]
            ours, *peers = (float(np.median(times[c])) for c in CONTENDERS)
            totals += count * np.array([ours, min(peers)])
            cells = [ranged(times[c]) for c in CONTENDERS]
            ratio = f"{min(peers) / ours:.2f}x"
            lines.append([f"{problem} {way}", str(count), *cells, ratio])
    whole = f"{name}: all convolutions {1e3 * totals[0]:.0f} ms, PyTorch {1e3 * totals[1]:.0f} ms"
    return f"{columns(lines, left=1)}\n{whole}"


def record(seconds: dict[str, dict[str, list[float]]], name: str) -> dict[str, Any]:
    """Return all measurements as JSON values."""
    problems = [asdict(p) | {"times": n} for p, n in convolutions(by_name(name)).items()]
    return {"net": name, "convolutions": problems, "seconds": seconds}
