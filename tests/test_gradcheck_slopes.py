"""Numeric slopes of a gradient check: differences and error bars by hand."""

import numpy as np
import pytest

from minires.gradcheck_lines import Line
from minires.gradcheck_slopes import EPS, SIGMAS, Sample, Slopes

LINE = Line("x", np.ones((1, 1)), 0, None, 1.0)


def slopes(function, dy=1.0, a=1.0, **options):
    """Slopes of an elementwise function at `a`."""
    y = np.array([[function(a)]])
    return Slopes(
        op="f",
        evaluate=lambda moved: function(moved["x"]),
        y=y,
        dy=np.full_like(y, dy),
        method="central",
        rtol=1e-6,
        **options,
    )


def sample(step=1.0, truncation=0.0, noise=0.0, size=1.0, jumps=(0.0, 0.0), slope=0.0):
    return Sample(step, slope, truncation, noise, size, jumps)


@pytest.mark.parametrize("dy", [1.0, -3.0])
def test_differences_of_a_square_by_hand(dy):
    found = slopes(lambda x: x * x, dy).central_sample(LINE, 1 / 4)
    # y at 3/4, 7/8, 1, 9/8, 5/4: 9/16, 49/64, 1, 81/64, 25/16; all of this is exact
    assert found.step == 1 / 4
    assert found.slope == 2 * dy
    assert found.truncation == 0
    assert found.jumps == (dy * (9 / 16 - 2 + 25 / 16) * 4, dy * (49 / 64 - 2 + 81 / 64) * 8)
    assert found.noise == EPS * abs(dy)  # of up - down = 1
    assert found.size == abs(dy) * 25 / 16


def test_differences_of_a_fourth_power_by_hand():
    found = slopes(lambda x: x**4).central_sample(LINE, 1 / 4)
    wide = ((5 / 4) ** 4 - (3 / 4) ** 4) * 2
    narrow = ((9 / 8) ** 4 - (7 / 8) ** 4) * 4
    assert found.slope == pytest.approx((4 * narrow - wide) / 3, rel=1e-15)
    assert found.truncation == wide - narrow
    # the fourth difference of x^4 is 24 step^4; its weights 1, 4, 6, 4, 1 have the norm sqrt(70)
    assert found.noise == pytest.approx(24 / 8**4 / 70**0.5, rel=1e-12)


def test_an_output_that_does_not_move_has_no_slope_and_the_size_of_its_terms():
    found = slopes(lambda x: 0 * x + 3, dy=-2.0).central_sample(LINE, 1 / 4)
    assert found == sample(step=1 / 4, size=6.0)
    assert found.jumps == (0, 0)


@pytest.mark.parametrize(
    ("first", "second", "kink"),
    [(1.25, 1, True), (1.26, 1, False), (0.75, 1, True), (0.74, 1, False), (-1, -1, True),
     (-1, 1, False), (2, 1, False)],
)  # fmt: skip
def test_a_kink_has_the_same_jump_at_half_the_step(first, second, kink):
    assert slopes(abs).on_kink(sample(jumps=(first, second))) is kink


@pytest.mark.parametrize(("times", "kink"), [(0.99, False), (1.01, True)])
def test_a_kink_is_larger_than_the_rounding_of_four_error_bars(times, kink):
    jump = times * 4 * SIGMAS * 1e-9 * 3 / 0.5
    found = sample(step=0.5, size=3.0, jumps=(jump, jump))
    assert slopes(abs, noise=1e-9).on_kink(found) is kink


def test_the_error_bar_is_what_is_left_of_curvature_and_of_rounding():
    numeric = slopes(abs, noise=1e-3)
    measured = sample(step=0.5, truncation=7.0, noise=0.25, size=4.0)
    assert numeric.rounding(measured) == SIGMAS * 0.25 / 0.5
    assumed = sample(step=0.5, truncation=7.0, noise=1e-9, size=4.0)
    assert numeric.rounding(assumed) == SIGMAS * 1e-3 * 4 / 0.5
    assert numeric.error(measured) == 7 + SIGMAS * 0.25 / 0.5
    assert numeric.error(sample(truncation=np.nan)) == np.inf
    assert numeric.error(sample(slope=np.nan)) == np.inf


@pytest.mark.parametrize(("times", "noisy"), [(0.99, True), (1.01, False)])
@pytest.mark.parametrize("factor", [1, 8])
def test_a_sample_is_noisy_where_rounding_exceeds_its_truncation(times, noisy, factor):
    found = sample(step=0.5, truncation=times * SIGMAS * 0.25 / 0.5 / factor, noise=0.25)
    assert slopes(abs)._noisy(found, factor) is noisy
    on_kink = sample(step=0.5, noise=0.25, jumps=(1.0, 1.0))
    assert not slopes(abs)._noisy(on_kink, factor)


def test_the_best_sample_is_the_one_with_the_smallest_error_bar():
    """At x = 1e-3 the square root curves within a step of 2^-10; a smaller step is better."""
    line = Line("x", np.full((1, 1), 1e-3), 0, None, 1e-3)
    numeric = slopes(np.sqrt, a=1e-3)
    first = numeric.central_sample(line, 2.0**-11)
    best = numeric.derivative(line, first, abs(first.slope))
    assert numeric.error(best) < numeric.error(first)
    assert abs(best.slope / (0.5 / 1e-3**0.5) - 1) < 1e-6
