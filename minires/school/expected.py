"""The right results of a case, and how far a right solution may be from them.

The allowance follows from the dtype and the reference. Each value in the arguments is changed by a
rounding error. The resulting change in the results, times `TIMES`, is the rounding error allowed to
a solution, which may sum in any sound order. In a well-conditioned case, this is a few units in the
last place.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from minires.school.cases import Run, fresh, with_arrays
from minires.school.draw import Case

TIMES = 32  # rounding errors that a solution may make
SEEDS = (1, 2)  # of the changes


@dataclass(frozen=True)
class Expected:
    """One right result.

    Attributes
    ----------
    value : ndarray
    is_array : bool
        False for a number.
    allowed : float or ndarray
        Largest difference that counts as rounding, of all elements or of each.
    """

    value: np.ndarray
    is_array: bool
    allowed: Any

    def agrees(self, got: np.ndarray) -> np.ndarray:
        """Mark the right elements; two arrays of different shape have none in common."""
        if self.value.shape != got.shape:
            return np.zeros(1, bool)
        atol = np.where(np.isfinite(self.allowed), self.allowed, 0)
        return np.isclose(got, self.value, rtol=0, atol=atol, equal_nan=True)


def expected_results(run: Run, module: ModuleType, case: Case, ties: bool) -> dict[str, Expected]:
    """Run the reference on a case.

    Parameters
    ----------
    run : callable
    module : module
        The reference.
    case : dict
    ties : bool
        Values that are equal must stay equal when the arguments are changed.
    """
    right = run(module, fresh(case))
    exact = run(module, with_arrays(case, lambda a: a.astype(np.float64)))
    eps = max(
        (
            float(np.finfo(v.dtype).eps)
            for v in map(np.asarray, right.values())
            if v.dtype.kind == "f"
        ),
        default=float(np.finfo(np.float64).eps),
    )
    others = [right, *(run(module, _changed(case, eps, seed, ties)) for seed in SEEDS)]
    found = {}
    for name, value in right.items():
        exactly = ties and name == "y"
        noise = 0.0 if exactly else max(_distance(exact[name], other[name]) for other in others)
        # a maximum is an element of x as it is: each has a scale of its own
        size = np.abs(value) if exactly else _largest(value)
        allowed = TIMES * (noise + eps * size)
        found[name] = Expected(np.asarray(value), isinstance(value, np.ndarray), allowed)
    return found


def _changed(case: Case, eps: float, seed: int, ties: bool) -> Case:
    """The case in float64, every value changed by a rounding error of its own, up to `eps`."""
    rng = np.random.default_rng(seed)

    def change(a: np.ndarray) -> np.ndarray:
        exact = a.astype(np.float64)
        if ties:
            return exact * (1 + eps * np.sin(seed + 1e4 * np.frexp(exact)[0]))
        return exact * (1 + eps * rng.uniform(-1, 1, a.shape))

    return with_arrays(case, change)


def _distance(a: Any, b: Any) -> float:
    with np.errstate(all="ignore"):
        difference = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    return float(difference[np.isfinite(difference)].max(initial=0))


def _largest(a: Any) -> float:
    size = np.abs(np.asarray(a, np.float64))
    return float(size[np.isfinite(size)].max(initial=0))
