"""Send calls that a compiled op cannot serve to the NumPy op of the same name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

Op = TypeVar("Op", bound=Callable)


def numpy_if_complex(numpy_op: Op) -> Callable[[Op], Op]:
    """Send complex input (complex-step gradient checks) to the NumPy op."""

    def decorate(compiled_op: Op) -> Op:
        @wraps(compiled_op)
        def op(*args: Any, **named: Any) -> Any:
            is_complex = _any_complex(args) or (named and _any_complex(named.values()))
            return (numpy_op if is_complex else compiled_op)(*args, **named)

        return op  # type: ignore[return-value]

    return decorate


def _any_complex(arguments: Iterable[Any]) -> bool:
    """Whether an array is complex among the arguments, or inside tuples such as a cache."""
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            if argument.dtype.kind == "c":
                return True
        elif isinstance(argument, tuple) and _any_complex(argument):
            return True
    return False
