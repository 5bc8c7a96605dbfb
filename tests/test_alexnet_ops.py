"""The ops of AlexNet against loops, against differences and the complex step, and identities."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import close, pools, rngs

from minires import InputError, get_ops
from minires.gradcheck import check_op
from minires.ops import BACKENDS
from minires.ops.compiled.response_norm import BLOCK

PAPER = {"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75}


@pytest.fixture(params=BACKENDS, scope="module")
def ops(request):
    return get_ops(request.param)


@st.composite
def responses(draw, dtypes=("float32", "float64")):
    """x (N, ..., C) in any memory order, options, rng: values for which channels compete."""
    n = draw(st.sampled_from([1, 3, 5, 7]))
    C = n + draw(st.integers(0, 12))
    shape = (*draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)), C)
    rng = draw(rngs())
    options = {"n": n, "k": draw(st.sampled_from([1.0, 2.0]))}
    options |= {"alpha": draw(st.sampled_from([0.0, 1e-4, 0.5]))}
    options |= {"beta": draw(st.sampled_from([0.75, 0.5, 1.0]))}
    x = draw(st.sampled_from([1.0, 100.0])) * rng.standard_normal(shape)
    x = x.astype(draw(st.sampled_from(dtypes)))
    orders = (np.ascontiguousarray, np.asfortranarray, lambda a: np.repeat(a, 2, -1)[..., ::2])
    return draw(st.sampled_from(orders))(x), options, rng


@given(problem=responses())
@settings(max_examples=40)
def test_local_response_norm_equals_loops(ops, problem):
    x, options, rng = problem
    y, cache = ops.local_response_norm_forward(x, **options)
    assert y.dtype == x.dtype
    close(y, naive.local_response_norm(x, **options), 4 * options["n"])
    dy = rng.standard_normal(x.shape).astype(x.dtype)
    dx = ops.local_response_norm_backward(dy, cache)
    assert dx.dtype == x.dtype
    # one term of the sum is at most 2 beta |dy|, as alpha x[c] x[d] <= s / 2
    largest = np.abs(dy).max() * (1 + 2 * options["beta"]) / options["k"] ** options["beta"]
    close(dx, naive.local_response_norm_gradient(x, dy, **options), 4 * options["n"], largest)


@pytest.mark.parametrize("pixels", [-1, 0, 1])
def test_local_response_norm_of_pixels_around_the_end_of_a_block_equals_numpy(pixels):
    C = 9
    rng = np.random.default_rng(0)
    x, dy = 50 * rng.standard_normal((2, 2 * (BLOCK // C) + pixels, C))
    results = []
    for backend in BACKENDS:
        ops = get_ops(backend)
        y, cache = ops.local_response_norm_forward(x)
        results.append((y, ops.local_response_norm_backward(dy, cache)))
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs, 10)


@given(problem=responses(("float64",)))
@settings(max_examples=20)
def test_gradient_of_local_response_norm(ops, problem):
    x, options, rng = problem
    constants = tuple(options.values())
    forward, backward = ops.local_response_norm_forward, ops.local_response_norm_backward
    check_op(forward, backward, x, *constants, rng=rng, elements=16)
    if ops is not get_ops("numba"):
        check_op(forward, backward, x, *constants, rng=rng, elements=16, method="complex")


def test_local_response_norm_at_unit_scale_is_nearly_a_constant(ops, rng):
    """The paper's constants let channels compete only if activations are large."""
    x = rng.standard_normal((4, 8, 8, 32))
    spread = {}
    for scale in (1, 100):
        y, _ = ops.local_response_norm_forward(scale * x, **PAPER)
        factors = y / (scale * x)
        assert factors.max() <= 2**-0.75
        spread[scale] = factors.max() / factors.min()
    assert spread[1] < 1.002
    assert spread[100] > 2


def test_alpha_is_not_divided_by_the_window(ops):
    x = np.full((1, 1, 1, 5), 3.0)
    y, _ = ops.local_response_norm_forward(x, 5, 1.0, 1.0, 1.0)
    assert y[0, 0, 0, 2] == pytest.approx(3 / (1 + 5 * 9), rel=1e-14)
    assert y[0, 0, 0, 0] == pytest.approx(3 / (1 + 3 * 9), rel=1e-14)  # a window cut at channel 0


@given(problem=pools())
@settings(max_examples=30)
def test_average_pool_equals_loops(ops, problem):
    x, k, stride, pad, rng = problem
    y, cache = ops.avg_pool_forward(x, k, stride, pad)
    assert y.dtype == x.dtype
    close(y, naive.avg_pool(x, k, stride, pad), k * k, np.abs(x).max())
    dy = rng.standard_normal(y.shape).astype(x.dtype)
    dx = ops.avg_pool_backward(dy, cache)
    close(dx, naive.avg_pool_gradient(x, dy, k, stride, pad), k * k, np.abs(dy).max())


@given(problem=pools(("float64",)))
@settings(max_examples=15)
def test_gradient_of_average_pool(problem):
    x, k, stride, pad, rng = problem
    ops = get_ops("numpy")
    if stride > k:  # pixels between the windows do not matter, so no element may be checked alone
        stride = k
    check_op(ops.avg_pool_forward, ops.avg_pool_backward, x, k, stride, pad, rng=rng, elements=8)


def test_an_average_over_the_whole_image_is_global_average_pooling(ops, rng):
    x = rng.standard_normal((3, 4, 4, 5))
    y, _ = ops.avg_pool_forward(x, 4, 1)
    close(y[:, 0, 0], ops.global_avg_pool_forward(x)[0], 16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tanh_and_its_slope(ops, rng, dtype):
    x = (3 * rng.standard_normal((3, 4, 2))).astype(dtype)
    x.flat[:4] = [0, 200, -200, 1e-30]
    y, cache = ops.tanh_forward(x)
    exact = np.tanh(x.astype(np.longdouble))
    close(y, exact.astype(dtype), 1)
    assert list(y.flat[1:3]) == [1, -1]
    dy = rng.standard_normal(x.shape).astype(dtype)
    close(ops.tanh_backward(dy, cache), (dy * (1 - exact**2)).astype(dtype), 2)
    for method in ("central", "complex"):
        x = rng.standard_normal((2, 5))
        check_op(ops.tanh_forward, ops.tanh_backward, x, method=method)


def test_dropout_is_the_product_with_its_mask_in_both_directions(ops, rng):
    x, mask = rng.standard_normal((3, 4)), 2.0 * (rng.random((3, 4)) < 0.5)
    y, cache = ops.dropout_forward(x, mask)
    np.testing.assert_array_equal(y, x * mask)
    dy = rng.standard_normal((3, 4))
    np.testing.assert_array_equal(ops.dropout_backward(dy, cache), dy * mask)
    check_op(lambda x: ops.dropout_forward(x, mask), ops.dropout_backward, x)


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 0.9])
def test_a_mask_has_the_mean_1_and_the_share_of_zeros(ops, rate):
    u = np.random.default_rng(0).random((50, 400))
    mask = ops.dropout_mask(u, rate)
    assert set(np.unique(mask)) <= {0, 1 / (1 - rate)}
    share = np.sqrt(rate * (1 - rate) / u.size)  # deviation of the share of zeros
    assert abs((mask == 0).mean() - rate) <= 5 * share
    assert abs(mask.mean() - 1) <= 5 * share / (1 - rate)
    assert ops.dropout_mask(u.astype(np.float32), rate).dtype == np.float32
    with pytest.raises(InputError, match=r"rate must lie in \[0, 1\), got 1"):
        ops.dropout_mask(u, 1)
