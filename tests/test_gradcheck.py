"""The checker catches what is wrong, and refuses checks that prove nothing."""

import inspect
import io
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import tqdm.auto
from hypothesis import given
from hypothesis import strategies as st

from minires import InputError
from minires.gradcheck import GradientError, Report, check_layer, check_op
from minires.gradcheck_arguments import same
from minires.gradcheck_lines import Line
from minires.gradcheck_report import Row
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


def test_a_seed_gives_the_cotangent_of_the_second_sequence_that_numpy_spawns_from_it():
    received = []

    def backward(dy, cache):
        received.append(dy.copy())
        return ops.relu_backward(dy, cache)

    check_op(ops.relu_forward, backward, X, rng=7)
    _, second = np.random.SeedSequence(7).spawn(2)
    drawn = np.random.default_rng(second).standard_normal(X.shape)
    np.testing.assert_array_equal(received[0], drawn)


def test_batch_norm_of_a_single_value_is_refused_as_it_proves_nothing():
    refused(
        "vacuous", ops.batchnorm_forward, ops.batchnorm_backward, X[:1, :1, :1], GAMMA, BETA, EPS
    )


@pytest.mark.parametrize("place", [0.0, 1e-9, -1e-9])
def test_a_value_on_the_kink_of_a_relu_is_refused(place):
    x = np.array([1.0, place, -2.0])
    e = refused("kink", ops.relu_forward, ops.relu_backward, x)
    assert e.index == (1,)


@pytest.mark.parametrize("f", [np.abs, lambda x: np.maximum(x, 0)])
def test_inputs_that_are_all_on_a_kink_are_not_called_vacuous(f):
    forward, backward = elementwise(f, np.sign)
    refused("kink", forward, backward, np.zeros(3))
    refused("kink", forward, backward, np.array([0.0, 1.0]))


def test_many_kinks_within_the_step_are_not_called_vacuous():
    places = 1e-9 * np.random.default_rng(0).standard_normal(30)
    e = refused(
        "kink",
        lambda b: (1 + np.maximum(places + b, 0), places + b > 0),
        lambda dy, positive: (dy * positive).sum(keepdims=True),
        np.zeros(1),
    )
    assert "slopes from left and right" in str(e)


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


@pytest.mark.parametrize("victim", ["x", "x first", "y"])
def test_changing_an_argument_in_place_is_refused(victim):
    def forward(x):
        if victim == "x first":  # a second forward then gives another y
            x += 1
        y, cache = ops.relu_forward(x)
        if victim == "x":
            x += 1
        return y, cache

    def backward(dy, cache):
        dx = ops.relu_backward(dy, cache)
        if victim == "y":
            dy *= 2
        return dx

    assert refused("changed", forward, backward, X.copy()).argument == victim[0]


def test_a_backward_that_changes_an_input_is_refused_though_its_gradient_is_right():
    def forward(x):
        return x + 1, (x,)

    def backward(dy, cache):
        cache[0][...] = 0
        return dy.copy()

    assert refused("changed", forward, backward, X.copy()).argument == "x"


def test_the_defaults_of_a_check_are_those_of_its_documentation():
    shared = {"cotangent": None, "rng": 0, "rtol": 1e-6, "elements": 64}
    for check, more in ((check_layer, {}), (check_op, {"names": None, "method": "central"})):
        parameters = inspect.signature(check).parameters.values()
        assert {p.name: p.default for p in parameters if p.default is not p.empty} == shared | more


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


ROW = Row("x", (2, 3), 4, (1, 2), 0.5, 0.25, 0.125)
REPORT = Report("op", "central", (ROW,), ("labels",))
ELEMENT = Line("x", np.zeros((2, 3)), 4, None, 1.0)


def test_a_report_is_a_title_above_a_table_with_aligned_columns():
    assert repr(REPORT).splitlines() == [
        "op: backward agrees with central differences; not checked, as backward returned None: "
        "labels",
        "gradient  shape   elements checked  worst at  analytic  numeric  relative error",
        "dx        (2, 3)  4 of 6            (1, 2)    0.5       0.25     1.2e-01",
    ]


@pytest.mark.parametrize("record", [ROW, REPORT, ELEMENT])
def test_what_a_check_has_found_cannot_be_changed(record):
    with pytest.raises(FrozenInstanceError):
        setattr(record, fields(record)[0].name, "other")


def test_a_line_along_an_element_has_its_place_and_one_along_a_direction_has_none():
    assert (ELEMENT.place, ELEMENT.where) == ((1, 1), "near (1, 1)")
    with pytest.raises(AssertionError):
        _ = ELEMENT.direction
    along = Line("x", np.zeros((2, 3)), None, np.full(6, 2.0), 1.0)
    assert (along.place, along.where) == (None, "along a random direction")
    np.testing.assert_array_equal(along.direction, 2)
    assert (ELEMENT.length, along.length) == (1, pytest.approx(24**0.5))


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


def test_inputs_of_an_op_without_a_signature_are_numbered():
    class Compiled:
        __signature__ = "unknown"

        def __call__(self, a, b):
            return a * b, (a, b)

    report = check_op(Compiled(), lambda dy, c: (dy * c[1], dy * c[0]), BETA, GAMMA)
    assert [row.argument for row in report.rows] == ["input 0", "input 1"]


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


def test_the_first_of_several_places_that_are_not_finite_is_named():
    x = np.array([1.0, np.nan, 2.0, np.inf])
    with pytest.raises(InputError, match=r"x at \(1,\) is nan"):
        check_op(ops.relu_forward, ops.relu_backward, x)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "forward"},
        {"rtol": np.inf},
        {"rtol": np.nan},
        {"rtol": 1.0},
        {"rtol": 0.0},
        {"elements": 0},
        {"names": ("x", "w")},
        {"cotangent": np.ones(3)},
    ],
)
def test_senseless_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        check_op(ops.relu_forward, ops.relu_backward, X, **options)


# ------------------------------------------------------------------------------ scales and rounding


def elementwise(f, slope):
    return (lambda x: (f(x), x)), (lambda dy, x: dy * slope(x))


SMOOTH = {
    "log": elementwise(np.log, lambda x: 1 / x),
    "square root": elementwise(np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "inverse": elementwise(lambda x: 1 / x, lambda x: -1 / x**2),
    "cube": elementwise(lambda x: x**3, lambda x: 3 * x**2),
    "exponential": elementwise(np.exp, np.exp),
}
UNIFORM = np.random.default_rng(3).uniform(0.5, 2, (4, 3))
MIXED = np.array([1e-9, 1e-6, 1e-3, 1.0, 20.0])
WIDE = 10 ** np.random.default_rng(4).uniform(-8, 1, 200)


@pytest.mark.parametrize("size", [1e-12, 1e-8, 1e-6, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("op", SMOOTH)
def test_smooth_ops_are_checked_at_any_scale(op, size):
    forward, backward = SMOOTH[op]
    x = size * UNIFORM if op != "exponential" else min(size, 1) * UNIFORM
    assert check_op(forward, backward, x).error < 1e-7
    refused("wrong", forward, lambda dy, c: backward(dy, c) * 1.00001, x)


@pytest.mark.parametrize("x", [MIXED, WIDE], ids=["few", "many"])
@pytest.mark.parametrize("op", SMOOTH)
def test_smooth_ops_are_checked_where_scales_are_mixed(op, x):
    forward, backward = SMOOTH[op]
    check_op(forward, backward, x)

    def wrong(dy, c):
        dx = backward(dy, c)
        dx[2] *= 1.05
        return dx

    assert refused("wrong", forward, wrong, x, elements=200).index == (2,)


@pytest.mark.parametrize("size", [1e-8, 1e-3])
def test_small_inputs_of_the_library_are_checked(size):
    x, w = size * X, X[0, 1, :2]
    check_op(ops.linear_forward, ops.linear_backward, x[0, 0], w, BETA)
    check_op(ops.linear_forward, ops.linear_backward, X[0, 0], size * w, BETA)
    check_op(ops.batchnorm_forward, ops.batchnorm_backward, x, GAMMA, BETA, EPS)
    check_op(ops.batchnorm_forward, ops.batchnorm_backward, X, GAMMA, size * BETA, EPS)
    check_op(ops.relu_forward, ops.relu_backward, x)
    check_op(ops.conv2d_forward, ops.conv2d_backward, x, size * W, pad=1, elements=8)
    for layer in (BatchNorm(2), ReLU()):
        check_layer(layer, x)


def test_rounding_inside_an_op_is_measured_not_taken_for_a_kink_or_an_error():
    offset = 1e4 + X  # y has 12 digits: the mean takes 4 of 16
    check_op(ops.batchnorm_forward, ops.batchnorm_backward, offset, GAMMA, BETA, EPS)
    labels = np.arange(3)
    logits = X[0, :3, :, 0] + np.array([[1e3], [0], [-1e3]])
    check_op(
        lambda z: ops.softmax_cross_entropy(z, labels), lambda d, dz: d * dz, logits, rtol=1e-5
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_right_gradient_near_zero_passes_next_to_large_ones(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, 4)
    logits = rng.uniform(-12, 12, (4, 6))
    check_op(lambda z: ops.softmax_cross_entropy(z, labels), lambda d, dz: d * dz, logits, rng=seed)


@pytest.mark.parametrize("total", [False, True], ids=["elementwise", "sum"])
def test_a_small_wrong_gradient_next_to_a_large_one_is_found(total):
    scales = np.array([1.0, 1e5, 30.0])

    def forward(x):
        return (scales * x).sum() if total else scales * x, ()

    def backward(dy, _, wrong=1.05):
        return dy * scales * [wrong, 1, 1]

    check_op(forward, lambda dy, cache: backward(dy, cache, 1.0), UNIFORM[0])
    e = refused("wrong", forward, backward, UNIFORM[0])
    assert e.index == (0,)
    assert "relative error 4.8e-02" in str(e)


@pytest.mark.parametrize("small", [1.0, 1e-3])
def test_a_small_wrong_gradient_is_found_by_random_directions(small):
    scales = np.full(1000, small)
    scales[5] = 1e5
    check_op(lambda x: (scales * x, ()), lambda dy, _: dy * scales, WIDE[0] + np.ones(1000))
    wrong = np.ones(1000)
    wrong[77] = 1.05
    e = refused(
        "wrong",
        lambda x: (scales * x, ()),
        lambda dy, _: dy * scales * wrong,
        np.random.default_rng(0).standard_normal(1000),
        elements=4,
    )
    assert e.index == (77,)


def test_a_wrong_element_of_many_is_found_though_short_steps_show_only_rounding():
    wrong = np.ones(300)
    wrong[123] = 1.0001
    x = np.random.default_rng(0).uniform(0.5, 2, 300)
    e = refused("wrong", lambda x: (1e6 + x, ()), lambda dy, _: dy * wrong, x, elements=4)
    assert e.index == (123,)


def test_a_wrong_gradient_at_a_kink_that_hides_in_a_direction_is_refused_as_one_at_a_kink():
    jump = np.zeros(1000)
    jump[77] = 3e-5
    kept = jump == 0
    x = np.where(kept, 1.5, 0)
    e = refused(
        "kink",
        lambda x: (kept * x + jump * np.maximum(x, 0), ()),
        lambda dy, _: dy * (kept + 100 * jump),
        x,
        cotangent=1.0,
        elements=4,
    )
    assert e.index == (77,)


def test_a_right_gradient_costs_four_evaluations_for_each_element():
    calls = []

    def forward(x):
        calls.append(x)
        return 2 * x, ()

    check_op(forward, lambda dy, _: 2 * dy, UNIFORM)
    assert len(calls) == 2 + 1 + 4 * UNIFORM.size  # the first are repeated, and tell its precision


def test_a_slope_is_extrapolated_from_two_steps():
    # at x = 0 the central difference of sin(k x) is off by (k h)^2 / 6, the extrapolated one by
    # (k h)^4 / 480
    k = 100.0
    forward, backward = elementwise(lambda x: np.sin(k * x), lambda x: k * np.cos(k * x))
    report = check_op(forward, backward, np.array([1e-3, 2e-3, 1.0]))
    assert report.error < 1e-11


def test_a_step_shrinks_where_the_output_bends_within_it():
    # sin(k x) at its zeros: the five points show no noise, only the two slopes differ
    k = np.pi * 1e4
    forward, backward = elementwise(lambda x: np.sin(k * x), lambda x: k * np.cos(k * x))
    assert check_op(forward, backward, np.array([0.5, 1.0, 2.0])).error < 1e-6


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_a_step_follows_the_argument_not_the_output(size):
    forward, backward = elementwise(
        lambda x: np.sin(x / size) / size, lambda x: np.cos(x / size) / size**2
    )
    assert check_op(forward, backward, size * UNIFORM).error < 1e-9


def test_an_op_that_computes_in_float32_is_refused_by_that_name_or_checked_to_its_precision():
    w = UNIFORM[:, :2]

    def forward(x, w):
        return x.astype("float32") @ w.astype("float32"), (x, w)

    def backward(dy, cache, wrong=1.0):
        x, w = cache
        return wrong * dy @ w.T, x.T @ dy

    x = np.random.default_rng(0).standard_normal((5, 4))
    e = refused("precision", forward, backward, x, w)
    assert "float32" in str(e)
    assert "know a gradient to about 1e-05, not to rtol=1e-06" in str(e)
    assert "rtol=1e-03" in str(e)
    assert check_op(forward, backward, x, w, rtol=1e-3).error < 1e-3
    refused("wrong", forward, lambda dy, c: backward(dy, c, 1.01), x, w, rtol=1e-3)
    e = refused("precision", lambda x: (np.float16(x).astype(float), ()), lambda dy, _: dy, x)
    assert "float16" in str(e)
    assert "rtol=1e+" not in str(e)


def test_the_precision_of_an_op_is_found_within_a_4096th_of_its_inputs():
    seen = []

    def forward(x):
        seen.append(x.copy())
        return 2 * x, ()

    check_op(forward, lambda dy, _: 2 * dy, UNIFORM)
    (moved,) = [x for x in seen if (x != UNIFORM).all()]  # all others move one element
    changes = moved / UNIFORM - 1
    assert -1 / 4096 <= changes.min() < 0 < changes.max() <= 1 / 4096


def test_whole_numbers_are_not_taken_for_float16():
    check_op(ops.linear_forward, ops.linear_backward, np.eye(3), np.ones((3, 2)), np.ones(2))


def test_a_constant_output_is_vacuous_also_where_float16_can_hold_it():
    refused("vacuous", lambda x: (0 * x + 0.5, ()), lambda dy, _: 0 * dy, X)


@pytest.mark.parametrize("seed", range(4))
def test_rounding_of_one_number_is_not_taken_for_an_error(seed):
    x = np.random.default_rng(seed).standard_normal(60)
    forward = (lambda x: ((1e5 + np.sin(x).sum()) - 1e5, x)), (lambda dy, x: dy * np.cos(x))
    check_op(*forward, x, rng=seed, rtol=1e-5)


def test_an_argument_far_below_the_rounding_of_the_output_is_checked_with_longer_steps():
    check_op(ops.batchnorm_forward, ops.batchnorm_backward, X, GAMMA, 1e-20 * BETA, EPS)


def test_a_derivative_that_rounding_hides_is_refused():
    forward, backward = elementwise(lambda x: (1e8 + np.sin(x)) - 1e8, np.cos)
    e = refused("precision", forward, backward, UNIFORM)
    assert "larger rtol" in str(e)


@pytest.mark.parametrize("elements", [6, 60])
@pytest.mark.parametrize("seed", range(12))
def test_no_gradient_agrees_with_slopes_that_are_rounding(elements, seed):
    """By chance one step may show little noise. The slope is 0, but no number here shows it."""
    x = np.random.default_rng(seed).standard_normal(elements)
    hidden = {"vacuous", "precision"}
    for factor, kinds in ((0, hidden), (1e-3, hidden | {"wrong"})):
        with pytest.raises(GradientError) as caught:
            check_op(
                lambda x: ((1e8 + x) - 1e8 - x, ()),
                lambda dy, _, factor=factor: factor * dy,
                x,
                rng=seed,
            )
        assert caught.value.kind in kinds


# ------------------------------------------------------------------------- NaN and complex steps


def logistic(x):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x)), x


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_complex_step_that_gives_nan_is_refused():
    x = np.array([0.3, -1.2, 0.7, -800.0])
    e = refused("nonfinite", logistic, lambda dy, x: 1000 * dy + 7, x, method="complex")
    assert "no finite number" in str(e)


def test_an_op_that_is_nan_on_both_sides_is_refused_with_its_place():
    def forward(x):
        return np.where(x == UNIFORM, x, np.nan), ()

    e = refused("nonfinite", forward, lambda dy, _: dy, UNIFORM)
    assert e.index == (0, 0)


def test_the_error_says_what_forward_raises_near_the_inputs():
    def forward(x):
        if not np.array_equal(x, UNIFORM):
            raise ValueError("only one x will do")
        return x * 1.0, ()

    assert "only one x will do" in str(refused("nonfinite", forward, lambda dy, _: dy, UNIFORM))


def test_an_output_whose_shape_depends_on_the_input_is_refused():
    e = refused(
        "nonfinite",
        lambda x: (x[x >= UNIFORM], ()),
        lambda dy, _: dy.reshape(UNIFORM.shape),
        UNIFORM,
    )
    assert "changes its shape" in str(e)


NOT_HOLOMORPHIC = {
    "conj": (lambda x: (2 * x.T.conj(), ()), lambda dy, _: 2 * dy.T),
    "conj, wrong sign": (lambda x: (2 * x.conj(), ()), lambda dy, _: -2 * dy),
    "abs": (lambda x: (x * np.abs(x), x), lambda dy, x: 2 * dy * np.abs(x)),
    "real": (lambda x: (x * x.real, x), lambda dy, x: 2 * dy * x),
    "vdot": (lambda x: (np.vdot(x, x), x), lambda dy, x: 2 * dy * x),
}


@pytest.mark.parametrize("op", NOT_HOLOMORPHIC)
def test_an_op_that_is_not_holomorphic_is_unsuitable_for_the_complex_step(op):
    forward, backward = NOT_HOLOMORPHIC[op]
    e = refused("unsuitable", forward, backward, UNIFORM, method="complex")
    assert "not holomorphic" in str(e)
    if op != "conj, wrong sign":
        check_op(forward, backward, UNIFORM)


def test_an_op_that_is_not_holomorphic_in_one_small_element_is_not_called_wrong():
    scales = np.array([1.0, 1e-7, 1.0])

    def forward(x):
        return scales * np.where(scales < 1, x.conj(), x), ()

    e = refused("unsuitable", forward, lambda dy, _: scales * dy, UNIFORM[0], method="complex")
    assert e.index == (1,)
    assert "not holomorphic" in str(e)


def test_an_op_that_takes_no_complex_numbers_is_unsuitable_for_the_complex_step():
    e = refused("unsuitable", ops.relu_forward, ops.relu_backward, X, method="complex")
    assert "use method='central'" in str(e)


def test_the_complex_step_refuses_what_proves_nothing():
    args = ops.batchnorm_forward, ops.batchnorm_backward, X, GAMMA, BETA, EPS
    refused("vacuous", *args, cotangent=1.0, method="complex")
    refused("vacuous", *args, cotangent=0.0, method="complex")
    centre = (lambda x: (1e8 * (x - x.mean()), ())), (lambda dy, _: 1e8 * (dy - dy.mean()))
    refused("vacuous", *centre, np.full(7, 0.3), cotangent=0.7, method="complex")
    refused("vacuous", lambda x: (0 * x + 1, ()), lambda dy, _: 0 * dy, X, method="complex")


@pytest.mark.parametrize("element", [1.00001, 0.0])
def test_the_complex_step_finds_a_wrong_element(element):
    forward, backward = SMOOTH["cube"]
    x = np.append(1e-3, UNIFORM)
    factor = np.append(element, np.ones(UNIFORM.size))
    e = refused("wrong", forward, lambda dy, c: backward(dy, c) * factor, x, method="complex")
    assert e.index == (0,)
    assert check_op(forward, backward, x, method="complex").error < 1e-15


@pytest.mark.parametrize("elements", [64, 4])
def test_the_complex_step_finds_one_wrong_element_of_many(elements):
    forward, backward = SMOOTH["cube"]
    x = np.linspace(1, 2, 300)
    factor = np.where(np.arange(300) == 123, 1.001, 1)
    e = refused(
        "wrong",
        forward,
        lambda dy, c: backward(dy, c) * factor,
        x,
        method="complex",
        elements=elements,
    )
    assert e.index == (123,)


# ---------------------------------------------------------------------- ops that are not repeatable


def test_a_forward_that_draws_random_numbers_is_refused():
    rng = np.random.default_rng(0)

    def dropout(x):
        mask = rng.random(x.shape) < 0.5
        return x * mask, mask

    e = refused("unrepeatable", dropout, lambda dy, mask: dy * mask, X)
    assert "not deterministic" in str(e)


def spoils_its_cache(dy, cache):
    (x,) = cache
    x *= 2 * dy
    return x


def test_a_backward_that_spoils_its_cache_is_refused():
    e = refused("unrepeatable", lambda x: (x**2, (x.copy(),)), spoils_its_cache, X)
    assert "same cache" in str(e)


@pytest.mark.parametrize("way", ["adds to a global", "is right once", "drifts"])
def test_a_backward_that_is_right_once_is_refused(way):
    calls = []

    def backward(dy, x):
        calls.append(2 * dy * x)
        if way == "adds to a global":
            return sum(calls)
        if way == "drifts":
            return calls[-1] * (1 + 1e-9 * len(calls))
        return calls[-1] * (len(calls) == 1)

    refused("unrepeatable", lambda x: (x**2, x), backward, X)


@pytest.mark.parametrize(("roundings", "repeated"), [(-64, True), (64.5, False)])
def test_two_calls_may_differ_by_64_roundings_of_the_largest_value(roundings, repeated):
    one, other = np.array([1.0, 0.25]), np.array([1.0, 0.25 + roundings * 2.0**-52])
    assert same(one, other) is repeated


@pytest.mark.parametrize("results", [(2.0, None), (None, 2.0)])
def test_a_backward_that_returns_a_gradient_only_once_is_refused(results):
    left = list(results)
    refused("unrepeatable", lambda x: (2 * x, ()), lambda dy, _: left.pop(0), np.array(0.5))


def test_a_backward_may_use_up_its_cache_if_a_second_call_raises():
    assert check_op(lambda x: (x**2, [x]), lambda dy, c: 2 * dy * c.pop(), X).error < 1e-8


def test_a_backward_that_uses_up_its_cache_is_run_again_with_a_new_one():
    calls = []

    def backward(dy, cache):
        x = cache.pop()
        calls.append(1)
        return 2 * dy * x * (len(calls) == 1)

    refused("unrepeatable", lambda x: (x**2, [x]), backward, X)


# ------------------------------------------------------------------------------ what ops may return


def squared_error(pred, target):
    return ((pred - target) ** 2).sum(), pred - target


@pytest.mark.parametrize("sequence", [tuple, list])
def test_a_target_needs_no_gradient_and_the_report_says_so(sequence):
    report = check_op(
        squared_error, lambda dy, d: sequence((2 * dy * d, None)), X, 2 * X[::-1].copy()
    )
    assert [row.argument for row in report.rows] == ["pred"]
    assert report.unchecked == ("target",)
    assert "None: target" in repr(report)
    assert "None: target" in report._repr_html_()
    refused("wrong", squared_error, lambda dy, d: (2.1 * dy * d, None), X, X[::-1].copy())


def test_a_target_of_an_op_with_many_outputs_is_known_by_its_name():
    check_op(lambda x, t: ((x - t) ** 2, x - t), lambda dy, d: (2 * dy * d, None), X, X + 1)
    product = (lambda a, b: (a * b, b)), (lambda dy, b: (dy * b, None))
    assert refused("uncovered", *product, X, X + 1).argument == "b"


def test_all_gradients_none_are_refused():
    refused("uncovered", squared_error, lambda dy, d: (None, None), X, X + 1)
    refused("uncovered", squared_error, lambda dy, d: None, X, X + 1)


def test_gradients_may_be_a_list():
    check_op(
        ops.linear_forward,
        lambda dy, cache: list(ops.linear_backward(dy, cache)),
        X[0, 0],
        X[0, 1, :2],
        BETA,
    )
    check_op(lambda x: (2 * x, ()), lambda dy, _: [2 * dy], BETA)
    check_op(lambda x: (2 * x, ()), lambda dy, _: (2 * dy).tolist(), BETA)


def test_a_backward_may_return_none_for_integers():
    def lookup(index, w):
        return w[index], (index, w.shape)

    def backward(dy, cache):
        index, shape = cache
        dw = np.zeros(shape)
        np.add.at(dw, index, dy)
        return None, dw

    (row,) = check_op(lookup, backward, np.array([0, 2, 2]), UNIFORM).rows
    assert row.argument == "w"
    e = refused("shape", lookup, lambda dy, c: (dy, backward(dy, c)[1]), np.array([0, 2]), UNIFORM)
    assert "array of int64" in str(e)


@pytest.mark.parametrize("result", [2 * X, None, (2 * X,), [2 * X, ()]])
def test_a_forward_without_a_cache_is_refused(result):
    e = refused("unsuitable", lambda x: result, lambda dy, _: 2 * dy, X)
    assert "must return a tuple (y, ..., cache)" in str(e)


@pytest.mark.parametrize("y", [None, X.astype(int), X + 1j, X[:0], "text"])
def test_an_output_that_has_no_derivative_is_refused(y):
    refused("unsuitable", lambda x: (y, ()), lambda dy, _: dy, X)


def test_an_output_that_is_not_finite_is_refused_with_its_place():
    with np.errstate(invalid="ignore"), pytest.raises(InputError, match=r"y at \(1,\) is nan"):
        check_op(lambda x: (np.sqrt(x), x), lambda dy, x: dy, np.array([1.0, -1.0]))


@pytest.mark.parametrize("bad", ["complex128", "object", "str"])
def test_a_gradient_that_is_not_real_numbers_is_refused(bad):
    e = refused("unsuitable", lambda x: (2 * x, ()), lambda dy, _: (2 * dy).astype(bad), X)
    assert "expected real numbers" in str(e)


@pytest.mark.parametrize(
    "inputs", [[np.arange(4)], [[1.0, 2.0]], [3.0], [], [X > 0]], ids=lambda i: str(i)[:12]
)
def test_a_check_of_nothing_is_refused(inputs):
    e = refused("unsuitable", lambda *a: (X, ()), lambda dy, _: dy, *inputs)
    assert "expected a floating-point array" in str(e)


@pytest.mark.parametrize("x", [np.zeros((0, 3)), X + 0j], ids=["empty", "complex"])
def test_empty_and_complex_arrays_are_refused(x):
    assert refused("unsuitable", ops.relu_forward, ops.relu_backward, x).argument == "x"


@pytest.mark.parametrize("rng", [-1, "seed", 0.5])
def test_a_senseless_seed_is_refused(rng):
    with pytest.raises(InputError, match="rng must be a seed"):
        check_op(ops.relu_forward, ops.relu_backward, X, rng=rng)


def test_names_must_differ_and_a_cotangent_be_finite():
    with pytest.raises(InputError, match="different names"):
        check_op(lambda a, b: (a * b, ()), lambda dy, _: (dy, dy), X, X, names=("x", "x"))
    with pytest.raises(InputError, match="dy at"):
        check_op(ops.relu_forward, ops.relu_backward, X, cotangent=np.nan)


# ------------------------------------------------------------------------------ layers with state


class Embedding(Layer):
    """y = w[x]; there is no gradient of the indices."""

    def __init__(self, wrong=1):
        super().__init__()
        self.wrong, self.params = wrong, {"w": UNIFORM.astype("float32")}

    def forward(self, x, train=False):
        self._keep((x,), train)
        return self.params["w"][x]

    def backward(self, dy):
        (x,) = self._pop()
        self.grads["w"] = np.zeros_like(self.params["w"])
        np.add.at(self.grads["w"], x, self.wrong * dy)


def test_an_embedding_with_integer_input_is_checked():
    report = check_layer(Embedding(), np.array([[0, 1], [3, 3]]))
    assert [row.argument for row in report.rows] == ["w"]
    assert report.unchecked == ("x",)
    with pytest.raises(GradientError, match="wrong: dw"):
        check_layer(Embedding(2), np.array([[0, 1], [3, 3]]))


def test_whole_numbers_for_an_ordinary_layer_are_checked_as_floats():
    report = check_layer(Linear(3, 2, rng=0), np.arange(1, 7).reshape(2, 3))
    assert [row.argument for row in report.rows] == ["x", "w", "b"]


class Centred(Layer):
    """y = x - running mean, where the running mean moves with every forward."""

    def __init__(self, where):
        super().__init__()
        self.where, self.mean, self.mean_list = where, np.zeros(2), [np.zeros(2)]
        self.buffers = {"mean": np.zeros(2, "float32")}

    def forward(self, x, train=False):
        batch = x.reshape(-1, 2).mean(axis=0)
        self.mean_list[0] = 0.9 * self.mean_list[0] + 0.1 * batch
        self.mean = 0.9 * self.mean + 0.1 * batch
        self.buffers["mean"] *= 0.9
        self.buffers["mean"] += 0.1 * batch
        return x - {"list": self.mean_list[0], "array": self.mean}.get(
            self.where, self.buffers["mean"]
        )

    def backward(self, dy):
        M = dy.size // 2
        return dy - 0.1 / M * dy.reshape(-1, 2).sum(axis=0)


@pytest.mark.parametrize("where", ["buffer", "array", "list"])
def test_a_layer_with_running_state_is_checked(where):
    assert check_layer(Centred(where), X).error < 1e-8


class Root(Layer):
    """y = sqrt(sign x), for x of that sign only."""

    def __init__(self, sign):
        super().__init__()
        self.sign = sign

    def forward(self, x, train=False):
        if (self.sign * x <= 0).any():
            raise InputError("x has the wrong sign")
        y = np.sqrt(self.sign * x)
        self._keep((y,), train)
        return y

    def backward(self, dy):
        (y,) = self._pop()
        return self.sign * dy / (2 * y)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_layer_that_takes_numbers_of_one_sign_only_is_checked(sign):
    assert check_layer(Root(sign), sign * (np.abs(X) + 0.1)).error < 1e-8


class Noisy(ReLU):
    def forward(self, x, train=False):
        return super().forward(x, train) + np.random.default_rng().random()


class Drawing(ReLU):
    """Each forward draws from a generator of the layer's own, which nothing resets."""

    def __init__(self):
        super().__init__()
        self.own = np.random.default_rng(0)

    def forward(self, x, train=False):
        return super().forward(x, train) + self.own.random()


class OddBackward(ReLU):
    """Every other backward is wrong: the check runs it on other data first."""

    calls = 0

    def backward(self, dy):
        OddBackward.calls += 1
        return super().backward(dy) * (1 + OddBackward.calls % 2)


class Accumulating(Scale):
    """It starts from gradients of 0 and adds to them."""

    def __init__(self):
        super().__init__()
        self.grads = {name: np.zeros_like(p) for name, p in self.params.items()}

    def backward(self, dy):
        (x,) = self._cache
        self.grads["a"] += (dy * x).sum()
        self.grads["b"] += dy.sum()
        return dy * self.params["a"]


class SeldomAssigning(Scale):
    """Every other backward leaves the old gradients where they are."""

    calls = 0

    def backward(self, dy):
        old = dict(self.grads)
        dx = super().backward(dy)
        self.calls += 1
        if self.calls % 2:
            self.grads = old
        return dx


class ChangesItsParameter(Scale):
    def backward(self, dy):
        dx = super().backward(dy)
        self.params["b"] += 1
        return dx


class WithoutDx(ReLU):
    def backward(self, dy):
        super().backward(dy)


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (Noisy, "unrepeatable", "not deterministic"),
        (Drawing, "unrepeatable", "not deterministic"),
        (OddBackward, "unrepeatable", "keeps state"),
        (Accumulating, "uncovered", "added it to the old one"),
        (SeldomAssigning, "unrepeatable", "keeps state"),
        (ChangesItsParameter, "changed", "b"),
        (WithoutDx, "uncovered", "dx is missing"),
    ],
)
def test_a_layer_that_is_right_once_is_refused(make, kind, words):
    with pytest.raises(GradientError, match=words) as e:
        check_layer(make(), X)
    assert e.value.kind == kind


@pytest.mark.parametrize("x", [X[:0], X + 1j, np.array(["a"])])
def test_a_layer_input_that_cannot_be_checked_is_refused(x):
    with pytest.raises(GradientError, match="unsuitable: dx"):
        check_layer(ReLU(), x)


def test_a_parameter_without_elements_is_refused_by_its_name():
    layer = Scale()
    layer.params["none"] = np.ones(0, np.float32)
    with pytest.raises(GradientError, match=r"nothing to check: none has shape \(0,\)"):
        check_layer(layer, X)


@pytest.mark.parametrize("y", [None, [1.0], np.arange(3)])
def test_a_layer_output_that_is_no_array_of_real_numbers_is_refused(y):
    layer = ReLU()
    layer.forward = lambda x, train=False: y
    with pytest.raises(GradientError, match="must return an array of real numbers"):
        check_layer(layer, X)


def test_what_is_no_layer_is_refused():
    with pytest.raises(InputError, match="use check_op"):
        check_layer(ops.relu_forward, X)


def test_a_layer_with_integer_input_and_no_parameters_has_nothing_to_check():
    class Lookup(Layer):
        def forward(self, x, train=False):
            return UNIFORM[x]

        def backward(self, dy):
            return None

    with pytest.raises(GradientError, match="nothing to check"):
        check_layer(Lookup(), np.array([0, 1]))


# ------------------------------------------------------------------------------------ progress


def test_a_progress_bar_counts_every_slope_and_waits_two_seconds(monkeypatch, capsys):
    bars = []
    real = tqdm.auto.tqdm

    def bar(**options):
        bars.append((options, real(file=io.StringIO(), **options)))
        return bars[-1][1]

    monkeypatch.setattr(tqdm.auto, "tqdm", bar)
    check_op(ops.relu_forward, ops.relu_backward, X, elements=4)
    check_op(ops.linear_forward, ops.linear_backward, X[0, 0], X[0, 1, :2], BETA)
    check_op(lambda x: (2 * x, ()), lambda dy, _: 2 * dy, X, elements=4, cotangent=1.0)
    for options, made in bars:
        assert options["delay"] == 2
        assert options["leave"] is False  # the report takes its place
        assert made.n == made.total
    assert bars[0][1].total > 6  # and a direction of small gradients
    assert bars[1][1].total == 10 + 4 + 2
    assert bars[2][1].total == 6  # 4 elements, 2 directions
    assert capsys.readouterr().out == ""
