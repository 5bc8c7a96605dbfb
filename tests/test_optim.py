import numpy as np
import pytest

from minires import InputError
from minires.lab.presets import paper_milestones
from minires.optim import SGD, step_schedule


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
