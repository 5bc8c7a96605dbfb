import json

import numpy as np
import pytest

from minires import InputError
from minires.optim import SGD, Plateau, paper_milestones, paper_warmup, step_schedule


def test_three_steps_by_hand():
    w = np.array([1.0])
    sgd = SGD({"w": w}, momentum=0.5, weight_decay=0.1)
    expected_w, v = 1.0, 0.0
    for g, lr in ((2.0, 0.1), (-1.0, 0.1), (0.5, 0.01)):
        v = 0.5 * v + (g + 0.1 * expected_w)
        expected_w -= lr * v
        sgd.step({"w": np.array([g])}, lr)
        assert w[0] == pytest.approx(expected_w, rel=1e-15)


def test_a_step_changes_the_networks_own_arrays_and_not_the_gradients():
    w, g = np.ones(3, "float32"), np.ones(3, "float32")
    sgd = SGD({"w": w})
    sgd.step({"w": g}, 0.1)
    np.testing.assert_allclose(w, 1 - 0.1 * (1 + 1e-4), rtol=1e-6)
    np.testing.assert_array_equal(g, 1)
    assert w.dtype == sgd.velocity["w"].dtype == np.float32


@pytest.mark.parametrize(
    "bad",
    [
        {"momentum": 1.0},
        {"momentum": 1.5},
        {"momentum": -0.1},
        {"momentum": np.nan},
        {"weight_decay": -1e-4},
        {"weight_decay": np.inf},
        {"weight_decay": np.nan},
    ],
)
def test_senseless_settings_are_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        SGD({}, **bad)


def test_the_papers_schedule():
    milestones = paper_milestones(64_000)
    assert milestones == (32_000, 48_000)
    rates = [step_schedule(0.1, milestones, i) for i in (0, 31_999, 32_000, 47_999, 48_000, 63_999)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_short_runs_do_not_anneal():
    assert paper_milestones(1999) == ()


@pytest.mark.parametrize("gradients", [{}, {"w": np.ones(1)}, {"w": np.ones((2, 2))}])
def test_a_gradient_that_is_missing_or_of_another_shape_is_refused_and_changes_nothing(gradients):
    w = np.ones(2)
    with pytest.raises(InputError, match=r"expected a gradient of shape \(2,\) for w"):
        SGD({"w": w}).step(gradients, 0.1)
    np.testing.assert_array_equal(w, 1)


def test_every_parameter_has_its_own_velocity_and_moves(rng):
    start = {"w": rng.standard_normal((3, 2)), "b": rng.standard_normal(2), "g": np.ones(1)}
    live = {name: w.copy() for name, w in start.items()}
    sgd = SGD(live, momentum=0.9, weight_decay=0.01)
    v = {name: np.zeros_like(w) for name, w in start.items()}
    w = {name: a.copy() for name, a in start.items()}
    for lr in (0.1, 0.1, 0.01):
        gradients = {name: rng.standard_normal(a.shape) for name, a in start.items()}
        sgd.step(gradients, lr)
        for name, g in gradients.items():
            v[name] = 0.9 * v[name] + g + 0.01 * w[name]
            w[name] = w[name] - lr * v[name]
    for name, a in live.items():
        assert sgd.parameters[name] is a
        np.testing.assert_allclose(a, w[name], rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(sgd.velocity[name], v[name], rtol=1e-14, atol=1e-15)


def test_the_velocity_does_not_hold_the_learning_rate():
    sgd = SGD({"w": np.zeros(1)}, momentum=0.5, weight_decay=0.0)
    for _ in range(2):
        sgd.step({"w": np.ones(1)}, 1e-3)
    assert sgd.velocity["w"][0] == 1.5


def test_the_defaults_are_those_of_the_paper():
    sgd = SGD({})
    assert (sgd.momentum, sgd.weight_decay) == (0.9, 1e-4)


def test_settings_at_the_ends_of_their_range_are_taken():
    sgd = SGD({"w": np.ones(1)}, momentum=0, weight_decay=0)
    sgd.step({"w": np.ones(1)}, 0.25)
    sgd.step({"w": np.ones(1)}, 0.25)
    assert sgd.parameters["w"][0] == 0.5


def test_a_parameter_added_to_the_callers_dict_later_is_not_followed():
    given = {"w": np.ones(1)}
    sgd = SGD(given)
    given["late"] = np.ones(1)
    sgd.step({"w": np.ones(1)}, 0.1)
    assert list(sgd.velocity) == list(sgd.parameters) == ["w"]


@pytest.mark.parametrize("second", [{}, {"b": np.ones(3)}])
def test_a_wrong_gradient_of_the_last_parameter_leaves_the_first_alone(second):
    w = {"a": np.ones(2), "b": np.ones(2)}
    sgd = SGD(w)
    with pytest.raises(InputError, match="for b"):
        sgd.step({"a": np.ones(2)} | second, 0.1)
    np.testing.assert_array_equal(w["a"], 1)
    np.testing.assert_array_equal(sgd.velocity["a"], 0)


def test_gradients_may_be_lists_and_a_missing_one_is_called_missing():
    w = np.ones(2)
    sgd = SGD({"w": w}, weight_decay=0)
    sgd.step({"w": [1.0, 2.0]}, 0.5)
    np.testing.assert_array_equal(w, [0.5, 0])
    with pytest.raises(InputError, match="got none; call backward first"):
        sgd.step({}, 0.1)


def test_the_rate_drops_once_for_each_milestone_reached():
    assert step_schedule(0.5, (), 10) == 0.5
    assert step_schedule(0.5, (3,), 2) == 0.5
    assert step_schedule(0.5, (3,), 3) == 0.05
    assert step_schedule(0.5, (3, 3, 4), 4) == 0.5 / 1000


def test_milestones_are_whole_iterations_from_two_thousand_on():
    assert paper_milestones(2000) == (1000, 1500)
    assert paper_milestones(2001) == (1000, 1500)
    assert paper_milestones(4002) == (2001, 3001)


@pytest.mark.parametrize(
    ("depth", "lr", "rate"),
    [(110, 0.1, 0.01), (1202, 0.1, 0.01), (109, 0.1, None), (110, 0.01, None), (110, 0.02, 0.01),
     (110, 0.005, None)],
)  # fmt: skip
def test_warm_up_is_for_deep_nets_and_large_rates_only(depth, lr, rate):
    assert paper_warmup(depth, lr) == rate


# --------------------------------------------------------------------------------------- plateau


@pytest.mark.parametrize("sign", [1, -1])
def test_the_rate_falls_when_a_metric_has_not_improved_for_the_patience(sign):
    """A metric that should grow is the negative of one that should fall."""
    rule = Plateau(10, lower_is_better=sign == 1)
    assert rule.state() == {"best": None, "since": 0, "divisions": 0}
    for iteration, error, best, since, divisions in [
        (8, 0.9, 0.9, 8, 0),  # the first value is the best so far
        (17, 0.9, 0.9, 8, 0),  # an equal value is no improvement; 9 iterations are less than 10
        (20, 0.91, 0.9, 20, 1),  # 12 iterations since 8; the count begins again
        (29, 0.95, 0.9, 20, 1),
        (30, 0.9, 0.9, 30, 2),
        (50, 0.89, 0.89, 50, 2),  # a small improvement counts, however late
        (59, 0.9, 0.89, 50, 2),
        (60, 0.9, 0.89, 60, 3),
    ]:
        rule.observe(iteration, sign * error)
        expected = {"best": sign * best, "since": since, "divisions": divisions}
        assert rule.state() == expected, iteration
        assert rule.lr(0.5) == 0.5 / 10**divisions


@pytest.mark.parametrize("best", [None, 0.5])
@pytest.mark.parametrize("since", [0, 2**63 - 1])
@pytest.mark.parametrize("divisions", [0, 3])
def test_the_state_of_a_plateau_returns_from_a_file(best, since, divisions):
    state = {"best": best, "since": since, "divisions": divisions}
    rule = Plateau(4)
    rule.load_state(json.loads(json.dumps(state)))
    assert rule.state() == state


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"best": "0.5", "since": 1, "divisions": 0},
        {"best": 1, "since": 1, "divisions": 0},
        {"best": 0.5, "since": -1, "divisions": 0},
        {"best": 0.5, "since": 1, "divisions": -1},
        {"best": 0.5, "since": 2**63, "divisions": 0},
        {"best": 0.5, "since": 1.0, "divisions": 0},
        {"best": 0.5, "since": True, "divisions": 0},
        {"best": 0.5, "since": 1},
    ],
)
def test_a_damaged_state_of_a_plateau_is_refused_and_changes_nothing(damage):
    rule = Plateau(4)
    rule.observe(2, 0.5)
    before = rule.state()
    with pytest.raises(InputError, match="expected the state of a plateau"):
        rule.load_state(damage)
    assert rule.state() == before


def test_a_plateau_is_at_least_one_iteration_long_and_low_is_good():
    with pytest.raises(InputError, match="patience must be at least 1 iteration, got 0"):
        Plateau(0)
    rule = Plateau(1)
    assert rule.lower_is_better
    for iteration in (1, 2, 3):
        rule.observe(iteration, 0.5)
    assert rule.divisions == 2
