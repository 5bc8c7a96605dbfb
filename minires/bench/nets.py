"""How fast is it? Training steps and inference of the same network, backend against backend and against PyTorch.

Each contender lives in a process of its own, has as many threads as the others, which wait for each other as its
library lets them, and computes nothing while another is timed; rounds go in turn, so that a machine whose speed drifts
is fair to all. Medians are quoted, with the extremes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from minires.bench.workers import Steps, ask, time_of, worker
from minires.errors import InputError
from minires.layers.base import Layer
from minires.nets.audit import macs
from minires.nets.fuse import fuse
from minires.nets.registry import by_name
from minires.ops import BACKENDS
from minires.optim import SGD
from minires.runs.provenance import provenance
from minires.text import columns

PEERS = {
    "torch": ("torch channels_last", "torch contiguous"),
    "torch.compile": ("torch.compile channels_last",),
}


@dataclass
class Timing:
    """One contender at one network: seconds per step of each round, and what it cost to get there."""

    net: str
    contender: str
    batch_size: int
    first_step: float
    train: list[float] = field(default_factory=list)
    inference: list[float] = field(default_factory=list)
    peak_megabytes: float = 0.0
    kinds: dict[str, float] = field(default_factory=dict)


def contenders(backends: Sequence[str], peers: Sequence[str]) -> list[str]:
    """Names of all contenders.

    Raises
    ------
    InputError
        If a backend or a peer is unknown.
    """
    for kind, given, known in (("backend", backends, BACKENDS), ("peer", peers, tuple(PEERS))):
        for name in given:
            if name not in known:
                raise InputError(f"{kind} must be one of {', '.join(known)}, got {name!r}")
    if not backends and not peers:
        raise InputError(
            f"expected a backend or a peer to time, got none; backends are {', '.join(BACKENDS)}"
        )
    return [*backends, *(name for peer in peers for name in PEERS[peer])]


def bench(
    nets: Sequence[str],
    names: Sequence[str],
    rounds: int,
    batch_size: int,
    report: Callable[[str], None],
) -> list[Timing]:
    """Time every contender at every network, `rounds` rounds in turn.

    Parameters
    ----------
    nets, names : list of str
        Networks, and contenders as `contenders` names them.
    rounds, batch_size : int
    report : callable
        Told what is going on.

    Returns
    -------
    timings : list of Timing

    Raises
    ------
    InputError
        If there is no round, no second image, or no such network for 32x32 images.
    """
    titles = [by_name(net).title for net in nets]
    if any(title.startswith("imagenet") for title in titles):
        raise InputError(
            f"expected networks for 32x32 images, got {', '.join(titles)}; ImageNet's are not timed"
        )
    if rounds < 1 or batch_size < 2:
        raise InputError(
            f"expected at least one round and a batch of two, got {rounds} and {batch_size}"
        )
    return [
        timing for net in titles for timing in _bench_net(net, names, rounds, batch_size, report)
    ]


def _bench_net(
    net: str, names: Sequence[str], rounds: int, batch_size: int, report: Callable[[str], None]
) -> list[Timing]:
    with ExitStack() as stack:
        pipes, timings = {}, {}
        for name in names:
            report(f"{net}, {name}: first step")
            pipes[name] = stack.enter_context(worker(_net_steps, net, name, batch_size))
            timings[name] = Timing(net, name, batch_size, ask(pipes[name], "start"))
        for i in range(rounds):
            for name in names:
                report(f"{net}, {name}: round {i + 1} of {rounds}")
                timings[name].train.append(ask(pipes[name], "train"))
                timings[name].inference.append(ask(pipes[name], "inference"))
        for name in names:
            timings[name].kinds = ask(pipes[name], "kinds")
            timings[name].peak_megabytes = ask(pipes[name], "memory")
    return list(timings.values())


def _batch(batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch_size, 32, 32, 3)).astype(np.float32), rng.integers(
        0, 10, batch_size
    )


def _net_steps(net: str, name: str, batch_size: int) -> Steps:
    return (
        _torch_steps(net, name, batch_size)
        if name.startswith("torch")
        else _steps(net, name, batch_size)
    )


def _steps(name: str, backend: str, batch_size: int) -> Steps:
    net = fuse(by_name(name).use(backend))
    sgd, (x, labels) = SGD(net.parameters()), _batch(batch_size)

    def train() -> None:
        _, dlogits = net.ops.softmax_cross_entropy(net.forward(x, train=True), labels)
        net.backward(dlogits)
        sgd.step(net.gradients(), 0.01)

    def kinds() -> dict[str, float]:
        spent: dict[str, float] = defaultdict(float)
        for _, layer in net.named_layers():
            if not layer.children:
                _watch(layer, spent)
        spent["whole step"] = time_of(train, 3) * 3
        return {kind: seconds / 3 for kind, seconds in spent.items()}

    return {"train": train, "inference": lambda: net.forward(x), "kinds": kinds}


def _watch(layer: Layer, spent: dict[str, float]) -> None:
    """Add the time that one layer takes to the account of its kind."""

    def timed(direction: str, call: Callable) -> Callable:
        def run(*args: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **named)
            finally:
                spent[f"{type(layer).__name__} {direction}"] += time.perf_counter() - start

        return run

    vars(layer).update(
        forward=timed("forward", layer.forward), backward=timed("backward", layer.backward)
    )


def _torch_steps(name: str, how: str, batch_size: int) -> Steps:
    from minires.exchange import torch_twin
    from minires.exchange.torch_twin import torch

    net = by_name(name)
    layout = torch_twin.prepare(how)
    twin: Any = torch_twin.as_torch(net)
    twin.to(memory_format=layout)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    images, numbers = _batch(batch_size)
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(
        memory_format=layout
    )
    labels = torch.from_numpy(numbers)
    model: Any = torch.compile(twin) if "compile" in how else twin

    def train() -> None:
        twin.train()
        sgd.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(x), labels).backward()
        sgd.step()

    def inference() -> None:
        twin.eval()
        with torch.no_grad():
            model(x)

    return {"train": train, "inference": inference}


# ------------------------------------------------------------------------------------------------------------- tables


def matrix_product_gflops() -> float:
    """Best of twenty large float32 matrix products by NumPy's BLAS, in GFLOP/s: what this machine's units can do."""
    a, b = np.ones((2, 1536, 1536), np.float32)
    return float(2 * 1536**3 / min(time_of(lambda: a @ b, 1) for _ in range(20)) / 1e9)


def table(timings: Sequence[Timing], peak: float) -> str:
    """Images a second (median, extremes), GFLOP/s and their share of `peak`, for training and inference.

    Operations are those of the formula; an algorithm that gets by with fewer shows more GFLOP/s than it does.
    """
    head = ["net", "contender", "train images/s", "range", "GFLOP/s", "of matmul"]
    head += ["inference images/s", "range", "first step s", "peak MB"]
    lines = [head]
    for t in timings:
        flops = (
            2 * macs(by_name(t.net)) * 3 / np.median(t.train) * t.batch_size / 1e9
        )  # forward, dx and dw
        cells = [
            t.net,
            t.contender,
            *_rate(t.train, t.batch_size),
            f"{flops:.0f}",
            f"{100 * flops / peak:.0f} %",
        ]
        cells += [
            *_rate(t.inference, t.batch_size),
            f"{t.first_step:.1f}",
            f"{t.peak_megabytes:.0f}",
        ]
        lines.append(cells)
    return columns(lines, left=2)


def _rate(seconds: Sequence[float], batch_size: int) -> tuple[str, str]:
    rates = batch_size / np.array(seconds)
    return f"{np.median(rates):.0f}", f"{rates.min():.0f}-{rates.max():.0f}"


def kinds_table(timings: Sequence[Timing]) -> str:
    """Where the time of a training step goes, by kind of layer, in milliseconds."""
    lines = [["net", "contender", "kind of layer", "ms", "share"]]
    for t in timings:
        whole = t.kinds.get("whole step", 0.0)
        listed = sorted(t.kinds.items(), key=lambda item: -item[1])
        for kind, seconds in listed:
            if seconds < 0.005 * whole:
                continue
            lines.append(
                [t.net, t.contender, kind, f"{1e3 * seconds:.1f}", f"{100 * seconds / whole:.0f} %"]
            )
    return columns(lines, left=3)


def record(timings: Sequence[Timing], peak: float) -> dict[str, Any]:
    """Everything measured, with machine and versions, as JSON values."""
    return {
        "provenance": provenance(),
        "matrix_product_gflops": peak,
        "timings": [asdict(t) for t in timings],
    }
