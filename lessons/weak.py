"""Bugs that the usual gradient checks miss: every bug of the zoo against checks with one weakness.

The usual check takes a central difference for each element and asks for a small
||analytic - numeric||, relative to ||analytic|| + ||numeric|| where that is above 1. It has no
guards and no random directions; `minires.gradcheck`, in the last column, has both. Two checks are
those that courses hand out: minitorch's (sum of the outputs, one sampled index, tolerance 1e-2),
and CS231n's (random cotangent, every element by its own relative error; it prints the error, and
1e-4 is where its notes begin to object).
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from minires.gradcheck import GradientError, check_op
from minires.school.bugs import reference_module
from minires.school.zoo import ZOO

# forward, backward, arguments
Pass = tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]

USUAL: dict[str, Any] = {
    "rtol": 1e-5,
    "step": 1e-5,
    "dtype": "float64",
    "images": 2,
    "ones": False,
    "elements": None,
    "each": False,
}
WEAK: dict[str, dict[str, Any]] = {
    "cotangent of ones": {"ones": True},
    "one random element": {"elements": 1},
    "tolerance 1e-2": {"rtol": 1e-2},
    "batch of one": {"images": 1},
    "minitorch": {"ones": True, "elements": 1, "rtol": 1e-2},
    "CS231n": {"each": True, "rtol": 1e-4},
    "float32": {"dtype": "float32", "step": 1e-3, "rtol": 1e-2},  # below that, right gradients fail
}


def passes(module: ModuleType, function: str, images: int, rng: np.random.Generator) -> list[Pass]:
    """Pairs of forward and backward that use `function`, of the reference or of a planted copy."""
    x = rng.standard_normal((images, 4, 5, 2))
    if module.__name__.endswith("nets.resnet"):
        return [_block(module, x, rng)]
    pairs: dict[str, tuple[Any, ...]] = {
        "conv2d": (x, rng.standard_normal((3, 2, 2, 3)), 2, 1),
        "batchnorm": (x, *rng.uniform(0.5, 2, (2, 2)), 1e-5),
        "relu": (x,),
        "max_pool": (x - 1, 3, 2, 1),
        "global_avg_pool": (x,),
        "linear": (x[:, 0, 0], rng.standard_normal((2, 3)), rng.standard_normal(3)),
    }
    made = {
        op: (getattr(module, f"{op}_forward"), getattr(module, f"{op}_backward"), a)
        for op, a in pairs.items()
    }
    labels = np.arange(images) % 3
    made["softmax_cross_entropy"] = (
        lambda logits: module.softmax_cross_entropy(logits, labels),
        lambda dloss, dlogits: dloss * dlogits,
        (rng.standard_normal((images, 3)),),
    )
    users = {"im2col": ["conv2d"], "col2im": ["conv2d", "max_pool"]}
    op = function.removesuffix("_forward").removesuffix("_backward")
    return [made[name] for name in users.get(op, [op])]


def _block(module: ModuleType, x: np.ndarray, rng: np.random.Generator) -> Pass:
    """A residual block that changes the shape, as a function of x and of the first filters."""
    block = module.ResidualBlock(
        module.basic_body(2, 4, 2, rng), module.make_shortcut("A", 2, 4, 2, rng)
    )
    filters = block.parameters()["body.conv1.w"]

    def forward(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, tuple]:
        block.astype(x.dtype.name).body.children["conv1"].params["w"] = w
        return block.forward(x, train=True), ()

    def backward(dy: np.ndarray, cache: tuple) -> tuple[np.ndarray, np.ndarray]:
        return block.backward(dy), block.body.children["conv1"].grads["w"]

    return forward, backward, (x, filters.astype(np.float64))


def usual_check(way: Pass, rng: np.random.Generator, **corners: Any) -> bool:
    """Whether the usual check, element by element, finds every gradient right."""
    how = USUAL | corners
    forward, backward, arguments = way
    held = [a.astype(how["dtype"]) if isinstance(a, np.ndarray) else a for a in arguments]
    y, *_, cache = forward(*held)
    dy = (
        np.ones_like(y)
        if how["ones"]
        else np.asarray(rng.standard_normal(np.shape(y)), how["dtype"])
    )
    gradients = backward(dy, cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    arrays = [a for a in held if isinstance(a, np.ndarray)]
    for a, gradient in zip(arrays, gradients, strict=True):
        chosen = rng.choice(a.size, how["elements"] or a.size, replace=False)
        numeric = np.zeros(len(chosen))
        for n, index in enumerate(np.unravel_index(i, a.shape) for i in chosen):
            kept = a[index]
            for h in (how["step"], -how["step"]):
                a[index] = kept + h
                numeric[n] += (forward(*held)[0] * dy).sum() / (2 * h)
            a[index] = kept
        analytic = gradient.ravel()[chosen]
        if how["each"]:
            sizes = np.maximum(abs(numeric) + abs(analytic), 1e-8)
            if (abs(numeric - analytic) > how["rtol"] * sizes).any():
                return False
            continue
        size = np.linalg.norm(numeric) + np.linalg.norm(analytic)
        if np.linalg.norm(numeric - analytic) > how["rtol"] * max(size, 1):
            return False
    return True


def our_check(way: Pass, rng: np.random.Generator) -> bool:
    """Whether `minires.gradcheck` vouches for every gradient."""
    try:
        check_op(way[0], way[1], *way[2], rng=rng)
    except GradientError:
        return False
    return True


def weak_checks() -> dict[str, dict[str, bool]]:
    """Try every check on every bug that makes a backward disagree with its forward.

    Returns
    -------
    table : dict of str to dict of str to bool
        For each bug, and before them for the reference, which check found something wrong.
    """
    functions = {
        bug.where: bug.function
        for bug in ZOO
        if bug.where.partition(":")[0] in ("ops.numpy_ops", "nets.resnet")
    }
    right = [_caught(reference_module(where), function) for where, function in functions.items()]
    table = {"the reference": {check: any(row[check] for row in right) for check in right[0]}}
    for bug in ZOO:
        row = _caught(bug.plant(), bug.function) if bug.where in functions else {}
        if any(row.values()):  # the others are wrong in both passes alike, or not in a gradient
            table[bug.name] = row
    return table


def _caught(module: ModuleType, function: str) -> dict[str, bool]:
    found = {}
    for name, corners in WEAK.items():
        ways = passes(module, function, corners.get("images", USUAL["images"]), _rng())
        found[name] = not all(usual_check(way, _rng(1), **corners) for way in ways)
    ways = passes(module, function, USUAL["images"], _rng())
    found["minires.gradcheck"] = not all(our_check(way, _rng(1)) for way in ways)
    return found


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
