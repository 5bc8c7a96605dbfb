"""Speed of training steps and inference: backend against backend, and against PyTorch.

Contenders run in separate processes with equal thread counts and each library's default waiting
policy. They take turns, round by round, so that a machine whose speed drifts treats all alike.
Tables show medians with the extremes.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from minires.bench import peers
from minires.bench.peers import batch
from minires.bench.profile import share_in_kernels
from minires.bench.workers import Steps, ask, time_of, worker
from minires.errors import InputError
from minires.nets import registry
from minires.nets.audit import macs
from minires.nets.fold import fold
from minires.nets.fuse import fuse
from minires.nets.network import Facts, Network
from minires.nets.registry import by_name
from minires.ops import BACKENDS
from minires.optim import SGD
from minires.runs.provenance import provenance
from minires.text import columns

PEERS = {
    "torch": ("torch channels_last", "torch contiguous"),
    "torch.compile": ("torch.compile channels_last",),
    "jax": ("jax",),
    "onnxruntime": ("onnxruntime",),  # inference only
}
SMALL = 32 * 32  # pixels of an image


@dataclass
class Timing:
    """One contender with one network: seconds per step in each round, and the cost of starting.

    `train` is empty where only inference is timed: with one image, and in onnxruntime.
    """

    net: str
    contender: str
    batch_size: int
    first_step: float
    train: list[float] = field(default_factory=list)
    inference: list[float] = field(default_factory=list)
    peak_megabytes: float = 0.0
    kinds: dict[str, float] = field(default_factory=dict)
    in_kernels: float | None = None


def default_batch(facts: Facts) -> int:
    """Images in a step: the paper's 128 for small images, 8 for those of ImageNet."""
    return 128 if np.prod(facts.input_shape[:2]) <= SMALL else 8


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
    batch_size: int | None,
    report: Callable[[str], None],
    profile: bool = False,
) -> list[Timing]:
    """Time every contender with every network. They take turns for `rounds` rounds.

    Parameters
    ----------
    nets, names : list of str
        Networks, and contenders as `contenders` names them.
    rounds : int
    batch_size : int or None
        With 1, only inference is timed. None: see `default_batch`.
    report : callable
        Called with a line about each step of the work.
    profile : bool
        Also find the share of a training step inside compiled kernels.

    Returns
    -------
    timings : list of Timing

    Raises
    ------
    InputError
        As `timed_nets` does, or if PyTorch is needed and missing.
    """
    chosen = timed_nets(nets, rounds, batch_size)
    if profile and batch_size == 1:
        raise InputError(
            "--profile looks at training steps, which need two images or more; got --batch-size 1"
        )
    return [
        timing
        for facts in chosen
        for timing in _bench_net(
            facts, names, rounds, batch_size or default_batch(facts), report, profile
        )
    ]


def timed_nets(nets: Sequence[str], rounds: int, batch_size: int | None) -> list[Facts]:
    """Facts of the networks to time.

    Raises
    ------
    InputError
        If a network is unknown or its input is no image, or rounds or batch are too small.
    """
    found = [registry.facts(net) for net in nets]
    for facts in found:
        if len(facts.input_shape) != 3:
            raise InputError(
                f"expected networks for images, got {facts.name} for {facts.input_shape}; "
                "choose another network"
            )
    if rounds < 1 or (batch_size is not None and batch_size < 1):
        raise InputError(
            f"expected at least one round and one image, got {rounds} and {batch_size}"
        )
    return found


def _bench_net(
    facts: Facts,
    names: Sequence[str],
    rounds: int,
    batch_size: int,
    report: Callable[[str], None],
    profile: bool,
) -> list[Timing]:
    net = facts.name
    with ExitStack() as stack:
        pipes = {}
        timings = {}
        for name in names:
            report(f"{net}, {name}: first step")
            task = worker(_net_steps, facts, _maker(facts), name, batch_size)
            pipes[name] = stack.enter_context(task)
            timings[name] = Timing(net, name, batch_size, ask(pipes[name], "start"))
        for i in range(rounds):
            for name in names:
                report(f"{net}, {name}: round {i + 1} of {rounds}")
                if batch_size > 1 and name != "onnxruntime":
                    timings[name].train.append(ask(pipes[name], "train"))
                timings[name].inference.append(ask(pipes[name], "inference"))
        for name in names:
            timings[name].kinds = ask(pipes[name], "kinds")
            if profile and name == "numba":
                timings[name].in_kernels = ask(pipes[name], "in kernels")
            timings[name].peak_megabytes = ask(pipes[name], "memory")
    return list(timings.values())


def _maker(facts: Facts) -> registry.Make | None:
    """Function with which another process builds the network; None for built-in families.

    The other process looks up built-in families by name, and loads the plugins.

    Raises
    ------
    InputError
        If the function of a user's family cannot be sent to another process.
    """
    make = registry.FAMILIES[facts.family].make
    if make.__module__.startswith("minires"):
        return None
    importable = getattr(sys.modules.get(make.__module__), getattr(make, "__name__", ""), None)
    if importable is not make:
        raise InputError(
            f"the family {facts.family!r} cannot be built in another process; "
            "define its `make` as a function at the top level of a module"
        )
    return make


def _net_steps(facts: Facts, make: registry.Make | None, name: str, batch_size: int) -> Steps:
    net = make(facts, 0) if make else registry.make(facts)
    if name == "onnxruntime":
        return peers.onnxruntime_steps(net, batch_size)
    of_others = {"torch": peers.torch_steps, "jax": peers.jax_steps}
    steps = of_others.get(name.split()[0].partition(".")[0], _steps)(net, name, batch_size)
    if batch_size == 1:  # batch norm has no statistics to learn from
        return {"inference": steps["inference"]}
    return steps


def _steps(net: Network, backend: str, batch_size: int) -> Steps:
    fuse(net.use(backend)).reseed(np.random.SeedSequence(0))
    sgd = SGD(net.parameters())
    x, labels = batch(net.facts, batch_size)
    folded = fold(net)

    def train() -> None:
        _, dlogits = net.ops.softmax_cross_entropy(net.forward(x, train=True), labels)
        net.backward(dlogits)
        sgd.step(net.gradients(), 0.01)

    def kinds() -> dict[str, float]:
        """Seconds of a training step by kind of layer; containers are not counted."""
        spent: dict[str, float] = defaultdict(float)

        def add(call: Any) -> None:
            if not call.layer.children:
                spent[f"{type(call.layer).__name__} {call.direction}"] += call.seconds

        steps = 3
        with net.watch(add):
            spent["whole step"] = time_of(train, steps) * steps
        return {kind: seconds / steps for kind, seconds in spent.items()}

    return {
        "train": train,
        "inference": lambda: folded.forward(x),
        "kinds": kinds,
        "in kernels": lambda: share_in_kernels(train, 3),
    }


# ----------------------------------------------------------------------------------------- tables


def matrix_product_gflops() -> float:
    """Best of twenty large float32 matrix products by NumPy's BLAS, in GFLOP/s.

    This is close to the most that the arithmetic units of this machine can do.
    """
    side = 1536
    a, b = np.ones((2, side, side), np.float32)
    seconds = min(time_of(lambda: a @ b, 1) for _ in range(20))
    return float(2 * side**3 / seconds / 1e9)


def table(timings: Sequence[Timing], peak: float) -> str:
    """Images per second (median, extremes), GFLOP/s and their share of `peak`.

    Operations are counted by the formula of the convolution. An algorithm that needs fewer, such as
    Winograd's, shows more GFLOP/s than it executes.
    """
    head = ["net", "contender", "train images/s", "range", "GFLOP/s", "of matmul"]
    head += ["inference images/s", "range", "first step s", "peak MB"]
    lines = [head]
    for t in timings:
        cells = [t.net, t.contender, *_rate(t.train, t.batch_size), *_of_peak(t, peak)]
        cells += [*_rate(t.inference, t.batch_size), f"{t.first_step:.1f}"]
        lines.append([*cells, f"{t.peak_megabytes:.0f}"])
    return columns(lines, left=2)


def _of_peak(t: Timing, peak: float) -> tuple[str, str]:
    """GFLOP/s of training, and their share of `peak`."""
    if not t.train:
        return "-", "-"
    passes = 3  # forward, dx and dw
    flops = 2 * macs(by_name(t.net)) * passes / np.median(t.train) * t.batch_size / 1e9
    return f"{flops:.0f}", f"{100 * flops / peak:.0f} %"


def _rate(seconds: Sequence[float], batch_size: int) -> tuple[str, str]:
    if not seconds:
        return "-", "-"
    rates = batch_size / np.array(seconds)
    return rate(np.median(rates)), f"{rate(rates.min())}-{rate(rates.max())}"


def rate(images: float) -> str:
    """Images per second as text, with three digits: large networks train a few."""
    return f"{images:.{0 if images >= 100 else 1 if images >= 10 else 2}f}"


def kinds_table(timings: Sequence[Timing]) -> str:
    """Milliseconds of a training step by kind of layer."""
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
    text = columns(lines, left=3) if len(lines) > 1 else ""
    return "\n".join([text, *filter(None, map(_profile, timings))]).strip()


def _profile(t: Timing) -> str:
    """Say how much of a training step the compiled kernels take."""
    if t.in_kernels is None:
        return ""
    outside = 100 * (1 - t.in_kernels)
    return f"{t.net}, {t.contender}: {outside:.1f} % of a training step is outside kernels"


def record(timings: Sequence[Timing], peak: float) -> dict[str, Any]:
    """Everything measured, with machine and versions, as JSON values."""
    return {
        "provenance": provenance(),
        "matrix_product_gflops": peak,
        "timings": [asdict(t) for t in timings],
    }
