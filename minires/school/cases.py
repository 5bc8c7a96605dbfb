"""Small problems for every exercise, drawn so that what fails shrinks to a few small whole numbers.

A case is a dict of arguments by name. A problem is a strategy that draws cases, and a function that runs a case on any
copy of a module and returns everything that came out, by name.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minires.layers.core import Conv2d
from minires.ops import numpy_ops

Case = dict[str, Any]
Run = Callable[[ModuleType, Case], dict[str, Any]]

BYTES, STEPS = 17, (1, 2, 7, 11, 17, 13)
small = st.integers(1, 2)
drawn = st.binary(min_size=BYTES, max_size=BYTES)
dtypes = st.sampled_from(["float64", "float32"])


def values(draw: Any, dtype: Any, *shape: int) -> np.ndarray:
    """Draw an array of small whole numbers, which shrink towards 0: one string of bytes, so that a draw is cheap.

    Which byte an element takes depends on its index alone, so an element keeps its value when the shape shrinks.
    """
    index = (
        sum(step * i for step, i in zip(STEPS, np.indices(shape, sparse=True), strict=False))
        % BYTES
    )
    numbers = np.frombuffer(draw(drawn), np.uint8)[index] % 7
    return np.where(numbers % 2, numbers // 2 + 1, 0.0 - numbers // 2).astype(
        dtype
    )  # 0, 1, -1, 2, -2, 3, -3


@st.composite
def windows(draw: Any, largest: int, touching: bool = False) -> tuple[int, ...]:
    """H, W, KH, KW, stride, pad of a window that fits; `touching` is square and never lies in the padding alone."""
    kernels = st.integers(1, min(largest, 3))
    KH, stride = draw(kernels), draw(kernels)
    KW = KH if touching else draw(kernels)
    pad = draw(st.integers(0, KH // 2 if touching else largest // 2))
    H, W = (draw(st.integers(max(1, size - 2 * pad), largest)) for size in (KH, KW))
    return H, W, KH, KW, stride, pad


@st.composite
def unrolling(draw: Any, largest: int, back: bool) -> Case:
    """Arguments of im2col, or of col2im."""
    H, W, KH, KW, stride, pad = draw(windows(largest))
    x = values(draw, draw(dtypes), draw(small), H, W, draw(small))
    if not back:
        return {"x": x, "KH": KH, "KW": KW, "stride": stride, "pad": pad}
    shape = numpy_ops.im2col(x, KH, KW, stride, pad).shape
    return {"cols": values(draw, x.dtype, *shape), "H": H, "W": W, "stride": stride, "pad": pad}


@st.composite
def convolution(draw: Any, largest: int) -> Case:
    """Arguments of conv2d_forward."""
    H, W, KH, KW, stride, pad = draw(windows(largest))
    N, C, K, dtype = draw(small), draw(small), draw(small), draw(dtypes)
    x, w = values(draw, dtype, N, H, W, C), values(draw, dtype, KH, KW, C, K)
    return {"x": x, "w": w, "stride": stride, "pad": pad}


@st.composite
def image(draw: Any, largest: int, flat: bool = True) -> np.ndarray:
    """An x of shape (N, C), if `flat` allows it, or (N, H, W, C)."""
    axes = draw(st.sampled_from([1, 3])) if flat else 3
    shape = [draw(st.integers(1, largest)) for _ in range(axes)]
    return values(draw, draw(dtypes), *shape, draw(small))


@st.composite
def normalisation(draw: Any, largest: int, inference: bool = False) -> Case:
    """Arguments of batchnorm_forward, or of batchnorm_inference."""
    x = draw(image(largest))
    names = ("gamma", "beta", "mean", "var") if inference else ("gamma", "beta")
    case = {"x": x, **{name: values(draw, x.dtype, x.shape[-1]) for name in names}}
    if inference:
        case["var"] = abs(case["var"])
    return case | {"eps": draw(st.sampled_from([1.0, 0.25, 0.01]))}


@st.composite
def pooling(draw: Any, largest: int) -> Case:
    """Arguments of max_pool_forward; many values are equal."""
    H, W, size, _, stride, pad = draw(windows(largest, touching=True))
    return {
        "x": values(draw, draw(dtypes), draw(small), H, W, draw(small)),
        "size": size,
        "stride": stride,
        "pad": pad,
    }


@st.composite
def weighing(draw: Any, largest: int) -> Case:
    """Arguments of linear_forward."""
    N, C, K, dtype = draw(st.integers(1, largest)), draw(small), draw(small), draw(dtypes)
    return {
        "x": values(draw, dtype, N, C),
        "w": values(draw, dtype, C, K),
        "b": values(draw, dtype, K),
    }


@st.composite
def classification(draw: Any, largest: int) -> Case:
    """Arguments of softmax_cross_entropy; some logits are large."""
    N, K = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    logits = values(draw, draw(dtypes), N, K) + draw(st.sampled_from([0, 1000]))
    return {
        "logits": logits,
        "labels": np.array(draw(st.lists(st.integers(0, K - 1), min_size=N, max_size=N))),
    }


@st.composite
def pair(draw: Any, op: str, inputs: st.SearchStrategy[Case]) -> Case:
    """Arguments of a forward, and a gradient for its backward."""
    case = draw(inputs)
    y = getattr(numpy_ops, f"{op}_forward")(**case)[0]
    return case | {"dy": values(draw, y.dtype, *y.shape)}


@st.composite
def block(draw: Any) -> Case:
    """A residual block whose body is one convolution: shortcut the identity, or option A."""
    C, grows, dtype = draw(small), draw(st.booleans()), draw(dtypes)
    K, stride = (2 * C, 2) if grows else (C, 1)
    x, w = values(draw, dtype, draw(small), 2, 2, C), values(draw, dtype, 1, 1, C, K)
    return {
        "x": x,
        "w": w,
        "stride": stride,
        "dy": values(draw, dtype, len(x), 2 // stride, 2 // stride, K),
    }


@st.composite
def descent(draw: Any) -> Case:
    """Some weights, and the gradients of a few steps."""
    dtype, size = draw(dtypes), draw(small)
    steps = [values(draw, dtype, size) for _ in range(draw(st.integers(1, 3)))]
    rates = {name: draw(st.sampled_from([0.0, 0.5, 0.25])) for name in ("momentum", "weight_decay")}
    return {
        "w": values(draw, dtype, size),
        "gradients": steps,
        **rates,
        "lr": draw(st.sampled_from([1.0, 0.5])),
    }


@st.composite
def schedule(draw: Any) -> Case:
    """Arguments of step_schedule."""
    milestones = sorted(draw(st.lists(st.integers(0, 9), max_size=3, unique=True)))
    return {
        "lr": draw(st.sampled_from([1.0, 0.1])),
        "milestones": milestones,
        "iteration": draw(st.integers(0, 10)),
    }


# ------------------------------------------------------------------------------------------------- running a case


def returned(function: Callable[..., Any]) -> list[str]:
    """Names of what a function returns, as its docstring says."""
    section = re.search(r"Returns\n-+\n(.*?)(\n\n|$)", inspect.getdoc(function) or "", re.S)
    names = re.findall(r"^(\w.*?) :", section[1], re.M) if section else ["the result"]
    return [name for line in names for name in line.split(", ")]


def call(name: str) -> Run:
    """Run one function."""
    names = returned(getattr(numpy_ops, name, None) or (lambda: None))

    def run(module: ModuleType, case: Case) -> dict[str, Any]:
        result = getattr(module, name)(**case)
        return dict(zip(names, result if len(names) > 1 else [result], strict=True))

    return run


def both(op: str) -> Run:
    """Run a forward and then its backward."""
    forward, backward = f"{op}_forward", f"{op}_backward"
    *outputs, _ = returned(getattr(numpy_ops, forward))
    gradients = returned(getattr(numpy_ops, backward))

    def run(module: ModuleType, case: Case) -> dict[str, Any]:
        inputs = {name: a for name, a in case.items() if name != "dy"}
        *came, cache = getattr(module, forward)(**inputs)
        back = getattr(module, backward)(case["dy"], cache)
        back = back if len(gradients) > 1 else [back]
        return dict(zip(outputs + gradients, [*came, *back], strict=True))

    return run


def run_block(module: ModuleType, case: Case) -> dict[str, Any]:
    """Forward and backward of a residual block."""
    C, K = case["w"].shape[2:]
    body = Conv2d(C, K, 1, case["stride"], rng=0)
    body.params["w"] = case["w"]
    made = module.ResidualBlock(body, module.make_shortcut("A", C, K, case["stride"], 0))
    y = made.forward(case["x"], train=True)
    dx = made.backward(case["dy"])
    return {"y": y, "dx": dx, "dw of the body": body.grads.get("w")}


def run_descent(module: ModuleType, case: Case) -> dict[str, Any]:
    """Steps of SGD on one live array."""
    sgd, seen = module.SGD({"w": case["w"]}, case["momentum"], case["weight_decay"]), {}
    for i, g in enumerate(case["gradients"], start=1):
        sgd.step({"w": g}, case["lr"])
        seen[f"w after step {i}"] = case["w"].copy()
    return seen | {"the velocity": sgd.velocity["w"]}


def problems(largest: int) -> dict[str, tuple[st.SearchStrategy[Case], Run]]:
    """Strategy and run of every exercise, by its name; images have at most `largest` rows and columns."""
    pairs = {
        "conv2d": convolution(largest),
        "batchnorm": normalisation(largest),
        "relu": image(largest).map(lambda x: {"x": x}),
        "max_pool": pooling(largest),
        "global_avg_pool": image(largest, flat=False).map(lambda x: {"x": x}),
        "linear": weighing(largest),
    }
    calls = {
        "im2col": unrolling(largest, back=False),
        "col2im": unrolling(largest, back=True),
        "batchnorm_inference": normalisation(largest, inference=True),
        "softmax_cross_entropy": classification(largest),
        "step_schedule": schedule(),
    }
    ways = ("forward", "backward")
    return {
        **{
            f"{op}_{way}": (pair(op, cases), both(op))
            for op, cases in pairs.items()
            for way in ways
        },
        **{name: (cases, call(name)) for name, cases in calls.items()},
        "residual_block_backward": (block(), run_block),
        "sgd_step": (descent(), run_descent),
    }
