"""Is this gradient right? A numerical check of any backward pass that says where it fails.

A backward pass computes dx = J^T dy. The check takes a random cotangent dy and compares the result
with differences of <dy, forward(x)> in float64, for every argument. It checks each element of small
arrays. In large arrays it checks some elements, and random directions that move all elements at
once: a direction that fails is halved until the wrong element is found.

Why random: with dy = 1 everywhere the dx of batch norm is 0, and a wrong backward can pass. Three
guards refuse checks that prove nothing: *vacuous* (the argument does not matter), *kink* (a ReLU or
a maximum changes sides within the step), *uncovered* (backward returned no gradient).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from minires.gradcheck_arguments import (
    argument_names,
    check_options,
    cotangent_for,
    generator,
    is_real,
)
from minires.gradcheck_differences import Check
from minires.gradcheck_report import GradientError, Method, Report, Row
from minires.layers.base import Layer

__all__ = ["Check", "GradientError", "Method", "Report", "Row", "check_layer", "check_op"]

Array = np.ndarray


def check_op(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    *inputs: Any,
    names: tuple[str, ...] | None = None,
    method: Method = "central",
    cotangent: Array | float | None = None,
    rng: np.random.Generator | int = 0,
    rtol: float = 1e-6,
    elements: int = 64,
    **options: Any,
) -> Report:
    """Check `backward(dy, cache)` against differences of `forward(*inputs) -> y, ..., cache`.

    Parameters
    ----------
    forward, backward : callable
        An op of the contract, such as `ops.conv2d_forward` and `ops.conv2d_backward`. Backward
        returns one gradient for each floating-point array among the inputs, in their order (a
        tuple, or the gradient itself if there is one).
    *inputs, **options
        Arguments of forward. Floating-point arrays are converted to float64 and checked; all
        others are passed on.
    names : tuple of str, optional
        Names of the checked inputs; by default those in the signature of forward.
    method : {"central", "complex"}
        "complex" has no rounding error but needs a smooth op that takes complex128 (no ReLU, no
        maximum).
    cotangent : ndarray of the shape of y, optional
        Random normal by default; anything less random proves less.
    rng : Generator or seed
    rtol : float
        Largest error allowed, relative to the largest gradient of the argument.
    elements : int
        Elements checked one by one in each argument; larger arrays are also checked along random
        directions.

    Returns
    -------
    report : Report

    Raises
    ------
    GradientError
        Naming op, argument, index, analytic and numeric value; or the guard that refused.
    """
    op = getattr(forward, "__name__", "op").removesuffix("_forward")
    held = [a.astype(np.float64, order="C") if is_real(a) else a for a in inputs]
    checked = argument_names(op, names, forward, inputs)
    arrays = dict(zip(checked, filter(is_real, held), strict=True))
    check_options(op, method, rtol, elements, **arrays)
    rng = generator(rng)

    def evaluate(moved: dict[str, Array]) -> Array:
        """Output with some arguments moved; complex if one of these is."""
        live = iter([moved.get(name, a) for name, a in arrays.items()])
        dtype = np.result_type(*arrays.values(), *moved.values())
        arguments = [next(live).astype(dtype) if is_real(a) else a for a in held]
        return np.asarray(forward(*arguments, **options)[0])

    before = {name: a.copy() for name, a in arrays.items()}
    result = forward(*held, **options)
    y = np.array(result[0])
    dy = cotangent_for(y, cotangent, rng)
    before["y"] = dy.copy()
    gradients = _one_each(op, list(arrays), backward(dy if y.ndim else dy[()], result[-1]))
    _refuse_changed(op, "op", arrays | {"y": dy}, before)
    check = Check(op, evaluate, y, dy, method, rng, rtol, elements)
    rows = tuple(check.argument(name, a, gradients[name]) for name, a in arrays.items())
    return Report(op, method, rows)


def _one_each(op: str, names: list[str], gradients: Any) -> dict[str, Array]:
    """Pair what backward returned with the names of the arguments."""
    given = gradients if isinstance(gradients, tuple) else (gradients,)
    for i, name in enumerate(names):
        if i >= len(given) or given[i] is None:
            found = None if i < len(given) else f"{len(given)} of {len(names)} gradients"
            raise GradientError("uncovered", op, name, f"is missing: backward returned {found}")
    if len(given) > len(names):
        message = f"backward returned {len(given)} gradients for {tuple(names)}"
        raise GradientError("shape", op, "?", message)
    return dict(zip(names, given, strict=True))


def _refuse_changed(
    op: str, culprit: str, after: dict[str, Array], before: dict[str, Array]
) -> None:
    for name, a in after.items():
        if not np.array_equal(a, before[name], equal_nan=True):
            message = f"cannot be trusted: the {culprit} changed {name} in place"
            raise GradientError("changed", op, name, message)


def check_layer(
    layer: Layer,
    x: Array,
    *,
    cotangent: Array | None = None,
    rng: np.random.Generator | int = 0,
    rtol: float = 1e-6,
    elements: int = 64,
) -> Report:
    """Check a layer, a block or a whole network in training mode: dx and all parameter gradients.

    A float64 copy is checked; the layer itself does not change. The copy first runs forward and
    backward on other data, and its gradients are overwritten with NaN: this exposes a stale cache,
    and a gradient that is added instead of assigned.

    Parameters
    ----------
    layer : Layer
    x : ndarray
        A training input; with batch norm, more than one image.
    cotangent, rng, rtol, elements
        As in `check_op`.

    Returns
    -------
    report : Report

    Raises
    ------
    GradientError
        As in `check_op`; "uncovered" where a parameter got no gradient.
    """
    op = layer.name
    rng = generator(rng)
    layer = copy.deepcopy(layer).astype("float64")
    x = np.array(x, np.float64, order="C")
    _leave_traces(layer, rng.standard_normal(x.shape))
    check_options(op, "central", rtol, elements, x=x)
    before = {"x": x.copy()}
    y = layer.forward(x, train=True).copy()
    dy = cotangent_for(y, cotangent, rng)
    before["y"] = dy.copy()
    gradients = {"x": layer.backward(dy), **layer.gradients()}
    _refuse_changed(op, "layer", {"x": x, "y": dy}, before)
    parameters = layer.parameters()
    for name in parameters:
        if name not in gradients or np.isnan(gradients[name]).all():
            message = "is missing: backward did not assign it, or added it to the old one"
            raise GradientError("uncovered", op, name, message)

    def evaluate(moved: dict[str, Array]) -> Array:
        for name, value in moved.items():
            if name != "x":
                parameters[name][...] = value
        return layer.forward(moved.get("x", x), train=True)

    check = Check(op, evaluate, y, dy, "central", rng, rtol, elements)
    rows = []
    for name, a in {"x": x, **parameters}.items():
        original = a.copy()
        rows.append(check.argument(name, original, gradients[name]))
        a[...] = original
    return Report(op, "central", tuple(rows))


def _leave_traces(layer: Layer, x: Array) -> None:
    """Run forward and backward on other data, then set every gradient to NaN."""
    layer.backward(np.ones_like(layer.forward(x, train=True)))
    for _, part in layer.named_layers():
        part.grads = {name: np.full_like(g, np.nan) for name, g in part.grads.items()}
