"""What a gradient check expects of its arguments.

Each function raises `InputError` with what was expected, what was given, and what to do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from minires.errors import InputError

Array = np.ndarray


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
        return _names_in_signature(forward, inputs)
    if len(given) != sum(map(is_real, inputs)):
        raise InputError(
            f"{op}: expected {sum(map(is_real, inputs))} names, "
            f"one for each floating-point array, got {given}"
        )
    return list(given)


def _names_in_signature(forward: Callable[..., Any], inputs: tuple[Any, ...]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = [p.name for p in inspect.signature(forward).parameters.values() if p.kind in kinds]
    known += [f"input {i}" for i in range(len(known), len(inputs))]
    return [name for name, a in zip(known, inputs, strict=False) if is_real(a)]


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
    return np.random.default_rng(np.random.SeedSequence(rng, spawn_key=(1,)))


def cotangent_for(y: Array, given: Array | float | None, rng: np.random.Generator) -> Array:
    """Return dy in the shape of y: the one given, or a random normal one."""
    dy = np.asarray(rng.standard_normal(y.shape) if given is None else given, np.float64)
    if dy.shape not in ((), y.shape):
        raise InputError(f"cotangent must be a number or have shape {y.shape}, got {dy.shape}")
    return np.array(np.broadcast_to(dy, y.shape))
