"""The problems of the exercises: a strategy that draws cases, and a function that runs a case.

A case is a dict of arguments by name. The function runs it on any copy of a module and returns
every result by name.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from minires.layers.core import Conv2d
from minires.ops import get_ops
from minires.school import draw, draw_alexnet
from minires.school.draw import Case, Size

Run = Callable[[ModuleType, Case], dict[str, Any]]


def returned(function: Callable[..., Any]) -> list[str]:
    """Names of what a function returns: those behind the arrow of its docstring's contract."""
    contract = re.search(r"-> (.*)", inspect.getdoc(function) or "")
    if contract is None:
        return ["the result"]
    without_shapes = re.sub(r"\(.*?\)", "", contract[1])
    return re.findall(r"\w+", without_shapes)


def run_function(name: str) -> Run:
    """Run one function."""
    names = returned(getattr(get_ops("numpy"), name, None) or (lambda: None))

    def run(module: ModuleType, case: Case) -> dict[str, Any]:
        result = getattr(module, name)(**case)
        return dict(zip(names, result if len(names) > 1 else [result], strict=True))

    return run


def run_op(op: str) -> Run:
    """Run a forward and then its backward."""
    forward = f"{op}_forward"
    backward = f"{op}_backward"
    *outputs, _ = returned(getattr(get_ops("numpy"), forward))
    gradients = returned(getattr(get_ops("numpy"), backward))

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
    stride = case["stride"]
    dtype = case["x"].dtype.name
    body = Conv2d(C, K, 1, stride, rng=0).astype(dtype)
    body.params["w"] = case["w"]
    shortcut = module.make_shortcut(case["option"], C, K, stride, 0).astype(dtype)
    block = module.ResidualBlock(body, shortcut)
    y = block.forward(case["x"], train=True)
    dx = block.backward(case["dy"])
    return {"y": y, "dx": dx, "dw of the body": body.grads.get("w")}


def run_sgd(module: ModuleType, case: Case) -> dict[str, Any]:
    """Steps of SGD on live arrays."""
    live = case["parameters"]
    sgd = module.SGD(live, case["momentum"], case["weight_decay"])
    seen: dict[str, Any] = {}
    for i, gradients in enumerate(case["gradients"], start=1):
        sgd.step(gradients, case["lr"])
        seen |= {f"{name} after step {i}": w.copy() for name, w in live.items()}
    return seen | {f"velocity of {name}": v for name, v in sgd.velocity.items()}


Problem = tuple[draw.st.SearchStrategy[Case], Run]


def problems(size: Size) -> dict[str, Problem]:
    """Strategy and run of every exercise, for cases up to this size."""
    ops = {
        "conv2d": draw.convolution_cases(size),
        "batchnorm": draw.batch_norm_cases(size),
        "relu": draw.relu_cases(size),
        "max_pool": draw.max_pool_cases(size),
        "global_avg_pool": draw.average_cases(size),
        "linear": draw.linear_cases(size),
        "local_response_norm": draw_alexnet.response_norm_cases(size),
        "dropout": draw_alexnet.dropout_cases(size),
        "tanh": draw_alexnet.tanh_cases(size),
    }
    functions = {
        "im2col": draw.im2col_cases(size),
        "col2im": draw.col2im_cases(size),
        "batchnorm_inference": draw.batch_norm_cases(size, inference=True),
        "softmax_cross_entropy": draw.cross_entropy_cases(size),
        "dropout_mask": draw_alexnet.mask_cases(size),
        "step_schedule": draw.schedule_cases(size),
    }
    found: dict[str, Problem] = {
        "residual_block_backward": (draw.residual_block_cases(size), run_residual_block),
        "sgd_step": (draw.sgd_cases(size), run_sgd),
    }
    for name, cases in functions.items():
        found[name] = cases, run_function(name)
    for op, cases in ops.items():
        problem = draw.forward_backward_cases(op, cases), run_op(op)
        found[f"{op}_forward"] = found[f"{op}_backward"] = problem
    return found


# ------------------------------------------------------------------------------- copies of a case


def fresh(value: Any) -> Any:
    """Copy a case, or a part of one, with the order of every array in memory."""
    if isinstance(value, dict):
        return {key: fresh(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fresh(item) for item in value]
    if not isinstance(value, np.ndarray):
        return value
    flipped = tuple(axis for axis in range(value.ndim) if value.strides[axis] < 0)
    copy = np.flip(np.flip(value, flipped).copy("K"), flipped) if flipped else value.copy("K")
    copy.flags.writeable = value.flags.writeable
    return copy


def with_arrays(value: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Copy a case, or a part of one, with `change` applied to every array of floats."""
    if isinstance(value, dict):
        return {key: with_arrays(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [with_arrays(item, change) for item in value]
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return change(value)
    return fresh(value)
