"""The checker catches what is wrong, and refuses checks that prove nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires import InputError
from minires.gradcheck import GradientError, Report, check_layer, check_op
from minires.layers.base import Layer
from minires.layers.core import BatchNorm, Conv2d, Linear, ReLU
from minires.nets.resnet import resnet
from minires.ops import numpy_ops as ops

X = np.random.default_rng(1).standard_normal((3, 4, 5, 2))
W = np.random.default_rng(2).standard_normal((3, 3, 2, 4))
GAMMA, BETA, EPS = np.array([1.5, -0.5]), np.array([0.1, 0.2]), 1e-5


def refused(kind, *args, **options):
    with pytest.raises(GradientError) as e:
        check_op(*args, **options)
    assert e.value.kind == kind, str(e.value)
    return e.value


def test_a_wrong_element_is_named_with_both_values():
    def backward(dy, cache):
        dx, dw = ops.conv2d_backward(dy, cache)
        dw[2, 1, 0, 3] *= 1.001
        return dx, dw

    e = refused("wrong", ops.conv2d_forward, backward, X, W)
    assert (e.op, e.argument, e.index) == ("conv2d", "w", (2, 1, 0, 3))
    assert e.analytic == pytest.approx(1.001 * e.numeric, rel=1e-6)
    assert all(text in str(e) for text in ("conv2d", "dw", "(2, 1, 0, 3)", f"{e.analytic:.10g}"))


@given(i=st.integers(0, 4607), error=st.sampled_from([1e-5, -1e-3, 0.1, 1e3]))
def test_one_wrong_element_of_thousands_is_found_though_few_are_looked_at(i, error):
    rng = np.random.default_rng(i)
    x, w = rng.standard_normal((2, 5, 5, 16)), rng.standard_normal((3, 3, 16, 32))

    def backward(dy, cache):
        dx, dw = ops.conv2d_backward(dy, cache)
        dw.ravel()[i] += error * np.abs(dw).max()
        return dx, dw

    e = refused("wrong", ops.conv2d_forward, backward, x, w, elements=4)
    assert np.ravel_multi_index(e.index, w.shape) == i


@given(
    seed=st.integers(0, 10**6),
    pair=st.lists(st.integers(0, 999), min_size=2, max_size=2, unique=True),
)
def test_two_elements_exchanged_among_many_are_found(seed, pair):
    def forward(x):
        return 2 * x, ()

    def backward(dy, cache):
        dx = 2 * dy
        dx[pair] = dx[pair[::-1]]  # cancels along every direction in which both move alike
        return dx

    x = np.random.default_rng(seed).standard_normal(1000)
    assert refused("wrong", forward, backward, x, rng=seed, elements=4).index[0] in pair


def test_a_cotangent_of_ones_is_refused_for_batch_norm_as_it_proves_nothing():
    def zeros(dy, cache):
        return 0 * dy, *ops.batchnorm_backward(dy, cache)[1:]

    e = refused("vacuous", ops.batchnorm_forward, zeros, X, GAMMA, BETA, EPS, cotangent=1.0)
    assert "random cotangent" in str(e)
    refused("wrong", ops.batchnorm_forward, zeros, X, GAMMA, BETA, EPS)


def test_an_input_drawn_from_the_same_seed_is_not_its_own_cotangent():
    x = np.random.default_rng(0).standard_normal((3, 4, 5, 2))
    report = check_op(ops.batchnorm_forward, ops.batchnorm_backward, x, GAMMA, BETA, EPS, rng=0)
    assert abs(report.rows[0].numeric) > 1e-3  # with dy = x, dx of batch norm is about 0


def test_batch_norm_of_a_single_value_is_refused_as_it_proves_nothing():
    refused(
        "vacuous", ops.batchnorm_forward, ops.batchnorm_backward, X[:1, :1, :1], GAMMA, BETA, EPS
    )


@pytest.mark.parametrize("place", [0.0, 1e-9, -1e-9])
def test_a_value_on_the_kink_of_a_relu_is_refused(place):
    x = np.array([1.0, place, -2.0])
    e = refused("kink", ops.relu_forward, ops.relu_backward, x)
    assert e.index == (1,)


@pytest.mark.parametrize("place", [1e-7, -1e-7, 1e-6])
def test_a_value_near_a_kink_is_checked_with_a_smaller_step(place):
    assert check_op(ops.relu_forward, ops.relu_backward, np.array([1.0, place, -2.0])).error < 1e-7


def test_a_tie_in_a_max_pool_is_refused():
    x = np.array([1.0, 1.0, 0.0, 0.5]).reshape(1, 2, 2, 1)
    refused("kink", ops.max_pool_forward, ops.max_pool_backward, x, 2, 2)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("one too few", "dw is missing: backward returned 1 of 2 gradients"),
        ("none", "dw is missing: backward returned None"),
    ],
)
def test_a_missing_gradient_is_refused(returned, message):
    def backward(dy, cache):
        dx, _ = ops.conv2d_backward(dy, cache)
        return dx if returned == "one too few" else (dx, None)

    error = refused("uncovered", ops.conv2d_forward, backward, X, W)
    assert error.argument == "w"
    assert message in str(error)


def test_more_gradients_than_arguments_are_refused():
    refused("shape", ops.relu_forward, lambda dy, cache: (dy, dy), X)


def test_a_gradient_that_would_broadcast_is_refused():
    refused("shape", ops.relu_forward, lambda dy, cache: ops.relu_backward(dy, cache)[:1], X)


def test_a_gradient_with_nan_is_refused():
    refused("nonfinite", ops.relu_forward, lambda dy, cache: dy * np.nan, X)


def test_a_huge_wrong_gradient_does_not_widen_the_tolerance():
    refused("wrong", ops.relu_forward, lambda dy, cache: 1e12 * ops.relu_backward(dy, cache), X)


@pytest.mark.parametrize("victim", ["x", "y"])
def test_changing_an_argument_in_place_is_refused(victim):
    def forward(x):
        y, cache = ops.relu_forward(x)
        if victim == "x":
            x += 1
        return y, cache

    def backward(dy, cache):
        dx = ops.relu_backward(dy, cache)
        if victim == "y":
            dy *= 2
        return dx

    assert refused("changed", forward, backward, X.copy()).argument == victim


def test_an_error_above_the_default_tolerance_passes_a_wider_one():
    def backward(dy, cache):
        return 1.0001 * ops.relu_backward(dy, cache)

    refused("wrong", ops.relu_forward, backward, X)
    assert 1e-6 < check_op(ops.relu_forward, backward, X, rtol=1e-2).error < 1.1e-4


def test_an_op_may_write_every_output_into_one_array():
    y = np.empty_like(X)
    assert check_op(lambda x: (np.multiply(x, 2, out=y), ()), lambda dy, _: 2 * dy, X).error < 1e-8


def test_float32_input_is_checked_in_float64():
    report = check_op(
        ops.conv2d_forward, ops.conv2d_backward, X.astype("float32"), W.astype("float32")
    )
    assert report.error < 1e-8


def test_the_callers_arrays_are_left_alone():
    x, w = X.copy(), W.copy()
    check_op(ops.conv2d_forward, ops.conv2d_backward, x, w)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(w, W)


def test_the_complex_step_refuses_an_op_that_is_not_smooth():
    with pytest.raises((GradientError, ValueError)):
        check_op(ops.relu_forward, ops.relu_backward, X, method="complex")


def test_a_dropped_imaginary_part_is_refused():
    refused("kink", lambda x: (x.real**2, x), lambda dy, x: 2 * dy * x, X, method="complex")


# ------------------------------------------------------------------------------------------- layers


class Scale(Layer):
    """y = a x + b, and every way to get its backward wrong."""

    def __init__(self, bug=None):
        super().__init__()
        self.bug, self.params = bug, {"a": np.ones(1, np.float32) * 3, "b": np.zeros(1, np.float32)}

    def forward(self, x, train=False):
        if not (self.bug == "stale cache" and self._cache is not None):
            self._keep((x,), train)
        if self.bug == "changes x":
            x += 1
        return self.params["a"] * x + self.params["b"]

    def backward(self, dy):
        (x,) = self._cache
        da = (dy * x).sum(keepdims=True).reshape(1)
        db = dy.sum().reshape(1)
        if self.bug == "adds up":
            da = self.grads.get("a", 0) + da
        self.grads["a"] = da
        if self.bug != "forgets b":
            self.grads["b"] = db
        dx = dy * self.params["a"] * {"doubles dx": 2, "dx off by 1e-4": 1.0001}.get(self.bug, 1)
        if self.bug == "changes dy":
            dy += 1
        return dx


class OneOutput(Scale):
    """Writes every output into the same array."""

    def forward(self, x, train=False):
        self.y = vars(self).get("y", np.empty_like(x))
        self.y[...] = super().forward(x, train)
        return self.y


KINDS = {
    "stale cache": ("wrong", "a"),
    "changes x": ("changed", "x"),
    "changes dy": ("changed", "y"),
    "adds up": ("uncovered", "a"),
    "forgets b": ("uncovered", "b"),
    "doubles dx": ("wrong", "x"),
    "dx off by 1e-4": ("wrong", "x"),
}


@pytest.mark.parametrize("layer", [Scale(), OneOutput()])
def test_a_right_layer_passes(layer):
    assert check_layer(layer, X).error < 1e-8


@pytest.mark.parametrize("bug", KINDS)
def test_a_wrong_layer_is_caught(bug):
    with pytest.raises(GradientError) as e:
        check_layer(Scale(bug), X)
    assert (e.value.kind, e.value.argument) == KINDS[bug]


def test_a_layer_is_checked_by_the_tolerance_and_at_as_many_elements_as_asked_for():
    report = check_layer(Scale("dx off by 1e-4"), X, rtol=1e-2, elements=5)
    assert 1e-6 < report.error < 1.1e-4
    assert [row.checked for row in report.rows] == [5, 1, 1]


def test_a_cotangent_of_ones_is_refused_for_a_batch_norm_layer_too():
    with pytest.raises(GradientError) as e:
        check_layer(BatchNorm(2), X, cotangent=np.ones_like(X))
    assert (e.value.kind, e.value.argument) == ("vacuous", "x")


def test_the_layer_itself_is_left_alone():
    net = resnet(8)
    before = net.state()
    check_layer(net, np.random.default_rng(0).standard_normal((2, 8, 8, 3)), elements=1)
    after = net.state()
    assert all(np.array_equal(before[k], after[k]) and after[k].dtype == np.float32 for k in before)
    assert not net.gradients()


def test_an_error_in_a_network_names_the_parameter():
    net = resnet(8)
    conv = net.children["stage2"].children["block1"].children["body"].children["conv1"]

    class Unflipped(Conv2d):
        def backward(self, dy):
            dx = super().backward(dy)
            self.grads["w"] = self.grads["w"][::-1]
            return dx

    conv.__class__ = Unflipped
    with pytest.raises(GradientError) as e:
        check_layer(net, np.random.default_rng(0).standard_normal((2, 8, 8, 3)), elements=2)
    assert e.value.argument == "stage2.block1.body.conv1.w"


# ------------------------------------------------------------------------------------------ reports


def test_a_report_shows_every_argument_as_text_and_as_html():
    report = check_layer(BatchNorm(2), X)
    assert isinstance(report, Report)
    for text in (repr(report), report._repr_html_()):
        assert all(
            word in text
            for word in ("BatchNorm", "dx", "dgamma", "dbeta", "(3, 4, 5, 2)", "64 of 120")
        )
    assert report.error == max(row.error for row in report.rows)


def test_names_can_be_given_and_come_from_the_signature_otherwise():
    check = check_op(ops.linear_forward, ops.linear_backward, X[0, 0], X[0, 1, :2], BETA)
    assert [row.argument for row in check.rows] == ["x", "w", "b"]
    check = check_op(ops.relu_forward, ops.relu_backward, X, names=("picture",))
    assert "dpicture" in repr(check)


def test_layers_without_parameters_are_checked_too():
    assert [row.argument for row in check_layer(ReLU(), X).rows] == ["x"]
    assert len(check_layer(Linear(5, 2, rng=0), X[0, :, :, 0]).rows) == 3


# --------------------------------------------------------------------------- what is refused before


@pytest.mark.parametrize("size", [1e-3, 1e3, 1e6])
def test_inputs_of_any_size_are_checked(size):
    check_op(ops.linear_forward, ops.linear_backward, size * X[0, 0], X[0, 1, :2], BETA)
    check_op(ops.conv2d_forward, ops.conv2d_backward, size * X, W, pad=1, elements=4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused_with_their_place(bad):
    x = X.copy()
    x[0, 1, 2, 1] = bad
    for check in (
        lambda: check_layer(ReLU(), x),
        lambda: check_op(ops.relu_forward, ops.relu_backward, x),
    ):
        with pytest.raises(InputError, match=r"x at \(0, 1, 2, 1\) is (nan|inf)"):
            check()


@pytest.mark.parametrize(
    "options",
    [
        {"method": "forward"},
        {"rtol": np.inf},
        {"rtol": np.nan},
        {"elements": 0},
        {"names": ("x", "w")},
        {"cotangent": np.ones(3)},
    ],
)
def test_senseless_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        check_op(ops.relu_forward, ops.relu_backward, X, **options)
