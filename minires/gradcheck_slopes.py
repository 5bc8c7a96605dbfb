"""Slopes of <dy, y> along lines, measured by differences, with error bars.

The error bar is the sum of two terms: the remaining error from curvature, estimated from two steps,
and the rounding error of forward, estimated from five points. Without rounding, these points would
lie on a smooth curve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from minires.gradcheck_arguments import EPS
from minires.gradcheck_lines import Line, norm, power_of_2
from minires.gradcheck_report import GradientError, Method

Array = np.ndarray

# about EPS ** (1 / 3), where truncation h^2 equals rounding EPS / h; a power of 2: a + h is exact
CENTRAL_STEP = 2.0**-17
# no subtraction, so no rounding: any tiny step will do
COMPLEX_STEP = 1e-30
# nearest kink that a smaller step may avoid, relative to the largest input
NEAREST_KINK = CENTRAL_STEP / 2048
# fractions of a step used to tell rounding from a kink; one alone may show little noise by chance
SMALLER = (1 / 8, 1 / 9, 1 / 10)
# standard deviations of the rounding error in an error bar
SIGMAS = 10


@dataclass(frozen=True)
class Sample:
    """Slope of <dy, y> along a line, from one step.

    Attributes
    ----------
    step, slope : float
    truncation : float
        Difference of the slopes from the step and from half of it.
    noise : float
        Standard deviation of <dy, y>, measured.
    size : float
        Norm of the terms dy * y that moved: rounding errors are proportional to it.
    jumps : (float, float)
        Slope on the right minus slope on the left, from the step and from half of it.
    """

    step: float
    slope: float
    truncation: float
    noise: float
    size: float
    jumps: tuple[float, float] = (0.0, 0.0)


@dataclass(kw_only=True)
class Slopes:
    """Numeric slopes of one op at one point.

    Attributes
    ----------
    op : str
        Name for error messages.
    evaluate : callable
        Maps arguments that moved, by name, to the output y; all others stay where they are.
    y, dy : ndarray
        The output and its cotangent.
    method, rtol
        As in `check_op`.
    precision : float
        Machine epsilon of the numbers in y.
    noise : float
        Smallest rounding error that error bars assume for an element of y, relative to its value.
    trouble : str
        Why forward gave no finite number; it is part of error messages.
    """

    op: str
    evaluate: Callable[[dict[str, Array]], Array]
    y: Array
    dy: Array
    method: Method
    rtol: float
    precision: float = EPS
    noise: float = EPS / 2
    trouble: str = field(default="", init=False)

    def sample(self, line: Line, h: float) -> Sample:
        """Slope of <dy, y> along a line: from the steps h and h/2, or from a complex step."""
        if self.method == "complex":
            return self.complex_sample(line)
        return self.central_sample(line, h)

    def central_sample(self, line: Line, h: float) -> Sample:
        """Slope from central differences with the steps h and h/2."""
        up, up2, down2, down = (self._moved(line, t) for t in (h, h / 2, -h / 2, -h))
        points = (up, up2, self.y, down2, down)
        moved = np.flatnonzero((up != self.y) | (down != self.y))
        dy = self.dy.reshape(-1)
        with np.errstate(all="ignore"):
            if moved.size == 0:  # the slope may be below what y can show
                return Sample(h, 0.0, 0.0, 0.0, norm(dy * self.y.reshape(-1)))
            # terms of <dy, y>, elementwise before the sum: outputs that did not move cancel exactly
            up, up2, y, down2, down = (dy[moved] * p.reshape(-1)[moved] for p in points)
            wide = float((up - down).sum()) / (2 * h)
            narrow = float((up2 - down2).sum()) / h
            jump = float((up - 2 * y + down).sum()) / h
            jump2 = float((up2 - 2 * y + down2).sum()) / (h / 2)
            # 0 for any cubic: what is left is rounding, and 1 + 16 + 36 + 16 + 1 = 70
            rest = up - 4 * up2 + 6 * y - 4 * down2 + down
            noise = max(abs(float(rest.sum())), norm(rest)) / 70**0.5
            noise = max(noise, EPS * norm(up - down))  # the sums round, too
            size = norm(np.maximum(np.abs(up), np.abs(down)))
        # these weights cancel the h^2 term of the error
        slope = (4 * narrow - wide) / 3
        return Sample(h, slope, abs(wide - narrow), noise, size, (jump, jump2))

    def complex_sample(self, line: Line) -> Sample:
        """Slope from the imaginary part of y; raise if the op does not take complex numbers."""
        y = self._moved(line, 1j * COMPLEX_STEP)
        if not np.iscomplexobj(y):
            dropped = "cannot be checked by a complex step: the op dropped the imaginary part"
            raise GradientError("kink", self.op, line.name, dropped)
        with np.errstate(all="ignore"):
            terms = self.dy * (y.imag / COMPLEX_STEP)
            # forward rounds each term; a change of the argument by EPS changes y by about EPS y
            size = norm(terms) + norm(self.dy * self.y) / line.scale
            return Sample(1.0, float(terms.sum()), 0.0, EPS * size, size)

    def _moved(self, line: Line, t: complex) -> Array:
        """Return y with the argument moved by t along the line; NaN where forward refuses it."""
        try:
            with np.errstate(all="ignore"):
                y = np.array(self.evaluate({line.name: line.point(t)}))
        except (TypeError, ValueError, ArithmeticError) as e:
            self.trouble = f" (it raised {type(e).__name__}: {e})"
            if isinstance(t, complex):
                message = (
                    "cannot be checked by a complex step: forward takes no complex numbers"
                    f"{self.trouble}; use method='central'"
                )
                raise GradientError("unsuitable", self.op, line.name, message) from e
            return np.full(self.y.shape, np.nan)
        if y.shape != self.y.shape:
            self.trouble = f" (y changes its shape from {self.y.shape} to {y.shape})"
            return np.full(self.y.shape, np.nan)
        return y

    def error(self, sample: Sample) -> float:
        """Error bar of a sample: what is left of curvature, and rounding; infinite for NaN."""
        error = sample.truncation + self.rounding(sample)
        return error if np.isfinite(error) and np.isfinite(sample.slope) else np.inf

    def rounding(self, sample: Sample) -> float:
        """Part of the error bar that comes from rounding in forward."""
        return SIGMAS * max(sample.noise, self.noise * sample.size) / sample.step

    def on_kink(self, sample: Sample) -> bool:
        """Whether left and right slopes differ as much at h/2 as at h; curvature gives half."""
        first, second = sample.jumps
        large = abs(second) > 4 * SIGMAS * self.noise * sample.size / sample.step
        return large and abs(first - second) <= 0.25 * abs(second)

    def rounds(self, line: Line, sample: Sample) -> bool:
        """Whether a sample's noise is rounding: it stays at smaller steps, where a kink's falls."""
        if self.method == "complex":
            return True
        smaller = [self.central_sample(line, part * sample.step).noise for part in SMALLER]
        return max(smaller) >= sample.noise / 4

    def derivative(self, line: Line, first: Sample, scale: float) -> Sample:
        """Return the sample with the smallest error bar, from the step that suits this line.

        A smaller step may get off a kink; a longer one lifts the slope above the rounding error.
        `scale` is the largest slope of the argument: an element that does not matter at all needs
        no error bar smaller than rtol times that.
        """
        samples = [first]
        best = first
        for h in self._other_steps(line, samples):
            size = abs(best.slope) / line.length if best.slope else scale
            if self.error(best) <= self.rtol * size:
                break
            samples.append(self.central_sample(line, h))
            best = min(samples, key=self.error)
        return best

    def _other_steps(self, line: Line, samples: list[Sample]) -> Iterator[float]:
        """Steps to try after the first: longer ones first if rounding dominates."""
        first = samples[0]
        largest = float(np.abs(line.a).max()) or line.scale
        noisy = self._noisy(first, 1)
        if noisy:
            yield from self._longer_steps(first, largest, samples)
        h = first.step / 8
        last = first
        while h >= NEAREST_KINK * largest:
            yield h
            h /= 8
            before, last = last, samples[-1]
            # rounding stays when the step shrinks; curvature and kinks fall
            if self._noisy(last, 8) and last.noise > before.noise / 4:
                break
        own = abs(float(line.a.reshape(-1)[line.index])) if line.index is not None else 0.0
        if own and not any(map(self.on_kink, samples)):
            yield CENTRAL_STEP * power_of_2(own)
        if not noisy:
            yield from self._longer_steps(first, largest, samples)

    def _noisy(self, sample: Sample, times: float) -> bool:
        """Whether the rounding error is `times` larger than the truncation, off a kink."""
        return self.rounding(sample) > times * sample.truncation and not self.on_kink(sample)

    def _longer_steps(
        self, first: Sample, largest: float, samples: list[Sample]
    ) -> Iterator[float]:
        """Steps between one where rounding dominates and one that is certainly too long."""
        low = first.step
        high = max(1.0, largest) / 8
        wanted = self.rtol * abs(first.slope) / 8
        h = min(high, low * self.rounding(first) / wanted) if wanted else high
        for _ in range(3):
            if not low < h / 2:
                return
            yield power_of_2(h)
            low, high = (h, high) if self._noisy(samples[-1], 1) else (low, h)
            h = (low * high) ** 0.5

    def no_number(self, line: Line) -> GradientError:
        """Error for a line on which forward gave NaN, infinity or an exception."""
        message = f"cannot be checked {line.where}: forward gives no finite number there"
        message += f"{self.trouble}; choose other inputs"
        return GradientError("nonfinite", self.op, line.name, message, index=line.place)
