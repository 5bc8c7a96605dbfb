"""Numeric slopes of a gradient check: differences, error bars and verdicts by hand."""

from dataclasses import replace

import numpy as np
import pytest

from minires.gradcheck import GradientError
from minires.gradcheck_differences import Check
from minires.gradcheck_lines import Line
from minires.gradcheck_slopes import EPS, SIGMAS, Sample, Slopes

LINE = Line("x", np.ones((1, 1)), 0, None, 1.0)


def slopes(function, dy=1.0, a=1.0, kind=Slopes, rtol=1e-6, **options):
    """Slopes of an elementwise function at `a`."""
    y = np.array([[function(a)]])
    return kind(
        op="f",
        evaluate=lambda moved: function(moved["x"]),
        y=y,
        dy=np.full_like(y, dy),
        method="central",
        rtol=rtol,
        **options,
    )


def check(function=abs, **options):
    return slopes(function, kind=Check, rng=np.random.default_rng(0), elements=64, **options)


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


@pytest.mark.parametrize("dy", [1.0, -3.0])
def test_a_complex_step_of_a_square_by_hand(dy):
    a = 2.0**-100  # about as small as the step
    numeric = slopes(lambda x: x * x, dy, a)
    found = numeric.complex_sample(Line("x", np.full((1, 1), a), 0, None, a))
    assert (found.step, found.truncation) == (1, 0)
    assert found.slope == pytest.approx(2 * a * dy, rel=1e-15, abs=0)
    assert found.size == pytest.approx(3 * a * abs(dy), rel=1e-15, abs=0)  # the slope, and y / a
    assert found.noise == EPS * found.size


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


@pytest.mark.parametrize(("power", "rounds"), [(0.66, True), (0.68, False)])
def test_noise_that_falls_to_a_quarter_at_an_eighth_of_the_step_is_not_rounding(power, rounds):
    numeric = slopes(lambda x: np.abs(x) ** power, a=0.0)  # 8 ** (-2 / 3) is a quarter
    line = Line("x", np.zeros((1, 1)), 0, None, 1.0)
    assert numeric.rounds(line, numeric.central_sample(line, 2.0**-17)) is rounds


@pytest.mark.parametrize("part", [8, 9, 10])
def test_noise_at_any_of_three_smaller_steps_is_that_of_rounding(part):
    def noisy(x):
        return np.isclose(np.abs(x), 2.0**-17 / part, rtol=0.01) * 1.0

    line = Line("x", np.zeros((1, 1)), 0, None, 1.0)
    assert slopes(noisy, a=0.0).rounds(line, sample(step=2.0**-17, noise=4 * 2 / 70**0.5))
    assert not slopes(noisy, a=0.0).rounds(line, sample(step=2.0**-17, noise=8.1 / 70**0.5))


def tried(search, meeting, step=2.0**-17):
    """Exponents of the steps of a search, where rounding and curvature are equal at `meeting`."""

    def measured(h):
        noise = 1.5 * 2.0**-7 * 1e-6 / 80  # an eighth of the tolerance at 1.5 * 2 ** -7
        curvature = SIGMAS * noise / meeting * (h / meeting) ** 2
        return sample(h, curvature, noise, slope=1.0)

    samples, steps = [measured(step)], []
    for h in search(samples):
        samples.append(measured(h))
        steps.append(float(np.log2(h)))
    return steps


@pytest.mark.parametrize(
    ("meeting", "largest", "steps"),
    [
        (-14, 1, [-7, -12, -15]),
        (-11.8, 1, [-7, -12, -10]),
        (-5.5, 1, [-7, -5]),
        (0, 3, [-7, -4, -3]),
    ],
)
def test_longer_steps_close_in_on_the_one_where_rounding_meets_curvature(meeting, largest, steps):
    def search(samples):
        return slopes(abs)._longer_steps(samples[0], largest, samples)

    assert tried(search, 2.0**meeting) == steps


@pytest.mark.parametrize(
    ("meeting", "steps"), [(-16.8, [-7, -12, -15, -20, -17]), (-17.2, [-20, -17, -7, -12, -15])]
)
def test_a_step_grows_first_where_rounding_dominates_and_shrinks_first_elsewhere(meeting, steps):
    assert tried(lambda samples: slopes(abs)._other_steps(LINE, samples), 2.0**meeting) == steps


# ----------------------------------------------------------------------------------------- verdicts


def test_elements_of_a_random_direction_are_exact_and_of_similar_size():
    v = check()._direction(20_000)
    assert set(np.sign(v)) == {-1, 1}
    assert (np.abs(v).min(), np.abs(v).max()) == (0.5, 1.5)
    np.testing.assert_array_equal(1024 * v, np.round(1024 * v))


def test_an_element_moves_by_its_own_size_or_by_a_sixteenth_of_the_largest():
    a = np.array([[16.0, 1e-3, 4.0]])
    assert [line.scale for line in check()._lines("x", a, np.ones(3))] == [16, 1, 4]


def test_a_direction_is_judged_by_its_largest_term_and_the_rounding_of_the_sum():
    line = Line("x", np.ones((1, 2)), None, np.ones(2), 1.0)
    excess = check(rtol=EPS)._excess(line, sample(slope=7.0, size=0.0), np.array([3.0, 4.0]))
    assert excess == -(4 * EPS + 4 * EPS * 5)


@pytest.mark.parametrize("v", [None, np.array([-1.5])])
def test_an_error_bar_of_four_tolerances_is_too_large(v):
    line = Line("x", np.ones((1, 1)), 0 if v is None else None, v, 1.0)
    bars = [sample(truncation=part * 4 * 1e-6 * 3 * line.length, size=0.0) for part in (0.99, 1.01)]
    check().refuse_uncertain(line, bars[0], 3.0)
    with pytest.raises(GradientError, match="cannot be checked") as e:
        check().refuse_uncertain(line, bars[1], 3.0)
    assert e.value.kind == "kink"  # rounding is less than truncation


def test_error_bars_assume_that_every_number_is_rounded_by_half_an_epsilon():
    numeric = check(lambda x: x)
    numeric._measured([LINE])
    assert numeric.noise == EPS / 2


@pytest.mark.parametrize(("wrong", "refused"), [(8, False), (100, True)])
def test_small_errors_of_many_elements_are_refused_if_they_add_up(wrong, refused):
    x = np.ones((1, 100))
    numeric = replace(check(), evaluate=lambda moved: 2 * moved["x"], y=2 * x, dy=x)
    analytic = np.full(100, 2.0)
    analytic[:wrong] *= 1 + 0.9e-6  # each is within the tolerance
    line = Line("x", x, None, np.ones(100), 1.0)
    sample = numeric.central_sample(line, 2.0**-17)
    if not refused:
        numeric._refuse_if_wrong(line, sample, analytic, 2.0)
        return
    with pytest.raises(GradientError, match="wrong: dx along a random direction is 200"):
        numeric._refuse_if_wrong(line, sample, analytic, 2.0)


def test_an_error_is_confirmed_by_the_median_of_six_steps_and_their_spread():
    line = Line("x", np.zeros((1, 1)), 0, None, 1.0)
    numeric = check(lambda x: x**5, a=0.0)
    first = numeric.central_sample(line, 1 / 4)
    found = numeric._confirmed(line, first)
    # the extrapolated slope of x^5 at 0 is -step^4 / 4
    assert found.slope == pytest.approx(-(0.771**4 + 0.913**4) / 8 / 4**4, rel=1e-12)
    spread = 3 * (1.733**4 - 0.471**4) / 4 / 4**4
    assert found.truncation == pytest.approx(first.truncation + spread, rel=1e-12)


def test_a_complex_step_may_differ_from_differences_by_ten_error_bars():
    numeric = check(lambda x: x, noise=1e-3)
    central = numeric.derivative(LINE, numeric.central_sample(LINE, 2.0**-17), 1.0)
    error = numeric.error(central)
    numeric._refuse_unlike_central(LINE, sample(slope=central.slope + 9.9 * error))
    with pytest.raises(GradientError, match="not holomorphic"):
        numeric._refuse_unlike_central(LINE, sample(slope=central.slope + 10.1 * error))
