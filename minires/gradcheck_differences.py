"""Compare the gradients that a backward pass returned with numeric slopes.

Every numeric slope has an error bar. So each element is judged to the accuracy that differences can
reach for it, even next to a gradient a million times larger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minires.gradcheck_arguments import EPS
from minires.gradcheck_lines import Line, index_of, norm, power_of_2
from minires.gradcheck_report import GradientError, Row
from minires.gradcheck_slopes import CENTRAL_STEP, Sample, Slopes

Array = np.ndarray

# largest error bar, relative to the largest gradient of the argument and in units of rtol
UNCERTAIN = 4
# largest error bar of a slope confirmed with other steps, relative to the largest gradient
UNSTEADY = 0.1
# parts of the step with which an error is confirmed: no powers of 2, so other rounding errors
CONFIRM = (0.913, 0.771, 0.633, 0.471, 1.733)
# rounding error of a sum of random signs, relative to the norm of its terms
SUM_ROUNDING = 4 * EPS
# bounds of small gradients, relative to the largest: these get random directions of their own,
# because next to large ones they do not show
SMALL = (1e-3, 1e-6)


@dataclass(kw_only=True)
class Check(Slopes):
    """Check of one op at one point.

    Attributes
    ----------
    rng, elements
        As in `check_op`.
    tick : callable
        Called after each line: it moves a progress bar.
    """

    rng: np.random.Generator
    elements: int
    tick: Callable[[], object] = lambda: None

    # ------------------------------------------------------------------------- one argument

    def argument(self, name: str, a: Array, flat: Array) -> Row:
        """Check the gradient `flat`, as `well_formed` returns it, of one argument `a`, or raise."""
        if self.method == "complex":
            self._refuse_not_holomorphic(name, a)
        lines = self._lines(name, a, flat)
        pairs = self._measured(lines)
        scale = self._largest(pairs)
        for line, sample in pairs:
            self.refuse_uncertain(line, sample, scale)
        for line, sample in pairs:
            if self._excess(line, sample, flat) > 0:
                self._refuse_if_wrong(line, sample, flat, scale)
        numeric = {line.index: s.slope for line, s in pairs if line.index is not None}
        errors = {i: abs(float(flat[i]) - slope) / scale for i, slope in numeric.items()}
        worst = max(errors, key=errors.__getitem__)
        return Row(
            argument=name,
            shape=a.shape,
            checked=len(errors),
            index=index_of(worst, a.shape),
            analytic=float(flat[worst]),
            numeric=numeric[worst],
            error=errors[worst],
        )

    def count(self, flat: Array) -> int:
        """Return how many lines a check of one argument follows."""
        return flat.size if flat.size <= self.elements else self.elements + len(_groups(flat))

    def _lines(self, name: str, a: Array, analytic: Array) -> list[Line]:
        """Elements to check one by one, then random directions if these are not all."""
        largest = float(np.abs(a).max()) or min(1.0, float(np.abs(self.y).max()) or 1.0)
        everything = a.size <= self.elements
        chosen = np.arange(a.size)
        if not everything:
            chosen = self.rng.choice(a.size, self.elements, replace=False)
        scales = np.maximum(np.abs(a.reshape(-1)[chosen]), largest / 16)
        units = [
            Line(name, a, int(i), None, power_of_2(float(s)))
            for i, s in zip(chosen, scales, strict=True)
        ]
        if everything:
            return units
        typical = power_of_2(largest * (float(np.linalg.norm(a / largest)) / a.size**0.5 or 1.0))
        return units + [
            Line(name, a, None, np.where(group, self._direction(a.size), 0.0), typical)
            for group in _groups(analytic)
        ]

    def _largest(self, pairs: list[tuple[Line, Sample]]) -> float:
        """Largest slope per unit of length."""
        slopes = [abs(s.slope) / line.length for line, s in pairs if np.isfinite(self.error(s))]
        return max(slopes, default=0.0)

    def _direction(self, size: int) -> Array:
        signs = self.rng.choice([-1.0, 1.0], size)
        sizes = self.rng.integers(512, 1537, size) / 1024  # few are equal, so errors do not cancel
        return signs * sizes

    def _measured(self, lines: list[Line]) -> list[tuple[Line, Sample]]:
        """The best sample of each line; raise if none of them can be told from 0."""
        largest = float(np.abs(lines[0].a).max())
        # where all slopes are 0, the step may have been too small to change y
        least_scales = [0.0, max(1.0, largest), max(1.0, largest, float(np.abs(self.y).max()))]
        for least in least_scales if self.method == "central" else [0.0]:
            self.noise = self.precision / 2
            firsts = []
            for line in lines:
                first = self.sample(line, CENTRAL_STEP * max(line.scale, least))
                firsts.append((line, first))
                if least == 0:
                    self.tick()
            rough = self._largest(firsts)
            pairs = [self._refined(line, first, rough) for line, first in firsts]
            samples = [s for _, s in pairs]
            relative = [s.noise / s.size for s in samples if s.size and not self.on_kink(s)]
            self.noise = max(self.noise, float(np.median(relative or [0.0])))
            if not self.is_vacuous(pairs):
                break
        self.refuse_vacuous(pairs)
        self.noise = self.precision / 2
        return pairs

    def _refined(self, line: Line, first: Sample, scale: float) -> tuple[Line, Sample]:
        """Best sample of a line; a direction may be weighted by the magnitude of each element."""
        if self.method == "complex":
            return line, first
        best = self.derivative(line, first, scale)
        largest = float(np.abs(line.a).max())
        uncertain = not self.error(best) <= self.rtol * abs(best.slope)
        if line.v is not None and largest and uncertain and not self.on_kink(best):
            weights = np.abs(line.a.reshape(-1)) / largest
            weighted = Line(line.name, line.a, None, line.v * weights, power_of_2(largest))
            other = self.central_sample(weighted, CENTRAL_STEP * weighted.scale)
            other = self.derivative(weighted, other, scale)
            if self.error(other) * line.length < self.error(best) * weighted.length:
                return weighted, other
        return line, best

    # ------------------------------------------------------------------------------- verdicts

    def is_vacuous(self, pairs: list[tuple[Line, Sample]]) -> bool:
        """Whether every slope is within its rounding error of 0."""
        return all(abs(s.slope) <= self.rounding(s) and self.rounds(line, s) for line, s in pairs)

    def refuse_vacuous(self, pairs: list[tuple[Line, Sample]]) -> None:
        """Raise if the numeric gradient cannot be told from 0."""
        if self.is_vacuous(pairs):
            largest = max(abs(s.slope) for _, s in pairs)
            raise GradientError(
                kind="vacuous",
                op=self.op,
                argument=pairs[0][0].name,
                message=f"proves nothing: the numeric gradient is 0 everywhere (at most "
                f"{largest:.1e}), and a backward that only returns 0 would pass; use a random "
                "cotangent, more than one image, or an input that matters",
                numeric=largest,
            )

    def refuse_uncertain(self, line: Line, sample: Sample, scale: float) -> None:
        """Raise if no step gave a derivative: at a kink, or where rounding hides it."""
        error = self.error(sample)
        if error <= UNCERTAIN * self.rtol * scale * line.length:
            return
        if error == np.inf:
            raise self.no_number(line)
        if self.rounding(sample) > sample.truncation and self.rounds(line, sample):
            raise self._hidden(line, sample)
        jump = abs(sample.jumps[1])
        reason = (
            f"slopes from left and right differ by {jump:.3g} within {sample.step:.0e}, so a ReLU "
            "or a maximum changes sides there; move inputs off it"
        )
        raise self._unchecked("kink", line, sample, reason)

    def _hidden(self, line: Line, sample: Sample) -> GradientError:
        """Error for a line whose slope rounding hides."""
        reason = (
            f"rounding in forward hides the derivative, {sample.slope:.3g} +- "
            f"{self.error(sample):.1e}; use inputs of similar size, or a larger rtol"
        )
        return self._unchecked("precision", line, sample, reason)

    def _unchecked(self, kind: str, line: Line, sample: Sample, reason: str) -> GradientError:
        """Error for a line without a slope to compare with."""
        message = f"cannot be checked {line.where}: {reason}"
        return GradientError(
            kind, self.op, line.name, message, index=line.place, numeric=sample.slope
        )

    def _excess(self, line: Line, sample: Sample, analytic: Array) -> float:
        """Difference of analytic and numeric slope beyond tolerance and error bar; 0 is allowed."""
        allowed = self.rtol * abs(sample.slope)
        if line.v is not None:
            terms = analytic * line.v
            allowed = self.rtol * float(np.abs(terms).max()) + SUM_ROUNDING * norm(terms)
        return abs(line.along(analytic) - sample.slope) - allowed - self.error(sample)

    def _refuse_if_wrong(self, line: Line, sample: Sample, analytic: Array, scale: float) -> None:
        """Confirm with other steps that a line is wrong, and raise; halve a direction first."""
        sample = self._confirmed(line, sample)
        if self._excess(line, sample, analytic) <= 0:
            if self.error(sample) > UNSTEADY * scale * line.length:  # agrees with anything
                raise self._hidden(line, sample)
            return
        if line.v is not None:
            # elements within rtol may add up to more than that
            excess = self._excess(line, sample, analytic)
            evident = excess > self.rtol * norm(analytic * line.v)
            element = self._halved(line, analytic, scale)
            found = self._refined(element, self._first(element), scale)[1]
            self.refuse_uncertain(element, found, scale)
            found = self._confirmed(element, found)
            if self._excess(element, found, analytic) > 0:
                line, sample = element, found
            elif not evident:
                return
        if self.method == "complex":
            self._refuse_unlike_central(line, sample)
        value = line.along(analytic)
        slope = sample.slope
        where = "along a random direction" if line.place is None else f"at {line.place}"
        error = abs(value - slope) / max(abs(value), abs(slope))
        raise GradientError(
            kind="wrong",
            op=self.op,
            argument=line.name,
            message=f"{where} is {value:.10g}, differences give {slope:.10g} "
            f"(relative error {error:.1e}, allowed {self.rtol:.0e})",
            index=line.place,
            analytic=value,
            numeric=slope,
        )

    def _confirmed(self, line: Line, sample: Sample) -> Sample:
        """Median of samples with other steps; their spread adds to the error bar."""
        if self.method == "complex":
            return sample
        samples = [sample]
        samples += [self.central_sample(line, part * sample.step) for part in CONFIRM]
        samples = [s for s in samples if np.isfinite(self.error(s))]
        slopes = [s.slope for s in samples]
        spread = sample.truncation + 3 * float(np.ptp(slopes))
        noise = max(s.noise for s in samples)
        return Sample(sample.step, float(np.median(slopes)), spread, noise, sample.size)

    def _first(self, line: Line) -> Sample:
        return self.sample(line, CENTRAL_STEP * line.scale)

    def _halved(self, line: Line, analytic: Array, scale: float) -> Line:
        """Halve a direction, and go on with the worse half; return the line along one element."""
        candidates = np.flatnonzero(line.direction)
        while len(candidates) > 1:
            middle = len(candidates) // 2
            halves = [candidates[:middle], candidates[middle:]]
            excess = []
            for half in halves:
                v = np.zeros(line.a.size)
                v[half] = line.direction[half]
                part = Line(line.name, line.a, None, v, line.scale)
                sample = self._first(part)
                if self.method == "central":
                    sample = self.derivative(part, sample, scale)
                excess.append(self._excess(part, sample, analytic))
            candidates = halves[int(np.argmax(excess))]
        i = candidates.item()
        own = abs(float(line.a.reshape(-1)[i]))
        return Line(line.name, line.a, i, None, power_of_2(max(own, line.scale / 16)))

    def _refuse_not_holomorphic(self, name: str, a: Array) -> None:
        """Compare the two methods along one random direction."""
        largest = power_of_2(float(np.abs(a).max()) or 1.0)
        line = Line(name, a, None, self._direction(a.size), largest)
        self._refuse_unlike_central(line, self.complex_sample(line))

    def _refuse_unlike_central(self, line: Line, sample: Sample) -> None:
        """Raise if central differences give another slope than the complex step."""
        central = self.central_sample(line, CENTRAL_STEP * line.scale)
        central = self.derivative(line, central, abs(sample.slope))
        error = self.error(central)
        allowed = 10 * error + 1e-6 * abs(central.slope)
        if np.isfinite(error) and abs(central.slope - sample.slope) > allowed:
            message = (
                f"cannot be checked by a complex step: it gives a slope of {sample.slope:.6g}, "
                f"central differences {central.slope:.6g}, so forward is not holomorphic (does it "
                "use conj, abs, real or a comparison?); use method='central'"
            )
            raise GradientError("unsuitable", self.op, line.name, message, index=line.place)

    def well_formed(self, name: str, a: Array, analytic: Array) -> Array:
        """Return a gradient flat, in float64; raise if its shape or its numbers are not right."""
        analytic = np.asarray(analytic)
        if analytic.shape != a.shape:
            message = f"has shape {analytic.shape}, the argument {a.shape}"
            raise GradientError("shape", self.op, name, message)
        if analytic.dtype.kind not in "fiub":
            message = f"has dtype {analytic.dtype}; expected real numbers"
            raise GradientError("unsuitable", self.op, name, message)
        if not np.isfinite(analytic).all():
            where = tuple(map(int, np.argwhere(~np.isfinite(analytic))[0]))
            message = f"at {where} is {analytic[where]}"
            raise GradientError("nonfinite", self.op, name, message, index=where)
        return analytic.astype(np.float64).reshape(-1)


def _groups(analytic: Array) -> list[Array]:
    """Masks of the elements that random directions move: all, all again, small gradients."""
    size = np.abs(analytic) / (np.abs(analytic).max() or 1.0)
    small = [(size <= SMALL[0]) & (size > SMALL[1]), size <= SMALL[1]]
    return [np.ones(size.shape, bool)] * 2 + [group for group in small if group.any()]
