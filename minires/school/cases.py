"""Small problems for every exercise, drawn so that what fails shrinks to a few small whole numbers.

A case is a dict of arguments by name. A problem is a strategy that draws cases, and a function that
runs a case on any copy of a module and returns every result by name.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.layers.core import Conv2d
from minires.ops import numpy_ops

try:
    from hypothesis import strategies as st
except ImportError as e:
    raise InputError(
        "exercises are checked with hypothesis, which is not installed: pip install hypothesis"
    ) from e

Case = dict[str, Any]
Run = Callable[[ModuleType, Case], dict[str, Any]]

BYTES = 17  # drawn for an array
STEPS = (1, 2, 7, 11, 17, 13)  # in these bytes, from an element to its neighbour along each axis
small = st.integers(1, 2)
drawn = st.binary(min_size=BYTES, max_size=BYTES)
dtypes = st.sampled_from(["float64", "float32"])


def values(draw: Any, dtype: Any, *shape: int) -> np.ndarray:
    """Draw an array of 0, 1, -1, 2, -2, 3, -3, which shrink towards 0.

    One string of bytes makes a draw cheap. Which byte an element takes depends on its index alone,
    so an element keeps its value when the shape shrinks.
    """
    steps = zip(STEPS, np.indices(shape, sparse=True), strict=False)
    index = sum(step * i for step, i in steps) % BYTES
    numbers = np.frombuffer(draw(drawn), np.uint8)[index] % 7
    return np.where(numbers % 2, numbers // 2 + 1, 0.0 - numbers // 2).astype(dtype)


@st.composite
def windows(draw: Any, largest: int, pooling: bool = False) -> tuple[int, ...]:
    """H, W, KH, KW, stride, pad of a window that fits.

    For pooling it is square and never lies in the padding alone.
    """
    kernels = st.integers(1, min(largest, 3))
    KH = draw(kernels)
    stride = draw(kernels)
    KW = KH if pooling else draw(kernels)
    pad = draw(st.integers(0, KH // 2 if pooling else largest // 2))
    H = draw(st.integers(max(1, KH - 2 * pad), largest))
    W = draw(st.integers(max(1, KW - 2 * pad), largest))
    return H, W, KH, KW, stride, pad


@st.composite
def images(draw: Any, largest: int, flat: bool = True) -> np.ndarray:
    """An x of shape (N, C), if `flat` allows it, or (N, H, W, C)."""
    axes = draw(st.sampled_from([1, 3])) if flat else 3
    shape = [draw(st.integers(1, largest)) for _ in range(axes)]
    return values(draw, draw(dtypes), *shape, draw(small))


@st.composite
def im2col_cases(draw: Any, largest: int) -> Case:
    """Arguments of im2col."""
    H, W, KH, KW, stride, pad = draw(windows(largest))
    x = values(draw, draw(dtypes), draw(small), H, W, draw(small))
    return {"x": x, "KH": KH, "KW": KW, "stride": stride, "pad": pad}


@st.composite
def col2im_cases(draw: Any, largest: int) -> Case:
    """Arguments of col2im."""
    case = draw(im2col_cases(largest))
    x = case["x"]
    _, H, W, _ = x.shape
    cols = values(draw, x.dtype, *numpy_ops.im2col(**case).shape)
    return {"cols": cols, "H": H, "W": W, "stride": case["stride"], "pad": case["pad"]}


@st.composite
def convolution_cases(draw: Any, largest: int) -> Case:
    """Arguments of conv2d_forward."""
    H, W, KH, KW, stride, pad = draw(windows(largest))
    N = draw(small)
    C = draw(small)
    K = draw(small)
    dtype = draw(dtypes)
    x = values(draw, dtype, N, H, W, C)
    w = values(draw, dtype, KH, KW, C, K)
    return {"x": x, "w": w, "stride": stride, "pad": pad}


@st.composite
def batch_norm_cases(draw: Any, largest: int, inference: bool = False) -> Case:
    """Arguments of batchnorm_forward, or of batchnorm_inference."""
    x = draw(images(largest))
    names = ("gamma", "beta", "mean", "var") if inference else ("gamma", "beta")
    case = {"x": x, **{name: values(draw, x.dtype, x.shape[-1]) for name in names}}
    if inference:
        case["var"] = abs(case["var"])
    return case | {"eps": draw(st.sampled_from([1.0, 0.25, 0.01]))}


@st.composite
def max_pool_cases(draw: Any, largest: int) -> Case:
    """Arguments of max_pool_forward; many values are equal."""
    H, W, size, _, stride, pad = draw(windows(largest, pooling=True))
    x = values(draw, draw(dtypes), draw(small), H, W, draw(small))
    return {"x": x, "size": size, "stride": stride, "pad": pad}


@st.composite
def linear_cases(draw: Any, largest: int) -> Case:
    """Arguments of linear_forward."""
    N = draw(st.integers(1, largest))
    C = draw(small)
    K = draw(small)
    dtype = draw(dtypes)
    x = values(draw, dtype, N, C)
    w = values(draw, dtype, C, K)
    return {"x": x, "w": w, "b": values(draw, dtype, K)}


@st.composite
def cross_entropy_cases(draw: Any, largest: int) -> Case:
    """Arguments of softmax_cross_entropy; some logits are large."""
    N = draw(st.integers(1, largest))
    K = draw(st.integers(1, largest))
    logits = values(draw, draw(dtypes), N, K) + draw(st.sampled_from([0, 1000]))
    labels = draw(st.lists(st.integers(0, K - 1), min_size=N, max_size=N))
    return {"logits": logits, "labels": np.array(labels)}


@st.composite
def forward_backward_cases(draw: Any, op: str, inputs: st.SearchStrategy[Case]) -> Case:
    """Arguments of a forward, and a gradient for its backward."""
    case = draw(inputs)
    y = getattr(numpy_ops, f"{op}_forward")(**case)[0]
    return case | {"dy": values(draw, y.dtype, *y.shape)}


@st.composite
def residual_block_cases(draw: Any) -> Case:
    """A residual block whose body is one convolution; its shortcut is the identity, or option A."""
    C = draw(small)
    grows = draw(st.booleans())
    dtype = draw(dtypes)
    K, stride = (2 * C, 2) if grows else (C, 1)
    x = values(draw, dtype, draw(small), 2, 2, C)
    w = values(draw, dtype, 1, 1, C, K)
    dy = values(draw, dtype, len(x), 2 // stride, 2 // stride, K)
    return {"x": x, "w": w, "stride": stride, "dy": dy}


@st.composite
def sgd_cases(draw: Any) -> Case:
    """Some weights, and the gradients of a few steps."""
    dtype = draw(dtypes)
    size = draw(small)
    gradients = [values(draw, dtype, size) for _ in range(draw(st.integers(1, 3)))]
    rates = st.sampled_from([0.0, 0.5, 0.25])
    momentum = draw(rates)
    weight_decay = draw(rates)
    return {
        "w": values(draw, dtype, size),
        "gradients": gradients,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "lr": draw(st.sampled_from([1.0, 0.5])),
    }


@st.composite
def schedule_cases(draw: Any) -> Case:
    """Arguments of step_schedule."""
    milestones = sorted(draw(st.lists(st.integers(0, 9), max_size=3, unique=True)))
    lr = draw(st.sampled_from([1.0, 0.1]))
    return {"lr": lr, "milestones": milestones, "iteration": draw(st.integers(0, 10))}


# --------------------------------------------------------------------------------- running a case


def returned(function: Callable[..., Any]) -> list[str]:
    """Names of what a function returns: those behind the arrow of its docstring's contract."""
    contract = re.search(r"-> (.*)", inspect.getdoc(function) or "")
    if contract is None:
        return ["the result"]
    without_shapes = re.sub(r"\(.*?\)", "", contract[1])
    return re.findall(r"\w+", without_shapes)


def run_function(name: str) -> Run:
    """Run one function."""
    names = returned(getattr(numpy_ops, name, None) or (lambda: None))

    def run(module: ModuleType, case: Case) -> dict[str, Any]:
        result = getattr(module, name)(**case)
        return dict(zip(names, result if len(names) > 1 else [result], strict=True))

    return run


def run_op(op: str) -> Run:
    """Run a forward and then its backward."""
    forward = f"{op}_forward"
    backward = f"{op}_backward"
    *outputs, _ = returned(getattr(numpy_ops, forward))
    gradients = returned(getattr(numpy_ops, backward))

    def run(module: ModuleType, case: Case) -> dict[str, Any]:
        inputs = {name: a for name, a in case.items() if name != "dy"}
        *got, cache = getattr(module, forward)(**inputs)
        back = getattr(module, backward)(case["dy"], cache)
        back = back if len(gradients) > 1 else [back]
        return dict(zip(outputs + gradients, [*got, *back], strict=True))

    return run


def run_residual_block(module: ModuleType, case: Case) -> dict[str, Any]:
    """Forward and backward of a residual block."""
    C, K = case["w"].shape[2:]
    body = Conv2d(C, K, 1, case["stride"], rng=0)
    body.params["w"] = case["w"]
    block = module.ResidualBlock(body, module.make_shortcut("A", C, K, case["stride"], 0))
    y = block.forward(case["x"], train=True)
    dx = block.backward(case["dy"])
    return {"y": y, "dx": dx, "dw of the body": body.grads.get("w")}


def run_sgd(module: ModuleType, case: Case) -> dict[str, Any]:
    """Steps of SGD on one live array."""
    sgd = module.SGD({"w": case["w"]}, case["momentum"], case["weight_decay"])
    seen = {}
    for i, g in enumerate(case["gradients"], start=1):
        sgd.step({"w": g}, case["lr"])
        seen[f"w after step {i}"] = case["w"].copy()
    return seen | {"the velocity": sgd.velocity["w"]}


Problem = tuple[st.SearchStrategy[Case], Run]


def problems(largest: int) -> dict[str, Problem]:
    """Strategy and run of every exercise; images have at most `largest` rows and columns."""
    ops = {
        "conv2d": convolution_cases(largest),
        "batchnorm": batch_norm_cases(largest),
        "relu": images(largest).map(lambda x: {"x": x}),
        "max_pool": max_pool_cases(largest),
        "global_avg_pool": images(largest, flat=False).map(lambda x: {"x": x}),
        "linear": linear_cases(largest),
    }
    functions = {
        "im2col": im2col_cases(largest),
        "col2im": col2im_cases(largest),
        "batchnorm_inference": batch_norm_cases(largest, inference=True),
        "softmax_cross_entropy": cross_entropy_cases(largest),
        "step_schedule": schedule_cases(),
    }
    found: dict[str, Problem] = {
        "residual_block_backward": (residual_block_cases(), run_residual_block),
        "sgd_step": (sgd_cases(), run_sgd),
    }
    for name, cases in functions.items():
        found[name] = cases, run_function(name)
    for op, cases in ops.items():
        problem = forward_backward_cases(op, cases), run_op(op)
        found[f"{op}_forward"] = found[f"{op}_backward"] = problem
    return found
