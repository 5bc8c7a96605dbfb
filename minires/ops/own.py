"""A student's own ops in the place of the library's, for one network: see `Layer.use`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from minires.errors import InputError
from minires.ops import get_ops
from minires.text import did_you_mean

OPTIONS = ("groups", "input_gradient")  # arguments that exercises leave out


def with_own(backend: str, own: Mapping[str, Callable[..., Any]]) -> SimpleNamespace:
    """Return the ops of a backend with some of them replaced.

    The other half of a replaced pair is the NumPy op, so that its cache is the documented one. An
    op without the arguments `groups` and `input_gradient`, as in the exercises, is called without
    them.

    Raises
    ------
    InputError
        If there is no op of that name, or what replaces it is not a function.
    """
    ops = dict(vars(get_ops(backend)))
    plain = vars(get_ops("numpy"))
    for name, function in own.items():
        if name not in plain or not callable(plain[name]):
            known = [known for known, op in plain.items() if callable(op)]
            raise InputError(f"expected the name of an op, got {name!r}{did_you_mean(name, known)}")
        if not callable(function):
            raise InputError(f"{name}: expected a function, got {function!r}; give the op itself")
        stem, _, way = name.rpartition("_")
        other = f"{stem}_{'forward' if way == 'backward' else 'backward'}"
        if other in plain and other not in own:
            ops[other] = plain[other]
        ops[name] = _fitted(function, plain[name])
    return SimpleNamespace(**ops)


def _fitted(function: Callable[..., Any], reference: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called without the options that it does not have."""
    options = [name for name in inspect.signature(reference).parameters if name in OPTIONS]
    missing = [name for name in options if name not in inspect.signature(function).parameters]
    if not missing:
        return function
    names = list(inspect.signature(reference).parameters)

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | named
        if "groups" in missing and given.get("groups", 1) != 1:
            raise InputError(
                f"{reference.__name__}: this network has groups, and yours has no such argument; "
                "add groups=1, or choose a network without groups"
            )
        return function(*(value for name, value in given.items() if name not in missing))

    return call
