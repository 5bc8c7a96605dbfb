"""Worker of `minires bench --against`: times one network of the checkout that is on its path.

`against` runs the text of this file by `python -c`, so one program serves every version of minires.
It imports only what every version has, from the module where that version has it. Questions and
answers are lines of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def network_tools() -> tuple[Callable, Callable]:
    """`by_name` and `fuse`, from the present layout or from that of version 1."""
    try:
        registry = importlib.import_module("minires.nets.registry")
        return registry.by_name, importlib.import_module("minires.nets.fuse").fuse
    except ModuleNotFoundError as e:
        if e.name not in ("minires.nets", "minires.nets.registry"):
            raise
        resnet = importlib.import_module("minires.resnet")
        return resnet.by_name, getattr(resnet, "fuse", lambda net: net)


def make_steps(
    net: str, backend: str, batch_size: int, input_shape: list[int], classes: int
) -> dict[str, Callable[[], Any]]:
    """Functions that run a training step and inference, with the layers that training uses."""
    by_name, fuse = network_tools()
    model = fuse(by_name(net, rng=0).use(backend))
    sgd = importlib.import_module("minires.optim").SGD(model.parameters())
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch_size, *input_shape)).astype(np.float32)
    labels = rng.integers(0, classes, batch_size)

    def train() -> None:
        _, dlogits = model.ops.softmax_cross_entropy(model.forward(x, train=True), labels)
        model.backward(dlogits)
        sgd.step(model.gradients(), 0.01)

    return {"train": train, "inference": lambda: model.forward(x)}


def peak_megabytes() -> float:
    """Peak memory of this process; 0 if the system does not report it."""
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            peak = next(line for line in status if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / (1 << 10)  # kB
    except (OSError, StopIteration):
        return 0.0


def time_of(step: Callable[[], Any], repeats: int) -> float:
    """Mean seconds of a step, after one step that is not counted."""
    step()
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def main(arguments: dict[str, Any]) -> None:
    """Answer questions until standard input is closed."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout = sys.stderr  # what a version prints must not mix with the answers

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        steps = make_steps(**arguments)
    except Exception as e:
        answer(error=str(e) or type(e).__name__)
        return
    answer(package=importlib.import_module("minires").__file__)
    for line in sys.stdin:
        question = json.loads(line)
        if question["step"] == "memory":
            answer(megabytes=peak_megabytes())
        else:
            answer(seconds=time_of(steps[question["step"]], question["repeats"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
