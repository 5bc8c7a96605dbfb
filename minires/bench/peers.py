"""The steps of other libraries that the benchmark times, on the same networks and images."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from minires.bench.workers import Steps
from minires.errors import InputError
from minires.nets.network import Facts, Network


def batch(facts: Facts, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images (N, H, W, C) and labels (N,), the same at every call."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch_size, *facts.input_shape)).astype(np.float32)
    return images, rng.integers(0, facts.classes, batch_size)


def onnxruntime_steps(net: Network, batch_size: int) -> Steps:
    """Inference in onnxruntime."""
    from minires.exchange import onnx

    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))  # 0: it chooses
    forward = onnx.in_onnxruntime(onnx.to_bytes(net), threads)
    x, _ = batch(net.facts, batch_size)
    return {"inference": lambda: forward(x)}


def torch_steps(net: Network, how: str, batch_size: int) -> Steps:
    """Training and inference in PyTorch; `how` names the memory format, and whether it compiles."""
    from minires.exchange import torch_twin
    from minires.exchange.torch_twin import torch

    layout = torch_twin.prepare(how)
    twin: Any = torch_twin.as_torch(net)
    twin.to(memory_format=layout)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    images, numbers = batch(net.facts, batch_size)
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    x = x.to(memory_format=layout)
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


def jax_steps(net: Network, how: str, batch_size: int) -> Steps:
    """Training and inference in JAX, compiled by XLA.

    OMP_NUM_THREADS counts processors here: JAX starts a thread on each that it may use.
    """
    if chosen := os.environ.get("OMP_NUM_THREADS", ""):
        if not hasattr(os, "sched_setaffinity"):
            raise InputError("on this system JAX uses every processor; leave out --threads or JAX")
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(chosen)])
    from minires.exchange import jax_twin
    from minires.exchange.jax_twin import jax

    images, numbers = batch(net.facts, batch_size)
    x = jax.numpy.asarray(images)
    labels = jax.numpy.asarray(numbers)

    def update(p: dict, v: dict, statistics: dict, key: Any) -> tuple:
        """One step of SGD, by the paper's recipe."""
        key, own = jax.random.split(key)

        def loss(p: dict) -> tuple:
            return jax_twin.loss(net, p, statistics, x, labels, own)

        g, moved = jax.grad(loss, has_aux=True)(p)
        v = {name: 0.9 * v[name] + g[name] + 1e-4 * p[name] for name in p}
        return {name: p[name] - 0.01 * v[name] for name in p}, v, moved, key

    compiled = jax.jit(update, donate_argnums=(0, 1, 2, 3))
    p = {name: jax.numpy.array(a) for name, a in net.parameters().items()}
    v = {name: jax.numpy.zeros_like(a) for name, a in p.items()}
    statistics = {name: jax.numpy.array(a) for name, a in jax_twin.buffers(net).items()}
    state: list[Any] = [p, v, statistics, jax.random.key(0)]

    @jax.jit
    def logits(p: dict, statistics: dict, x: Any) -> Any:
        return jax_twin.forward(net, x, jax_twin.Pass(net, p, statistics, train=False))

    def train() -> None:
        state[:] = compiled(*state)
        jax.block_until_ready(state)

    def inference() -> None:
        logits(state[0], state[2], x).block_until_ready()

    return {"train": train, "inference": inference}
