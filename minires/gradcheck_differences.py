"""Numeric derivatives of <dy, y>, compared with the gradients that a backward pass returned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minires.gradcheck_arguments import finite
from minires.gradcheck_report import GradientError, Method, Row

Array = np.ndarray

EPS = float(np.finfo(np.float64).eps)
# about EPS ** (1 / 3), where truncation h^2 equals rounding EPS / h; a power of 2: a + h is exact
CENTRAL_STEP = 2.0**-17
# no subtraction, so no rounding: any tiny step will do
COMPLEX_STEP = 1e-30
# smaller steps to get off a nearby kink; 1/512 still leaves 8 digits
SHRINK = (1, 1 / 8, 1 / 64, 1 / 512)


@dataclass
class Check:
    """Check of one op at one point.

    Attributes
    ----------
    op : str
        Name for error messages.
    evaluate : callable
        Maps arguments that moved, by name, to the output y; all others stay where they are.
    y, dy : ndarray
        The output and its cotangent.
    method, rng, rtol, elements
        As in `check_op`.
    """

    op: str
    evaluate: Callable[[dict[str, Array]], Array]
    y: Array
    dy: Array
    method: Method
    rng: np.random.Generator
    rtol: float
    elements: int

    def __post_init__(self) -> None:
        finite(self.op, y=self.y)

    def argument(self, name: str, a: Array, analytic: Array) -> Row:
        """Check the gradient `analytic` of one argument `a`, or raise."""
        self._refuse_malformed(name, a, analytic)
        flat = np.asarray(analytic, np.float64).ravel()
        chosen, directions = self._choose(a.size)
        units = [_unit(a.size, i) for i in chosen]

        slopes = [self._rough_slope(name, a, v) for v in (*directions, *units)]
        largest = max(slopes)
        self.refuse_vacuous(name, a, largest)
        numeric = np.array([self.derivative(name, a, v, largest)[0] for v in units])
        scale = max(largest, float(np.abs(numeric).max()))
        errors = np.abs(flat[chosen] - numeric) / scale
        worst = int(errors.argmax())
        if errors[worst] > self.rtol:
            self._refuse_wrong(name, a, int(chosen[worst]), flat, float(numeric[worst]), scale)
        for v in directions:
            self._check_direction(name, a, v, flat, scale)
        return Row(
            argument=name,
            shape=a.shape,
            checked=len(chosen),
            index=_index(chosen[worst], a.shape),
            analytic=float(flat[chosen[worst]]),
            numeric=numeric[worst],
            error=errors[worst],
        )

    def _choose(self, size: int) -> tuple[Array, Array]:
        """Elements to check one by one; two random directions if these are not all."""
        everything = size <= self.elements
        chosen = np.arange(size)
        if not everything:
            chosen = self.rng.choice(size, self.elements, replace=False)
        shape = (0 if everything else 2, size)
        signs = self.rng.choice([-1.0, 1.0], shape)
        sizes = self.rng.integers(512, 1537, shape) / 1024  # few are equal, so errors do not cancel
        return chosen, signs * sizes

    def _step(self, a: Array) -> float:
        """Step h: a power of two, longer for large numbers, whose rounding error is larger."""
        largest = max(float(np.abs(a).max()), float(np.abs(self.y).max()))
        return CENTRAL_STEP * 2.0 ** max(0, int(np.log2(largest / 16 + EPS)))

    def _rough_slope(self, name: str, a: Array, v: Array) -> float:
        """Size of the derivative per unit of length along v, from one step."""
        slope, _, _ = self._difference(name, a, v, self._step(a))
        return abs(slope) / float(np.linalg.norm(v))

    def _difference(self, name: str, a: Array, v: Array, h: float) -> tuple[float, float, float]:
        """Slope of <dy, y> along v, its jump from left to right, and its rounding error."""
        v = v.reshape(a.shape)
        if self.method == "complex":
            return self._complex_slope(name, a, v), 0.0, 0.0
        up = self.evaluate({name: a + h * v}).copy()
        down = self.evaluate({name: a - h * v})
        # elementwise before the sum: outputs that did not move cancel exactly
        slope = float((self.dy * (up - down)).sum()) / (2 * h)
        jump = float((self.dy * ((up - self.y) - (self.y - down))).sum()) / h
        rounding = EPS * float(np.abs(self.dy * (up + down)).max()) * np.sqrt(self.dy.size) / h
        return slope, jump, rounding

    def _complex_slope(self, name: str, a: Array, v: Array) -> float:
        y = self.evaluate({name: a + 1j * COMPLEX_STEP * v})
        if not np.iscomplexobj(y):
            dropped = "cannot be checked by a complex step: the op dropped the imaginary part"
            raise GradientError("kink", self.op, name, dropped)
        return float((self.dy * y.imag).sum() / COMPLEX_STEP)

    def derivative(self, name: str, a: Array, v: Array, scale: float) -> tuple[float, float]:
        """Slope of <dy, y> along v and its rounding error, or raise at a kink.

        The steps h and h/2 must give the same slope, and the same one on both sides.
        """
        if self.method == "complex":
            return self._difference(name, a, v, COMPLEX_STEP)[0], 0.0
        for shrink in SHRINK:
            h = self._step(a) * shrink
            d1, jump1, _ = self._difference(name, a, v, h)
            d2, jump2, rounding = self._difference(name, a, v, h / 2)
            small = self.rtol * scale + rounding
            # the jump from left to right slope halves with h if it is a curvature, not at a kink
            smooth = abs(jump2) <= max(0.75 * abs(jump1), 4 * small)
            if abs(d1 - d2) <= small and smooth:
                return (4 * d2 - d1) / 3, rounding  # cancels the h^2 term of the error
        index = _index(np.abs(v).argmax(), a.shape)
        raise GradientError(
            kind="kink",
            op=self.op,
            argument=name,
            message=f"cannot be checked near {index}: slopes from left and right differ by "
            f"{abs(jump2):.3g} within {h:.0e}, so a ReLU or a maximum changes sides there, "
            "or digits are lost; move inputs off the kink, or use smaller ones",
            index=index,
            numeric=d2,
        )

    def refuse_vacuous(self, name: str, a: Array, largest: float) -> None:
        """Raise if the numeric gradient, at most `largest`, cannot be told from 0."""
        noise = EPS * float(np.abs(self.dy * self.y).max()) * np.sqrt(self.dy.size) / self._step(a)
        if largest <= (10 * noise if self.method == "central" else 0.0):
            raise GradientError(
                kind="vacuous",
                op=self.op,
                argument=name,
                message=f"proves nothing: the numeric gradient is 0 everywhere (at most "
                f"{largest:.1e}), and a backward that only returns 0 would pass; use a random "
                "cotangent, more than one image, or an input that matters",
                numeric=largest,
            )

    def _check_direction(
        self, name: str, a: Array, v: Array, analytic: Array, scale: float
    ) -> None:
        """Check all elements at once; if they fail, halve the direction until one wrong is left."""
        if self._agrees(name, a, v, analytic, scale):
            return
        candidates = np.arange(a.size)
        while len(candidates) > 1:
            half = candidates[: len(candidates) // 2]
            masked = np.zeros_like(v)
            masked[half] = v[half]
            half_agrees = self._agrees(name, a, masked, analytic, scale)
            candidates = candidates[len(half) :] if half_agrees else half
        i = int(candidates[0])
        numeric, _ = self.derivative(name, a, _unit(a.size, i), scale)
        self._refuse_wrong(name, a, i, analytic, numeric, scale)

    def _agrees(self, name: str, a: Array, v: Array, analytic: Array, scale: float) -> bool:
        numeric, rounding = self.derivative(name, a, v, scale)
        return abs(float(analytic @ v) - numeric) <= self.rtol * scale + rounding

    def _refuse_malformed(self, name: str, a: Array, analytic: Array) -> None:
        """Raise if a gradient has another shape than its argument, or is not finite."""
        shape = np.shape(analytic)
        if shape != a.shape:
            message = f"has shape {shape}, the argument {a.shape}"
            raise GradientError("shape", self.op, name, message)
        if not np.isfinite(analytic).all():
            where = tuple(map(int, np.argwhere(~np.isfinite(analytic))[0]))
            message = f"at {where} is {analytic[where]}"
            raise GradientError("nonfinite", self.op, name, message, index=where)

    def _refuse_wrong(
        self, name: str, a: Array, i: int, analytic: Array, numeric: float, scale: float
    ) -> None:
        index = _index(i, a.shape)
        error = abs(float(analytic[i]) - numeric) / scale
        raise GradientError(
            kind="wrong",
            op=self.op,
            argument=name,
            message=f"at {index} is {analytic[i]:.10g}, differences give {numeric:.10g} "
            f"(relative error {error:.1e}, allowed {self.rtol:.0e})",
            index=index,
            analytic=float(analytic[i]),
            numeric=numeric,
        )


def _index(i: int | np.integer, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Index of element number i of an array of this shape."""
    return tuple(map(int, np.unravel_index(int(i), shape)))


def _unit(size: int, i: int) -> Array:
    v = np.zeros(size)
    v[i] = 1
    return v
