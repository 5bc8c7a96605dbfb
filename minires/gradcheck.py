"""Is this gradient right? A numerical check of any backward pass that is hard to fool, and says where it fails.

A backward pass computes dx = J^T dy. With a random cotangent dy (never ones: batch norm's dx is then 0, and every
wrong backward passes) the check compares it with differences of <dy, forward(x)>, in float64, for every argument: each
element of small arrays; in large ones some elements, and random directions that move all elements at once: one that
fails is halved until the wrong element is found. Three guards refuse checks that prove nothing: *vacuous* (the argument
does not matter), *kink* (a ReLU or a maximum changes sides within the step), *uncovered* (no gradient came).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.gradcheck_report import GradientError, Method, Report, Row
from minires.layers.base import Layer

Array = np.ndarray

EPS = float(np.finfo(np.float64).eps)
CENTRAL_STEP = (
    2.0**-17
)  # about EPS ** (1 / 3), where truncation h^2 and rounding eps / h balance; a + h is exact
COMPLEX_STEP = 1e-30  # no subtraction, no rounding: as small as one likes
SHRINK = (
    1,
    1 / 8,
    1 / 64,
    1 / 512,
)  # smaller steps to get off a kink that is near; 1/512 still leaves 8 digits


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
    """Check `backward(dy, cache)` against differences of `forward(*inputs, **options) -> y, ..., cache`.

    Parameters
    ----------
    forward, backward : callable
        An op of the contract, such as `ops.conv2d_forward` and `ops.conv2d_backward`. Backward returns one gradient for
        each floating-point array among the inputs, in their order (a tuple, or the gradient itself if there is one).
    *inputs, **options
        Arguments of forward. Floating-point arrays are converted to float64 and checked; all else is passed on.
    names : tuple of str, optional
        Names of the checked inputs; by default those in the signature of forward.
    method : {"central", "complex"}
        "complex" has no rounding error but needs a smooth op that takes complex128 (no ReLU, no maximum).
    cotangent : ndarray of the shape of y, optional
        By default random normal. Anything less random proves less.
    rng : Generator or seed
    rtol : float
        Largest error allowed, relative to the largest gradient of the argument.
    elements : int
        Elements checked one by one in each argument; larger arrays are checked along random directions too.

    Returns
    -------
    report : Report

    Raises
    ------
    GradientError
        Naming op, argument, index, analytic and numeric value, or the guard that the check ran into.
    """
    op = getattr(forward, "__name__", "op").removesuffix("_forward")
    held = [a.astype(np.float64, order="C") if _is_real(a) else a for a in inputs]
    real = [a for a in held if _is_real(a)]
    names = (
        _argument_names(forward, inputs) if names is None else _check_names(op, names, len(real))
    )
    arrays = dict(zip(names, real, strict=True))
    _check_options(op, method, rtol, elements, **arrays)
    rng = _generator(rng)

    def evaluate(moved: dict[str, Array]) -> Array:
        live = iter([moved.get(name, a) for name, a in arrays.items()])
        dtype = np.result_type(*arrays.values(), *moved.values())
        return np.asarray(
            forward(*(next(live).astype(dtype) if _is_real(a) else a for a in held), **options)[0]
        )

    before = {name: a.copy() for name, a in arrays.items()}
    result = forward(*held, **options)
    y, cache = np.array(result[0]), result[-1]
    dy = _cotangent(cotangent, y, rng)
    kept = dy.copy()
    gradients = backward(dy if y.ndim else dy[()], cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    for i, name in enumerate(arrays):
        if i >= len(gradients) or gradients[i] is None:
            came = f"did not come: backward returned {len(gradients)} of {len(arrays)} gradients"
            raise GradientError("uncovered", op, name, came)
    if len(gradients) > len(arrays):
        raise GradientError(
            "shape", op, "?", f"backward returned {len(gradients)} gradients for {tuple(arrays)}"
        )
    for name, a in (arrays | {"y": dy}).items():
        if not np.array_equal(a, (before | {"y": kept})[name], equal_nan=True):
            raise GradientError(
                "changed",
                op,
                name,
                f"cannot be trusted: the op changed its argument {name} in place",
            )
    check = _Check(op, evaluate, y, dy, method, rng, rtol, elements)
    pairs = zip(arrays.items(), gradients, strict=True)
    return Report(
        op, method, tuple(check.argument(name, a, gradient) for (name, a), gradient in pairs)
    )


def check_layer(
    layer: Layer,
    x: Array,
    *,
    cotangent: Array | None = None,
    rng: np.random.Generator | int = 0,
    rtol: float = 1e-6,
    elements: int = 64,
) -> Report:
    """Check a layer, a block or a whole network in training mode: dx and the gradient of every parameter.

    The layer itself is left alone: a float64 copy is checked. The copy first runs forward and backward on other data,
    and its gradients are overwritten with NaN: so a stale cache is found, and a gradient that is added, not assigned.

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
    op, rng = layer.name, _generator(rng)
    layer, x = copy.deepcopy(layer).astype("float64"), np.array(x, np.float64, order="C")
    other = rng.standard_normal(x.shape)
    layer.backward(np.ones_like(layer.forward(other, train=True)))
    for _, part in layer.named_layers():
        part.grads = {name: np.full_like(g, np.nan) for name, g in part.grads.items()}

    _check_options(op, "central", rtol, elements, x=x)
    before = x.copy()
    y = layer.forward(x, train=True).copy()
    dy = _cotangent(cotangent, y, rng)
    kept = dy.copy()
    gradients = {"x": layer.backward(dy), **layer.gradients()}
    for name, a, b in (("x", x, before), ("y", dy, kept)):
        if not np.array_equal(a, b):
            raise GradientError(
                "changed", op, name, f"cannot be trusted: the layer changed {name} in place"
            )
    parameters = layer.parameters()
    for name in parameters:
        if name not in gradients or np.isnan(gradients[name]).all():
            raise GradientError(
                "uncovered",
                op,
                name,
                "did not come: backward assigned none, or added to an old one",
            )

    def evaluate(moved: dict[str, Array]) -> Array:
        for name, value in moved.items():
            if name != "x":
                parameters[name][...] = value
        return layer.forward(moved.get("x", x), train=True)

    check = _Check(op, evaluate, y, dy, "central", rng, rtol, elements)
    rows = []
    for name, a in {"x": x, **parameters}.items():
        original = a.copy()
        rows.append(check.argument(name, original, gradients[name]))
        a[...] = original
    return Report(op, "central", tuple(rows))


# ------------------------------------------------------------------------------------------------------ the machinery


@dataclass
class _Check:
    op: str
    evaluate: Callable[
        [dict[str, Array]], Array
    ]  # the output, with the arguments named moved to these values
    y: Array
    dy: Array
    method: Method
    rng: np.random.Generator
    rtol: float
    elements: int

    def __post_init__(self) -> None:
        _check_finite(self.op, y=self.y)

    def argument(self, name: str, a: Array, analytic: Array) -> Row:
        """Check the gradient `analytic` of one argument `a`, or raise."""
        if np.shape(analytic) != a.shape:
            raise GradientError(
                "shape", self.op, name, f"has shape {np.shape(analytic)}, the argument {a.shape}"
            )
        if not np.isfinite(analytic).all():
            where = tuple(map(int, np.argwhere(~np.isfinite(analytic))[0]))
            raise GradientError(
                "nonfinite", self.op, name, f"at {where} is {analytic[where]}", where
            )
        analytic = np.asarray(analytic, np.float64)
        everything = a.size <= self.elements
        chosen = (
            np.arange(a.size)
            if everything
            else self.rng.choice(a.size, self.elements, replace=False)
        )
        shape = (0 if everything else 2, a.size)
        along = list(
            self.rng.choice([-1.0, 1.0], shape) * self.rng.integers(512, 1537, shape) / 1024
        )  # few are equal
        units, h = [_unit(a.size, i) for i in chosen], self._step(a)
        rough = max(
            abs(self._difference(name, a, v, h)[0]) / float(np.linalg.norm(v))
            for v in (*along, *units)
        )
        self._refuse_vacuous(name, a, rough)
        numeric = np.array([self._derivative(name, a, v, rough)[0] for v in units])
        scale = max(rough, float(np.abs(numeric).max()))
        flat = analytic.ravel()
        errors = np.abs(flat[chosen] - numeric) / scale
        worst = int(errors.argmax())
        if errors[worst] > self.rtol:
            self._wrong(
                name, a, int(chosen[worst]), flat, float(numeric[worst]), float(errors[worst])
            )
        for v in along:
            self._direction(name, a, v, flat, scale)
        index = tuple(map(int, np.unravel_index(chosen[worst], a.shape)))
        return Row(
            name, a.shape, len(chosen), index, float(analytic[index]), numeric[worst], errors[worst]
        )

    def _step(self, a: Array) -> float:
        """Step h, a power of two so that a + h is exact; longer where the digits of large numbers would drown it."""
        largest = max(float(np.abs(a).max()), float(np.abs(self.y).max()))
        return CENTRAL_STEP * 2.0 ** max(0, int(np.log2(largest / 16 + EPS)))

    def _difference(self, name: str, a: Array, v: Array, h: float) -> tuple[float, float, float]:
        """First derivative along v, jump of slopes, and rounding error of the first, all of <dy, y> at step h."""
        v = v.reshape(a.shape)
        if self.method == "complex":
            y = self.evaluate({name: a + 1j * COMPLEX_STEP * v})
            if not np.iscomplexobj(y):
                dropped = "cannot be checked by a complex step: the op dropped the imaginary part"
                raise GradientError("kink", self.op, name, dropped)
            return float((self.dy * y.imag).sum() / COMPLEX_STEP), 0.0, 0.0
        up, down = self.evaluate({name: a + h * v}).copy(), self.evaluate({name: a - h * v})
        rounding = EPS * float(np.abs(self.dy * (up + down)).max()) * np.sqrt(self.dy.size) / h
        slope = float((self.dy * (up - down)).sum()) / (
            2 * h
        )  # outputs that did not move cancel exactly
        return slope, float((self.dy * ((up - self.y) - (self.y - down))).sum()) / h, rounding

    def _derivative(self, name: str, a: Array, v: Array, scale: float) -> tuple[float, float]:
        """Derivative and its rounding error, from steps h and h/2 that agree and where both sides have one slope."""
        if self.method == "complex":
            return self._difference(name, a, v, COMPLEX_STEP)[0], 0.0
        for shrink in SHRINK:
            h = self._step(a) * shrink
            (d1, jump1, _), (d2, jump2, rounding) = (
                self._difference(name, a, v, s) for s in (h, h / 2)
            )
            small = self.rtol * scale + rounding
            one_slope = abs(jump2) <= max(
                0.75 * abs(jump1), 4 * small
            )  # a curvature halves with h, a kink stays
            if abs(d1 - d2) <= small and one_slope:
                return (4 * d2 - d1) / 3, rounding
        index = tuple(map(int, np.unravel_index(int(np.abs(v).argmax()), a.shape)))
        message = (
            f"cannot be checked near {index}: slopes from left and right differ by {abs(jump2):.3g} within {h:.0e}, "
            "so a ReLU or a maximum changes sides there, or digits are lost; take inputs off the kink, or smaller ones"
        )
        raise GradientError("kink", self.op, name, message, index, None, d2)

    def _refuse_vacuous(self, name: str, a: Array, rough: float) -> None:
        noise = EPS * float(np.abs(self.dy * self.y).max()) * np.sqrt(self.dy.size) / self._step(a)
        if rough <= (10 * noise if self.method == "central" else 0.0):
            message = (
                f"proves nothing: the numeric gradient is 0 everywhere (at most {rough:.1e}), and a backward that only "
                "returns 0 would pass; use a random cotangent, more than one image, or an input that matters"
            )
            raise GradientError("vacuous", self.op, name, message, None, None, rough)

    def _direction(self, name: str, a: Array, v: Array, analytic: Array, scale: float) -> None:
        """Check all elements at once; if they fail, halve the direction until one wrong element is left."""
        if self._agrees(name, a, v, analytic, scale):
            return
        candidates = np.arange(a.size)
        while len(candidates) > 1:
            half = candidates[: len(candidates) // 2]
            masked = np.zeros_like(v)
            masked[half] = v[half]
            candidates = (
                candidates[len(half) :] if self._agrees(name, a, masked, analytic, scale) else half
            )
        i = int(candidates[0])
        numeric, _ = self._derivative(name, a, _unit(a.size, i), scale)
        self._wrong(name, a, i, analytic, numeric, abs(float(analytic[i]) - numeric) / scale)

    def _agrees(self, name: str, a: Array, v: Array, analytic: Array, scale: float) -> bool:
        numeric, rounding = self._derivative(name, a, v, scale)
        return abs(float(analytic @ v) - numeric) <= self.rtol * scale + rounding

    def _wrong(
        self, name: str, a: Array, i: int, analytic: Array, numeric: float, error: float
    ) -> None:
        index = tuple(map(int, np.unravel_index(i, a.shape)))
        raise GradientError(
            "wrong",
            self.op,
            name,
            f"at {index} is {analytic[i]:.10g}, differences give {numeric:.10g} "
            f"(relative error {error:.1e}, allowed {self.rtol:.0e})",
            index,
            float(analytic[i]),
            numeric,
        )


def _is_real(a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.dtype.kind == "f"


def _argument_names(forward: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[str, ...]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = [p.name for p in inspect.signature(forward).parameters.values() if p.kind in kinds]
    known += [f"input {i}" for i in range(len(known), len(inputs))]
    return tuple(name for name, a in zip(known, inputs, strict=False) if _is_real(a))


def _generator(rng: np.random.Generator | int) -> np.random.Generator:
    """Return a stream of its own for a seed: an x drawn from the same seed must not come out as its own cotangent."""
    own = (
        rng if isinstance(rng, np.random.Generator) else np.random.SeedSequence(rng, spawn_key=(1,))
    )
    return np.random.default_rng(own)


def _cotangent(given: Array | float | None, y: Array, rng: np.random.Generator) -> Array:
    dy = np.asarray(rng.standard_normal(y.shape) if given is None else given, np.float64)
    return np.array(_check_broadcast("cotangent", dy, y.shape))


def _unit(size: int, i: int) -> Array:
    v = np.zeros(size)
    v[i] = 1
    return v


def _check_finite(op: str, **named: np.ndarray) -> None:
    """Nothing in these arrays is NaN or infinite."""
    for name, a in named.items():
        if not np.isfinite(a).all():
            where = tuple(map(int, np.argwhere(~np.isfinite(a))[0]))
            raise InputError(f"{op}: {name} at {where} is {a[where]}; give finite numbers")


def _check_broadcast(name: str, a: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`a`, a number or an array of `shape`, in that shape."""
    if a.shape not in ((), shape):
        raise InputError(f"{name} must be a number or have shape {shape}, got {a.shape}")
    return np.broadcast_to(a, shape)


def _check_names(op: str, given: tuple[str, ...], count: int) -> tuple[str, ...]:
    """One name for each floating-point array."""
    if len(given) != count:
        raise InputError(
            f"{op}: expected {count} names, one for each floating-point array, got {given}"
        )
    return given


def _check_options(op: str, method: str, rtol: float, elements: int, **inputs: np.ndarray) -> None:
    """How to check gradients, and where: a known method, a tolerance below 1, an element or more, finite inputs."""
    _check_finite(op, **inputs)
    if method not in ("central", "complex"):
        raise InputError(f"{op}: method must be 'central' or 'complex', got {method!r}")
    if not 0 < rtol < 1:
        raise InputError(f"{op}: rtol must lie between 0 and 1, got {rtol}; the default is 1e-6")
    if not isinstance(elements, (int, np.integer)) or elements < 1:
        raise InputError(f"{op}: elements must be an integer of at least 1, got {elements!r}")
