"""Is this gradient right? A numerical check of any backward pass that says where it fails.

A backward pass computes dx = J^T dy. The check takes a random cotangent dy and compares the result
with differences of <dy, forward(x)> in float64, for every argument. It checks each element of small
arrays. In large arrays it checks some elements, and random directions that move all elements at
once: a direction that fails is halved until the wrong element is found.

Why random: with dy = 1 everywhere the dx of batch norm is 0, and a wrong backward can pass.

Guards refuse checks that prove nothing: *vacuous* (the argument does not matter), *kink* (a ReLU or
a maximum changes sides within the step), *precision* (rounding hides the derivative), *uncovered*
(backward returned no gradient), *unrepeatable* (a second call gives another result).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.gradcheck_arguments import (
    argument_names,
    check_options,
    cotangent_for,
    generator,
    is_real,
    output,
    outputs,
    paired,
    precision_of,
    refuse_changed,
    refuse_empty,
    refuse_unsuitable_inputs,
    same,
)
from minires.gradcheck_differences import Check
from minires.gradcheck_report import GradientError, Method, Report, Row
from minires.layers.base import Layer

__all__ = ["Check", "GradientError", "Method", "Report", "Row", "check_layer", "check_op"]

Array = np.ndarray
Evaluate = Callable[[dict[str, Array]], Array]


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
        tuple or list, or the gradient itself if there is one). It may return None for the target
        of a loss.
    *inputs, **options
        Arguments of forward. Floating-point arrays among the inputs are converted to float64 and
        checked; all others are passed on.
    names : tuple of str, optional
        Names of the checked inputs; by default those in the signature of forward.
    method : {"central", "complex"}
        "complex" has no rounding error but needs a smooth op that takes complex128 (no ReLU, no
        maximum).
    cotangent : ndarray of the shape of y, optional
        Random normal by default; anything less random proves less.
    rng : Generator or seed
    rtol : float
        Largest relative error of an element, beyond the error bar of its differences. The error
        bar itself must be below 4 rtol times the largest gradient of the argument.
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
    refuse_unsuitable_inputs(op, forward, inputs)
    held = [np.array(a, np.float64, order="C") if is_real(a) else a for a in inputs]
    checked = argument_names(op, names, forward, inputs)
    arrays = dict(zip(checked, filter(is_real, held), strict=True))
    check_options(op, method, rtol, elements, **arrays)
    rng = generator(rng)

    def evaluate(moved: dict[str, Array]) -> Array:
        """Output with some arguments moved; complex if one of these is."""
        live = iter([moved.get(name, a) for name, a in arrays.items()])
        dtype = np.result_type(*arrays.values(), *moved.values())
        arguments = [next(live).astype(dtype, copy=False) if is_real(a) else a for a in held]
        return np.asarray(forward(*arguments, **options)[0])

    before = {name: a.copy() for name, a in arrays.items()}

    def run() -> tuple[Array, Any]:
        y, cache = outputs(op, forward(*held, **options))
        refuse_changed(op, "op", arrays, before)
        return y, cache

    y, cache = run()
    dy = cotangent_for(y, cotangent, rng)
    returned = _repeated(op, run, backward, y, dy, cache)
    refuse_changed(op, "op", arrays, before)
    gradients = paired(op, held, arrays, y, returned)
    check = Check(
        op=op, evaluate=evaluate, y=y, dy=dy, method=method, rtol=rtol, rng=rng, elements=elements
    )
    return _report(check, arrays, gradients)


def _repeated(
    op: str,
    run: Callable[[], tuple[Array, Any]],
    backward: Callable[..., Any],
    y: Array,
    dy: Array,
    cache: Any,
) -> Any:
    """Return the gradients; raise unless a second forward and a second backward repeat the first.

    A backward that consumes its cache must raise when it is called a second time; it is then called
    with a new cache.
    """
    if not same(y, run()[0]):
        message = "forward is not deterministic: a second call with the same inputs gives another y"
        advice = "; pass what it draws, such as a dropout mask, as an argument"
        raise GradientError("unrepeatable", op, "", message + advice)

    def gradients(cache: Any) -> Any:
        given = dy.copy() if dy.ndim else dy[()]
        returned = copy.deepcopy(backward(given, cache))
        refuse_changed(op, "op", {"y": np.asarray(given)}, {"y": dy})
        return returned

    first = gradients(cache)
    try:
        second = gradients(cache)
    except Exception:
        second = gradients(run()[1])
    if not same(first, second):
        message = (
            "backward gives another result when called again with the same cache: it changes its "
            "cache, or adds to something that outlives the call"
        )
        raise GradientError("unrepeatable", op, "", message)
    return first


def _report(check: Check, arrays: Mapping[str, Array], gradients: Mapping[str, Any]) -> Report:
    """Check every argument that has a gradient; a progress bar appears after two seconds."""
    checked = {name: a.copy() for name, a in arrays.items() if gradients[name] is not None}
    flat = {name: check.well_formed(name, a, gradients[name]) for name, a in checked.items()}
    check.precision = precision_of(check.op, check.evaluate, checked, check.y, check.rtol)
    lines = sum(map(check.count, flat.values()))
    rows = []
    from tqdm.auto import tqdm

    with tqdm(total=lines, desc=f"check {check.op}", unit=" slopes", delay=2, leave=False) as bar:
        check.tick = bar.update
        for name, a in checked.items():
            rows.append(check.argument(name, a, flat[name]))
    unchecked = tuple(name for name in arrays if name not in checked)
    return Report(check.op, check.method, tuple(rows), unchecked)


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
    and a gradient that is added instead of assigned. Running statistics start from the same values
    in every forward.

    Parameters
    ----------
    layer : Layer
    x : ndarray
        A training input; with batch norm, more than one image. Integers, such as the indices of an
        embedding, are passed on, and dx is not checked.
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
    if not isinstance(layer, Layer):
        raise InputError(f"expected a Layer, got {type(layer).__name__}; use check_op for an op")
    op = layer.name
    rng = generator(rng)
    layer = _float64_copy(layer)
    integers = np.asarray(x).dtype.kind in "biu"
    x = _layer_input(layer, x)
    check_options(op, "central", rtol, elements, **({"x": x} if is_real(x) else {}))
    _leave_traces(layer, x, rng)
    run = _repeatable(op, layer, x)
    y = output(op, run(x))
    dy = cotangent_for(y, cotangent, rng)
    gradients = _layer_gradients(layer, run, x, dy)
    arrays = {"x": x, **layer.parameters()}
    _refuse_uncovered(op, arrays, gradients, integers)
    check = Check(
        op=op,
        evaluate=_evaluator(layer, run, x),
        y=y,
        dy=dy,
        method="central",
        rtol=rtol,
        rng=rng,
        elements=elements,
    )
    return _report(check, arrays, gradients)


def _float64_copy(layer: Layer) -> Layer:
    """Copy a layer in float64, with gradients of 0 where it had gradients."""
    copied = copy.deepcopy(layer).astype("float64")
    for (_, part), (_, old) in zip(copied.named_layers(), layer.named_layers(), strict=True):
        part.grads = {name: np.zeros(np.shape(g)) for name, g in old.grads.items()}
    return copied


def _layer_input(layer: Layer, x: Any) -> Array:
    """Convert an input to float64; leave integers that serve as indices."""
    x = np.array(x, order="C")
    if x.dtype.kind not in "fbiu" or x.size == 0:
        message = f"cannot be checked: expected real numbers, at least one, got {x.dtype} {x.shape}"
        raise GradientError("unsuitable", layer.name, "x", message)
    as_float = x.astype(np.float64)
    if x.dtype.kind != "f":
        try:
            copy.deepcopy(layer).forward(as_float, train=True)
        except (IndexError, TypeError, ValueError):
            return x
    return as_float


def _leave_traces(layer: Layer, x: Array, rng: np.random.Generator) -> None:
    """Run forward and backward on other data, so that caches and gradients are filled."""
    other = rng.permutation(x.reshape(-1)).reshape(x.shape)
    if is_real(x):
        other *= rng.uniform(0.5, 1, x.shape)
    with np.errstate(all="ignore"):
        y = layer.forward(other, train=True)
        if not is_real(y):
            message = f"forward must return an array of real numbers, got {type(y).__name__}"
            raise GradientError("unsuitable", layer.name, "", message)
        layer.backward(np.ones_like(y))


def _forget_gradients(layer: Layer) -> None:
    for _, part in layer.named_layers():
        part.grads = {name: np.full_like(g, np.nan) for name, g in part.grads.items()}


def _repeatable(op: str, layer: Layer, x: Array) -> Callable[[Array], Array]:
    """Return forward in training mode; it starts from the same running statistics every time."""
    before = _state(layer)
    x_before = x.copy()

    def run(x: Array) -> Array:
        return layer.forward(x, train=True)

    def run_from_start(x: Array) -> Array:
        for part, state in before:
            vars(part).update(copy.deepcopy(state))
        return run(x)

    for candidate in (run, run_from_start):
        y = np.array(candidate(x))
        refuse_changed(op, "layer", {"x": x}, {"x": x_before})
        if same(y, candidate(x)):
            return candidate
    message = "forward is not deterministic: a second call with the same x gives another y"
    advice = "; draw random numbers from Layer.random(), which repeats them, and call reseed"
    raise GradientError("unrepeatable", op, "", message + advice)


def _state(layer: Layer) -> list[tuple[Layer, dict[str, Any]]]:
    """Copy what forward may change in each part of a layer: buffers, numbers, arrays."""
    other = ("params", "grads", "children", "seeds", "_cache")
    kinds = (np.ndarray, np.number, int, float, list, tuple, dict)
    return [
        (
            part,
            {
                name: copy.deepcopy(value)
                for name, value in vars(part).items()
                if name not in other and isinstance(value, kinds)
            },
        )
        for _, part in layer.named_layers()
    ]


def _layer_gradients(
    layer: Layer, run: Callable[[Array], Array], x: Array, dy: Array
) -> dict[str, Any]:
    """Gradients of x and of all parameters; raise unless a second pass repeats the first."""
    results = []
    arrays = {"x": x, "y": dy, **layer.parameters()}
    before = {name: a.copy() for name, a in arrays.items()}
    for _ in range(2):
        _forget_gradients(layer)
        run(x)
        results.append(copy.deepcopy({"x": layer.backward(dy), **layer.gradients()}))
        refuse_changed(layer.name, "layer", arrays, before)
    first, second = results
    for name, gradient in first.items():
        if not same(gradient, second[name]):
            message = "is another one when forward and backward run again: backward keeps state"
            raise GradientError("unrepeatable", layer.name, name, message)
    return first


def _refuse_uncovered(
    op: str, arrays: Mapping[str, Array], gradients: Mapping[str, Any], integers: bool
) -> None:
    """Raise if a parameter, or an x that is not integers, got no gradient."""
    for name, a in arrays.items():
        refuse_empty(op, name, a)
        gradient = gradients.get(name)
        if name == "x" and gradient is None:
            if not integers:
                message = "is missing: backward returned None; let it return the gradient of x"
                raise GradientError("uncovered", op, name, message)
        elif gradient is None or np.isnan(gradient).all():
            message = "is missing: backward did not assign it, or added it to the old one"
            raise GradientError("uncovered", op, name, message)
    if len(arrays) == 1 and integers and gradients["x"] is None:
        message = "nothing to check: x has no gradient, and the layer has no parameters"
        raise GradientError("unsuitable", op, "", message)


def _evaluator(layer: Layer, run: Callable[[Array], Array], x: Array) -> Evaluate:
    """Return a function from moved arguments to the output; it restores all other arguments."""
    original = {name: a.copy() for name, a in layer.parameters().items()}
    changed: set[str] = set()

    def evaluate(moved: dict[str, Array]) -> Array:
        nonlocal changed
        parameters = layer.parameters()
        before, changed = changed, moved.keys() - {"x"}
        for name in before | changed:
            parameters[name][...] = moved.get(name, original[name])
        return run(moved.get("x", x))

    return evaluate
