"""Check what a gradient check is given: arguments, options, and what the op returns.

A mistake in the call raises `InputError`. An op that cannot be checked raises `GradientError`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.gradcheck_report import GradientError

Array = np.ndarray

EPS = float(np.finfo(np.float64).eps)
# largest difference of two calls that counts as rounding, relative to the largest value
REPEAT = 64 * EPS
# names of arguments that need no gradient: backward may return None for them
TARGETS = {"target", "targets", "t", "label", "labels", "truth", "y", "y_true", "onehot", "one_hot"}
TARGETS |= {"true", "expected", "mask"}


def is_real(a: Any) -> bool:
    """Whether this argument of an op is checked: a floating-point array."""
    return isinstance(a, np.ndarray) and a.dtype.kind == "f"


def finite(op: str, **named: Array) -> None:
    """Refuse arrays with NaN or infinite elements."""
    for name, a in named.items():
        if not np.isfinite(a).all():
            where = tuple(map(int, np.argwhere(~np.isfinite(a))[0]))
            raise InputError(f"{op}: {name} at {where} is {a[where]}; give finite numbers")


def argument_names(op: str, given: tuple[str, ...] | None, forward: Any, inputs: Any) -> list[str]:
    """One name for each floating-point array: those given, or those in the signature of forward."""
    if given is None:
        return [
            name for name, a in zip(_signature(forward, inputs), inputs, strict=False) if is_real(a)
        ]
    if len(given) != sum(map(is_real, inputs)) or len(set(given)) != len(given):
        raise InputError(
            f"{op}: expected {sum(map(is_real, inputs))} different names, "
            f"one for each floating-point array, got {given}"
        )
    return list(given)


def _signature(forward: Callable[..., Any], inputs: tuple[Any, ...]) -> list[str]:
    """One name for each input: that of the parameter, or "input 3" where there is none."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        known = [p.name for p in inspect.signature(forward).parameters.values() if p.kind in kinds]
    except (TypeError, ValueError):  # compiled functions may have no signature
        known = []
    return known + [f"input {i}" for i in range(len(known), len(inputs))]


def refuse_unsuitable_inputs(op: str, forward: Any, inputs: tuple[Any, ...]) -> None:
    """Refuse complex and empty arrays, and a call in which nothing is checked."""
    named = list(zip(_signature(forward, inputs), inputs, strict=False))
    for name, a in named:
        if isinstance(a, np.ndarray) and a.dtype.kind == "c":
            message = f"cannot be checked: {name} has dtype {a.dtype}; give real numbers"
            raise GradientError("unsuitable", op, name, message)
        refuse_empty(op, name, a)
    if not any(map(is_real, inputs)):
        given = ", ".join(f"{name} ({_kind(a)})" for name, a in named) or "no arguments"
        message = (
            f"nothing to check: expected a floating-point array among the inputs, got {given}; "
            "convert with np.array(..., float)"
        )
        raise GradientError("unsuitable", op, "", message)


def refuse_empty(op: str, name: str, a: Any) -> None:
    """Refuse an array without elements."""
    if is_real(a) and a.size == 0:
        message = f"has nothing to check: {name} has shape {a.shape}; give at least one element"
        raise GradientError("unsuitable", op, name, message)


def _kind(a: Any) -> str:
    """Describe an argument in words."""
    return f"array of {a.dtype}" if isinstance(a, np.ndarray) else type(a).__name__


def check_options(op: str, method: str, rtol: float, elements: int, **inputs: Array) -> None:
    """Check that the inputs are finite, the method known, rtol below 1 and elements 1 or more."""
    finite(op, **inputs)
    if method not in ("central", "complex"):
        raise InputError(f"{op}: method must be 'central' or 'complex', got {method!r}")
    if not 0 < rtol < 1:
        raise InputError(f"{op}: rtol must lie between 0 and 1, got {rtol}; the default is 1e-6")
    if not isinstance(elements, (int, np.integer)) or elements < 1:
        raise InputError(f"{op}: elements must be an integer of at least 1, got {elements!r}")


def generator(rng: np.random.Generator | int) -> np.random.Generator:
    """Make a generator from a seed.

    It is a separate stream, so that a cotangent never equals an x drawn from the same seed.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    try:
        return np.random.default_rng(np.random.SeedSequence(rng, spawn_key=(1,)))
    except (TypeError, ValueError):
        raise InputError(
            f"rng must be a seed of at least 0 or a numpy Generator, got {rng!r}"
        ) from None


def cotangent_for(y: Array, given: Array | float | None, rng: np.random.Generator) -> Array:
    """Return dy in the shape of y: the one given, or a random normal one."""
    dy = np.asarray(rng.standard_normal(y.shape) if given is None else given, np.float64)
    if dy.shape not in ((), y.shape):
        raise InputError(f"cotangent must be a number or have shape {y.shape}, got {dy.shape}")
    finite("cotangent", dy=dy)
    return np.array(np.broadcast_to(dy, y.shape))


# ------------------------------------------------------------------------- what the op returns


def outputs(op: str, result: Any) -> tuple[Array, Any]:
    """Return y, as a float64 copy, and the cache of what forward returned."""
    if not isinstance(result, tuple) or len(result) < 2:
        found = f"a tuple of {len(result)}" if isinstance(result, tuple) else _kind(result)
        message = f"forward must return a tuple (y, ..., cache), got {found}"
        raise GradientError("unsuitable", op, "", message)
    return output(op, result[0]), result[-1]


def output(op: str, y: Any) -> Array:
    """Return y as a float64 copy; refuse anything but real numbers."""
    kind = np.asarray(y).dtype.kind
    if kind != "f" or np.size(y) == 0:
        found = f"shape {np.shape(y)}" if kind == "f" else _kind(y)
        message = f"y must be floating-point numbers, at least one, got {found}"
        raise GradientError("unsuitable", op, "", message)
    y = np.array(y, np.float64)
    finite(op, y=y)
    return y


def paired(
    op: str, inputs: list[Any], arrays: Mapping[str, Array], y: Array, returned: Any
) -> dict[str, Any]:
    """Pair what backward returned with the names of the floating-point arguments.

    Backward returns one gradient for each of them, or one for each input. A list is as good as a
    tuple. None stands for a target that needs no gradient.
    """
    given = _sequence(returned)
    names = list(arrays)
    if len(given) == len(inputs) != len(names):
        both = list(zip(inputs, given, strict=True))
        if all(g is None for a, g in both if not is_real(a)):
            given = [g for a, g in both if is_real(a)]
    if len(given) > len(names):
        others = ", ".join(_kind(a) for a in inputs if not is_real(a)) or "none"
        message = (
            f"backward returned {len(given)} gradients for {tuple(names)}; other inputs: {others}; "
            "pass every argument that has a gradient by position, as a floating-point array"
        )
        raise GradientError("shape", op, "?", message)
    pairs = dict(zip(names, given, strict=False))
    for name in names:
        if pairs.get(name) is None and not _is_target(name, arrays, pairs, y):
            found = None if name in pairs else f"{len(given)} of {len(names)} gradients"
            raise GradientError("uncovered", op, name, f"is missing: backward returned {found}")
    return pairs


def _sequence(returned: Any) -> list[Any]:
    """Return the gradients as a list; a list of numbers is one gradient."""
    if isinstance(returned, tuple):
        return list(returned)
    if isinstance(returned, list) and any(isinstance(g, Array | None) for g in returned):
        return returned
    return [returned]


def _is_target(name: str, arrays: Mapping[str, Array], pairs: Mapping[str, Any], y: Array) -> bool:
    """Whether backward may return None for an argument: the target of a loss.

    Either its name is that of a target, or y is a single number and the argument has the same shape
    as one that has a gradient.
    """
    others = [arrays[n].shape for n, g in pairs.items() if g is not None]
    alike = y.size == 1 and arrays[name].shape in others
    return name in pairs and bool(others) and (name in TARGETS or alike)


def same(a: Any, b: Any) -> bool:
    """Whether two results of one call are equal up to rounding."""
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if a is None or b is None:
        return a is b
    a = np.asarray(a)
    b = np.asarray(b)
    if a.shape != b.shape or a.dtype.kind not in "biufc":
        return a.shape == b.shape
    size = np.abs(a.astype(np.complex128))
    largest = float(np.max(size, initial=0, where=np.isfinite(size)))
    return bool(np.allclose(a, b, rtol=0, atol=REPEAT * largest, equal_nan=True))


def refuse_changed(
    op: str, culprit: str, after: Mapping[str, Array], before: Mapping[str, Array]
) -> None:
    """Raise if an array is no longer what it was before the op ran."""
    for name, a in after.items():
        if not np.array_equal(a, before[name], equal_nan=True):
            message = f"cannot be trusted: the {culprit} changed {name} in place"
            raise GradientError("changed", op, name, message)


def precision_of(
    op: str,
    evaluate: Callable[[dict[str, Array]], Array],
    arrays: Mapping[str, Array],
    y: Array,
    rtol: float,
) -> float:
    """Return the machine epsilon of the numbers in y; refuse one that is too coarse for rtol.

    If an op computes in float32 inside, each output is a float32 number, whatever its dtype.
    """
    rng = np.random.default_rng(0)
    moved = {name: a * (1 + rng.uniform(-1, 1, a.shape) / 4096) for name, a in arrays.items()}
    try:
        with np.errstate(all="ignore"):
            other = np.array(evaluate(moved), np.float64)
    except (TypeError, ValueError, ArithmeticError):
        return EPS
    if other.shape != y.shape:
        return EPS
    # unchanged values and whole numbers fit any format, so they reveal nothing
    telling = other[(other != y) & (other != np.round(other)) & np.isfinite(other)]
    for kind in (np.float16, np.float32) if telling.size else ():
        with np.errstate(all="ignore"):
            short = bool((telling.astype(kind) == telling).all())
        eps = float(np.finfo(kind).eps)
        if short and eps > rtol / 1000:
            looser = f", or give rtol={1e4 * eps:.0e}" if 1e4 * eps < 0.1 else ""
            message = (
                f"forward computes in {kind.__name__} inside: differences of y know a gradient to "
                f"about {100 * eps:.0e}, not to rtol={rtol:.0e}; compute in the dtype of the "
                f"arguments, which is float64 here{looser}"
            )
            raise GradientError("precision", op, "", message)
        if short:
            return eps
    return EPS
