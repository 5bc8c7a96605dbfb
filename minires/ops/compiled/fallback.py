"""Send calls that a compiled op cannot serve to the NumPy op of the same name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, TypeVar

import numpy as np

Op = TypeVar("Op", bound=Callable)


def numpy_if_complex(numpy_op: Op) -> Callable[[Op], Op]:
    """Send complex input (complex-step gradient checks) to the NumPy op."""

    def decorate(compiled_op: Op) -> Op:
        @wraps(compiled_op)
        def op(*args: Any, **named: Any) -> Any:
            is_complex = any(a.dtype.kind == "c" for a in _arrays((*args, *named.values())))
            return (numpy_op if is_complex else compiled_op)(*args, **named)

        return op  # type: ignore[return-value]

    return decorate


def _arrays(arguments: Iterable[Any]) -> Iterator[np.ndarray]:
    """Yield the arrays among the arguments, and those inside tuples such as a cache."""
    for argument in arguments:
        for value in argument if isinstance(argument, tuple) else (argument,):
            if isinstance(value, np.ndarray):
                yield value
