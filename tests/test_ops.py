"""Every op, on every backend, against loops that spell out its definition."""

import importlib
import inspect
from types import ModuleType

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import DTYPES, close, convolutions, grouped_convolutions, images, pools, rngs

from minires import InputError, get_ops
from minires import ops as package
from minires.ops import BACKENDS, numpy_fused, numpy_ops, parts, register

EPS = 1e-5


@pytest.fixture(params=BACKENDS, scope="module")
def ops(request):
    return get_ops(request.param)


@given(problem=convolutions())
def test_convolution_equals_loops(ops, problem):
    x, w, stride, pad, rng = problem
    y, cache = ops.conv2d_forward(x, w, stride, pad)
    assert y.dtype == x.dtype
    terms = w[..., 0].size
    close(y, naive.conv2d(x, w, stride, pad), terms, np.abs(x).max() * np.abs(w).max())
    dy = rng.standard_normal(y.shape).astype(x.dtype)
    dx, dw = ops.conv2d_backward(dy, cache)
    expected_dx, expected_dw = naive.conv2d_gradients(x, w, dy, stride, pad)
    close(dx, expected_dx, w[:, :, 0].size, np.abs(dy).max() * np.abs(w).max())
    close(dw, expected_dw, dy[..., 0].size, np.abs(dy).max() * np.abs(x).max())


@given(problem=grouped_convolutions())
def test_convolution_in_groups_and_with_pairs_equals_loops(ops, problem):
    x, w, options, rng = problem
    y, cache = ops.conv2d_forward(x, w, **options)
    assert y.dtype == x.dtype
    close(y, naive.conv2d(x, w, **options), w[..., 0].size, np.abs(x).max() * np.abs(w).max())
    dy = rng.standard_normal(y.shape).astype(x.dtype)
    dx, dw = ops.conv2d_backward(dy, cache)
    expected_dx, expected_dw = naive.conv2d_gradients(x, w, dy, **options)
    close(dx, expected_dx, w[:, :, 0].size, np.abs(dy).max() * np.abs(w).max())
    close(dw, expected_dw, dy[..., 0].size, np.abs(dy).max() * np.abs(x).max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_group_is_a_convolution_of_its_own(ops, rng, dtype):
    """On channels that fill registers, which Winograd's tiles filter."""
    x = rng.standard_normal((2, 7, 6, 32)).astype(dtype)
    w = rng.standard_normal((3, 3, 16, 48)).astype(dtype)
    y, cache = ops.conv2d_forward(x, w, 1, 1, groups=2)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx, dw = ops.conv2d_backward(dy, cache)
    for c, k in ((slice(16), slice(24)), (slice(16, 32), slice(24, 48))):
        alone, alone_cache = ops.conv2d_forward(x[..., c], w[..., k], 1, 1)
        close(y[..., k], alone, 9 * 16)
        alone_dx, alone_dw = ops.conv2d_backward(dy[..., k], alone_cache)
        close(dx[..., c], alone_dx, 9 * 24)
        close(dw[..., k], alone_dw, dy[..., 0].size)


def test_a_pair_of_equal_numbers_is_the_number_to_the_last_bit(ops, rng):
    x, w = rng.standard_normal((2, 9, 8, 3)), rng.standard_normal((3, 3, 3, 5))
    y, cache = ops.conv2d_forward(x, w, 2, 1)
    same, same_cache = ops.conv2d_forward(x, w, (2, 2), [1, 1])
    np.testing.assert_array_equal(same, y)
    for a, b in zip(ops.conv2d_backward(y, cache), ops.conv2d_backward(y, same_cache), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("stride", "pad", "size"), [(1, 1, 3), (2, 0, 3), ((2, 1), (3, 2), 7)])
def test_without_the_input_gradient_the_same_dw_comes_alone(ops, rng, stride, pad, size):
    x, w = rng.standard_normal((5, 9, 9, 3)), rng.standard_normal((size, size, 3, 20))
    y, cache = ops.conv2d_forward(x, w, stride, pad)
    dy = rng.standard_normal(y.shape)
    nothing, dw = ops.conv2d_backward(dy, cache, input_gradient=False)
    assert nothing is None
    np.testing.assert_array_equal(dw, ops.conv2d_backward(dy, cache)[1])
    with pytest.raises(InputError, match="dy"):
        ops.conv2d_backward(dy[:1], cache, input_gradient=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_the_input_gradient_it_is_not_computed(backend, rng, monkeypatch):
    def refuse(*_):
        raise AssertionError("the input gradient is computed")

    compiled_conv = importlib.import_module("minires.ops.compiled.conv")
    monkeypatch.setattr(numpy_ops, "col2im", refuse)
    monkeypatch.setattr(compiled_conv, "backward_input", refuse)
    ops = get_ops(backend)
    y, cache = ops.conv2d_forward(np.ones((2, 5, 5, 3)), np.ones((3, 3, 3, 4)))
    ops.conv2d_backward(y, cache, input_gradient=False)
    with pytest.raises(AssertionError, match="is computed"):
        ops.conv2d_backward(y, cache)


def test_a_part_holds_the_images_whose_windows_fit_and_at_least_one(monkeypatch):
    x, w, dy = np.empty((7, 9, 8, 4)), np.empty((3, 2, 2, 6)), np.empty((7, 4, 5, 6))
    groups = [(slice(0, 2), slice(0, 3)), (slice(2, 4), slice(3, 6))]
    image = 4 * 5 * 3 * 2 * 4 * 8  # bytes of its windows
    for room, fit in ((3 * image, 3), (3 * image - 1, 2), (image, 1), (image - 1, 1)):
        monkeypatch.setattr(parts, "PART_BYTES", room)
        expected = [(slice(n, n + fit), *g) for n in range(0, 7, fit) for g in groups]
        assert [*parts.parts(x, w, dy)] == expected


def test_the_windows_of_a_part_take_two_mebibytes():
    x, w, dy = np.empty((8, 8, 8, 32), "float32"), np.empty((1, 4, 32, 1)), np.empty((8, 32, 32, 1))
    image = 32 * 32 * 4 * 32 * x.itemsize
    images = [n for n, _, _ in parts.parts(x, w, dy)]
    assert images == [slice(0, 4), slice(4, 8)]
    assert 4 * image == 2 * 2**20


def test_the_gradients_of_the_parts_of_a_batch_add_up(rng, monkeypatch):
    x, w = rng.standard_normal((5, 7, 6, 4)), rng.standard_normal((3, 3, 2, 6))
    y, cache = numpy_ops.conv2d_forward(x, w, 2, 1, 2)
    dy = rng.standard_normal(y.shape)
    dx, dw = numpy_ops.conv2d_backward(dy, cache)
    monkeypatch.setattr(parts, "PART_BYTES", 1)  # an image at a time
    y_parts, cache = numpy_ops.conv2d_forward(x, w, 2, 1, 2)
    dx_parts, dw_parts = numpy_ops.conv2d_backward(dy, cache)
    close(y_parts, y, w[..., 0].size)
    close(dx_parts, dx, w[:, :, 0].size)
    close(dw_parts, dw, dy[..., 0].size)


@given(problem=pools())
def test_max_pool_equals_loops(ops, problem):
    x, k, stride, pad, rng = problem
    y, cache = ops.max_pool_forward(x, k, stride, pad)
    np.testing.assert_array_equal(y, naive.max_pool(x, k, stride, pad))
    dy = rng.standard_normal(y.shape).astype(x.dtype)
    close(ops.max_pool_backward(dy, cache), naive.max_pool_gradient(x, dy, k, stride, pad), k * k)


@given(problem=pools())
def test_the_first_of_equal_maxima_gets_the_gradient(ops, problem):
    x, k, stride, pad, _ = problem
    x = np.round(x)  # many ties
    y, cache = ops.max_pool_forward(x, k, stride, pad)
    dy = np.ones_like(y)
    np.testing.assert_array_equal(
        ops.max_pool_backward(dy, cache), naive.max_pool_gradient(x, dy, k, stride, pad)
    )


@given(problem=images(least=2))
def test_batch_norm_equals_loops(ops, problem):
    x, rng = problem
    gamma, beta = rng.standard_normal((2, x.shape[-1])).astype(x.dtype)
    y, mean, var, cache = ops.batchnorm_forward(x, gamma, beta, EPS)
    expected_y, expected_mean, expected_var = naive.batchnorm(x, gamma, beta, EPS)
    M = x.size // x.shape[-1]
    # a channel whose values lie close together loses digits when its mean is subtracted
    lost = 1 + np.abs(x).max() / np.sqrt(expected_var + EPS).min()
    close(mean, expected_mean, M, np.abs(x).max())
    close(var, expected_var, M, np.abs(x).max() ** 2)
    close(y, expected_y, M * lost, np.abs(expected_y).max() + np.abs(beta).max())
    dy = rng.standard_normal(x.shape).astype(x.dtype)
    largest = (
        np.abs(dy).max()
        * (1 + np.abs(gamma).max() / np.sqrt(expected_var + EPS).min())
        * (1 + np.sqrt(M))
    )
    expected = naive.batchnorm_gradients(x, gamma, dy, EPS)
    for got, want in zip(ops.batchnorm_backward(dy, cache), expected, strict=True):
        close(got, want, M * lost, largest)


@given(problem=images())
def test_batch_norm_at_inference_uses_the_statistics_it_is_given(ops, problem):
    x, rng = problem
    gamma, beta, mean = rng.standard_normal((3, x.shape[-1])).astype(x.dtype)
    var = rng.uniform(0.5, 2, x.shape[-1]).astype(x.dtype)
    y = ops.batchnorm_inference(x, gamma, beta, mean, var, EPS)
    expected = gamma * (x.astype(float) - mean) / np.sqrt(var.astype(float) + EPS) + beta
    close(
        y,
        expected,
        4,
        np.abs(gamma).max() * 2 * (np.abs(x).max() + np.abs(mean).max()) + np.abs(beta).max(),
    )


@given(problem=images())
def test_relu_and_its_mask(ops, problem):
    x, rng = problem
    x[0, 0, 0, 0] = 0
    y, cache = ops.relu_forward(x)
    np.testing.assert_array_equal(y, np.where(x > 0, x, 0))
    dy = rng.standard_normal(x.shape).astype(x.dtype)
    np.testing.assert_array_equal(ops.relu_backward(dy, cache), np.where(x > 0, dy, 0))


@given(problem=images())
def test_global_average_pool_equals_loops(ops, problem):
    x, rng = problem
    N, H, W, C = x.shape
    y, cache = ops.global_avg_pool_forward(x)
    sums = [
        [sum(float(x[n, i, j, c]) for i in range(H) for j in range(W)) for c in range(C)]
        for n in range(N)
    ]
    close(y, np.array(sums) / (H * W), H * W, np.abs(x).max())
    dy = rng.standard_normal(y.shape).astype(x.dtype)
    dx = ops.global_avg_pool_backward(dy, cache)
    close(dx, np.repeat(dy, H * W, axis=0).reshape(x.shape) / (H * W), 1)


@given(
    rng=rngs(),
    dtype=st.sampled_from(DTYPES),
    N=st.integers(1, 4),
    C=st.integers(1, 6),
    K=st.integers(1, 6),
)
def test_linear_equals_loops(ops, rng, dtype, N, C, K):
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((N, C), (C, K), K))
    y, cache = ops.linear_forward(x, w, b)
    expected = np.array(
        [
            [sum(x[n, c] * float(w[c, k]) for c in range(C)) + b[k] for k in range(K)]
            for n in range(N)
        ]
    )
    close(y, expected, C + 1, np.abs(x).max() * np.abs(w).max() + np.abs(b).max())
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx, dw, db = ops.linear_backward(dy, cache)
    largest = np.abs(dy).max() * max(np.abs(x).max(), np.abs(w).max(), 1)
    expected_dx = [
        [sum(float(dy[n, k]) * w[c, k] for k in range(K)) for c in range(C)] for n in range(N)
    ]
    expected_dw = [
        [sum(float(dy[n, k]) * x[n, c] for n in range(N)) for k in range(K)] for c in range(C)
    ]
    expected_db = [sum(float(dy[n, k]) for n in range(N)) for k in range(K)]
    close(dx, np.array(expected_dx), K, largest)
    close(dw, np.array(expected_dw), N, largest)
    close(db, np.array(expected_db), N, largest)


@given(
    rng=rngs(),
    dtype=st.sampled_from(DTYPES),
    N=st.integers(1, 4),
    K=st.integers(1, 6),
    size=st.sampled_from([1, 1e3]),
)
def test_cross_entropy_equals_loops_and_never_overflows(ops, rng, dtype, N, K, size):
    logits, labels = (size * rng.standard_normal((N, K))).astype(dtype), rng.integers(0, K, N)
    loss, dlogits = ops.softmax_cross_entropy(logits, labels)
    expected_loss, expected = naive.softmax_cross_entropy(logits, labels)
    assert abs(loss - expected_loss) <= 4 * np.finfo(dtype).eps * (K + N) * (
        1 + np.abs(logits).max()
    )
    close(
        dlogits, expected, K * (1 + np.abs(logits).max()), 1 / N
    )  # exp turns an absolute error into a relative one


def calls(ops, rng, dtype="float64"):
    """One call of every op pair: name, forward, arrays, other arguments, backward or None."""
    x = rng.standard_normal((2, 5, 6, 3)).astype(dtype)
    w, c = (
        rng.standard_normal((3, 3, 3, 4)).astype(dtype),
        rng.standard_normal((4, 3)).astype(dtype),
    )
    yield "conv2d", ops.conv2d_forward, (x, w), (2, 1), ops.conv2d_backward
    grouped = np.concatenate([x, x[..., :1]], axis=3), w[:, :, :2].copy()
    yield "conv2d in groups", ops.conv2d_forward, grouped, ((2, 1), (0, 1), 2), ops.conv2d_backward
    yield "conv2d 1x1", ops.conv2d_forward, (x, w[:1, :1].copy()), (), ops.conv2d_backward
    yield "batchnorm", ops.batchnorm_forward, (x, c[0], c[1]), (EPS,), ops.batchnorm_backward
    yield (
        "batchnorm_inference",
        ops.batchnorm_inference,
        (x, c[0], c[1], c[2], c[3] ** 2),
        (EPS,),
        None,
    )
    yield "relu", ops.relu_forward, (x,), (), ops.relu_backward
    yield "relu of what is positive", ops.relu_forward, (np.abs(x),), (), ops.relu_backward
    yield "max_pool", ops.max_pool_forward, (x,), (3, 2, 1), ops.max_pool_backward
    yield "max_pool of single pixels", ops.max_pool_forward, (x,), (1, 1), ops.max_pool_backward
    yield "global_avg_pool", ops.global_avg_pool_forward, (x,), (), ops.global_avg_pool_backward
    yield (
        "average of single pixels",
        ops.global_avg_pool_forward,
        (x[:, :1, :1],),
        (),
        ops.global_avg_pool_backward,
    )
    yield (
        "local_response_norm",
        ops.local_response_norm_forward,
        (x,),
        (3,),
        ops.local_response_norm_backward,
    )
    yield "dropout", ops.dropout_forward, (x, 2 * (x > 0).astype(dtype)), (), ops.dropout_backward
    yield "tanh", ops.tanh_forward, (x,), (), ops.tanh_backward
    yield "avg_pool", ops.avg_pool_forward, (x,), (3, 2, 1), ops.avg_pool_backward
    yield "avg_pool of single pixels", ops.avg_pool_forward, (x,), (1, 1), ops.avg_pool_backward
    yield "linear", ops.linear_forward, (c, w[0, 0], c[0, :1].repeat(4)), (), ops.linear_backward


def outputs(result):
    return [
        a for a in (result if isinstance(result, tuple) else (result,)) if isinstance(a, np.ndarray)
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_op_changes_its_arguments_or_returns_a_view_of_them(ops, rng, dtype):
    for name, forward, arrays, options, backward in calls(ops, rng, dtype):
        before = [a.copy() for a in arrays]
        result = forward(*arrays, *options)
        results, given_dy = outputs(result), []
        if backward:
            dy = rng.standard_normal(results[0].shape).astype(dtype)
            given_dy = [dy, dy.copy()]
            results += outputs(backward(dy, result[-1]))
            np.testing.assert_array_equal(given_dy[0], given_dy[1], name)
        for a, b in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(a, b, name)
        for r in results:
            assert r.dtype == dtype, name
            assert not any(np.shares_memory(r, a) for a in [*arrays, *given_dy[:1]]), name


def test_results_are_never_overwritten_by_later_calls(ops, rng):
    for name, forward, arrays, options, backward in calls(ops, rng):
        result = forward(*arrays, *options)
        kept = outputs(result)
        if backward:
            dy = rng.standard_normal(kept[0].shape)
            kept += outputs(backward(dy, result[-1]))
        before = [a.copy() for a in kept]
        again = forward(*(a + 1 for a in arrays), *options)
        if backward:
            backward(dy + 1, again[-1])
        for a, b in zip(kept, before, strict=True):
            np.testing.assert_array_equal(a, b, name)


def test_backward_may_be_called_twice_on_one_cache(ops, rng):
    for name, forward, arrays, options, backward in calls(ops, rng):
        if backward:
            y, *_, cache = forward(*arrays, *options)
            dy = rng.standard_normal(y.shape)
            for a, b in zip(
                outputs(backward(dy, cache)), outputs(backward(dy, cache)), strict=True
            ):
                np.testing.assert_array_equal(a, b, name)


X, W, C3, Z = np.zeros((2, 5, 6, 3)), np.zeros((3, 3, 3, 4)), np.zeros(3), np.zeros((2, 3))
BAD = {
    "an empty batch": (lambda o: o.conv2d_forward(X[:0], W), "x is empty"),
    "integers": (lambda o: o.conv2d_forward(X.astype(int), W), "float32 or float64"),
    "half precision": (lambda o: o.relu_forward(X.astype("float16")), "float32 or float64"),
    "two dtypes": (lambda o: o.conv2d_forward(X, W.astype("float32")), "same dtype"),
    "a list": (lambda o: o.relu_forward([1.0]), "NumPy array"),
    "three axes": (lambda o: o.conv2d_forward(X[0], W), "(N, H, W, C)"),
    "other channels": (
        lambda o: o.conv2d_forward(X, W[:, :, :2]),
        "but the filters expect 2, shape (3, 3, 2, 4) as (KH, KW, C, K)",
    ),
    "filters of three axes": (
        lambda o: o.conv2d_forward(X, W[0]),
        "conv2d: w must have shape (KH, KW, C, K), got (3, 3, 4)",
    ),
    "filters of groups of three axes": (
        lambda o: o.conv2d_forward(X, W[0], groups=3),
        "conv2d: w must have shape (KH, KW, C / groups, K), got (3, 3, 4)",
    ),
    "filters of other types": (lambda o: o.conv2d_forward(X, W.tolist()), "w must be a NumPy"),
    "a large kernel": (lambda o: o.conv2d_forward(X[:, :2], W), "does not fit"),
    "stride 0": (lambda o: o.conv2d_forward(X, W, 0), "stride must be an integer of at least 1"),
    "groups that are too many": (
        lambda o: o.conv2d_forward(X, W, groups=2),
        "3 channels and 4 filters must both be divisible by groups, got groups=2; "
        "choose a common divisor, such as 1",
    ),
    "groups without a common divisor": (
        lambda o: o.conv2d_forward(np.zeros((1, 3, 3, 4)), np.zeros((3, 3, 1, 6)), groups=4),
        "4 channels and 6 filters must both be divisible by groups, got groups=4; "
        "choose a common divisor, such as 2",
    ),
    "groups that divide the filters only": (
        lambda o: o.conv2d_forward(np.zeros((1, 3, 3, 4)), np.zeros((3, 3, 1, 6)), groups=3),
        "choose a common divisor, such as 2",
    ),
    "no group": (
        lambda o: o.conv2d_forward(X, W, groups=0),
        "groups must be an integer of at least 1, got 0",
    ),
    "filters that see all groups": (
        lambda o: o.conv2d_forward(X, W[..., :3], groups=3),
        "in 3 groups of 1, shape (2, 5, 6, 3) as (N, H, W, C), but the filters expect 3",
    ),
    "three strides": (
        lambda o: o.conv2d_forward(X, W, (1, 2, 3)),
        "or a pair of them (rows, columns), got (1, 2, 3); write stride=2 or stride=(2, 1)",
    ),
    "a negative pad of columns": (
        lambda o: o.conv2d_forward(X, W, 1, (0, -1)),
        "pad must be an integer of at least 0, or a pair of them (rows, columns), got (0, -1)",
    ),
    "a wide kernel": (
        lambda o: o.conv2d_forward(X[:, :, :1], W, 1, (1, 0)),
        "a 3x3 window does not fit into 5x1 with pad (1, 0)",
    ),
    "a fractional pad": (lambda o: o.conv2d_forward(X, W, 1, 0.5), "pad must be an integer"),
    "gamma of other length": (
        lambda o: o.batchnorm_forward(X, C3[:2], C3, EPS),
        "gamma must have shape (3,)",
    ),
    "negative eps": (lambda o: o.batchnorm_forward(X, C3, C3, -1), "eps"),
    "no statistics": (
        lambda o: o.batchnorm_inference(X, C3, C3, C3, C3[:1], EPS),
        "var must have shape",
    ),
    "a pool of padding": (lambda o: o.max_pool_forward(X, 2, 1, 2), "windows of padding only"),
    "a pool of integers": (lambda o: o.max_pool_forward(X.astype(int), 2, 1), "x must be float32"),
    "a pool of complex numbers": (lambda o: o.max_pool_forward(X + 1j, 2, 1), "x must be float32"),
    "a pool of features": (lambda o: o.max_pool_forward(Z, 2, 1), "must have shape (N, H, W, C)"),
    "a pool without a step": (
        lambda o: o.max_pool_forward(X, 2, 0),
        "max_pool: stride must be an integer of at least 1, got 0",
    ),
    "a pool of nothing": (
        lambda o: o.max_pool_forward(X, 0, 1),
        "max_pool: size must be an integer of at least 1, got 0",
    ),
    "a pool with a negative border": (
        lambda o: o.max_pool_forward(X, 2, 1, -1),
        "max_pool: pad must be an integer of at least 0, got -1",
    ),
    "a pool of half pixels": (
        lambda o: o.max_pool_forward(X, 2.0, 1),
        "max_pool: size must be an integer of at least 1, got 2.0",
    ),
    "an average of integers": (
        lambda o: o.global_avg_pool_forward(X.astype(int)),
        "global_avg_pool: x must be float32",
    ),
    "images for a linear layer": (
        lambda o: o.linear_forward(X, W[0, 0], np.zeros(4)),
        "linear: x must have shape (N, C), got (2, 5, 6, 3)",
    ),
    "a vector of weights": (
        lambda o: o.linear_forward(Z, C3, np.zeros(4)),
        "linear: w must have shape (C, K), got (3,)",
    ),
    "a bias of other length": (
        lambda o: o.linear_forward(Z, W[0, 0], C3),
        "linear: b must have shape (4,), got (3,)",
    ),
    "a bias of another dtype": (
        lambda o: o.linear_forward(Z, W[0, 0], np.zeros(4, "float32")),
        "linear: x is float64 but b is float32",
    ),
    "logits that are integers": (
        lambda o: o.softmax_cross_entropy(Z.astype(int), np.array([0, 1])),
        "softmax_cross_entropy: logits must be float32",
    ),
    "logits of one image": (
        lambda o: o.softmax_cross_entropy(C3, np.array([0, 1, 1])),
        "softmax_cross_entropy: logits must have shape (N, K), got (3,)",
    ),
    "labels in two columns": (
        lambda o: o.softmax_cross_entropy(Z, np.array([[0], [1]])),
        "labels must have shape (2,), got (2, 1)",
    ),
    "a vector to average": (lambda o: o.global_avg_pool_forward(C3), "(N, H, W, C)"),
    "features that do not fit": (
        lambda o: o.linear_forward(W[0, 0], W[0, 0], np.zeros(4)),
        "linear: x (3, 4) has 4 features, but w (3, 4) expects 3",
    ),
    "a label too large": (lambda o: o.softmax_cross_entropy(Z, np.array([0, 3])), "labels[1] is 3"),
    "a label far too large": (
        lambda o: o.softmax_cross_entropy(Z, np.array([5, 0])),
        "labels must lie in 0 .. 2, but labels[0] is 5",
    ),
    "a negative label": (
        lambda o: o.softmax_cross_entropy(Z, np.array([-1, 0])),
        "labels[0] is -1",
    ),
    "labels that are a list": (lambda o: o.softmax_cross_entropy(Z, [0, 1]), "labels must be a"),
    "labels of floats": (lambda o: o.softmax_cross_entropy(Z, np.zeros(2)), "integers"),
    "too few labels": (
        lambda o: o.softmax_cross_entropy(Z, np.array([0])),
        "labels must have shape (2,)",
    ),
    "an even window": (
        lambda o: o.local_response_norm_forward(X, 2),
        "n must be odd, as many channels count on either side; got 2, choose 1 or 3",
    ),
    "a window of more channels than there are": (
        lambda o: o.local_response_norm_forward(X),
        "n must be at most the 3 channels of x, got 5; choose a smaller odd window",
    ),
    "a response of zeros alone": (
        lambda o: o.local_response_norm_forward(X, 3, k=0),
        "k must be above 0",
    ),
    "a negative alpha": (
        lambda o: o.local_response_norm_forward(X, 3, alpha=-1e-4),
        "alpha must be a finite number of at least 0",
    ),
    "a vector to normalise": (
        lambda o: o.local_response_norm_forward(C3, 3),
        "must have shape (N, ..., C), got (3,)",
    ),
    "a mask of another shape": (
        lambda o: o.dropout_forward(X, X[:1]),
        "mask must have the shape of x, (2, 5, 6, 3), got (1, 5, 6, 3); draw one number for each",
    ),
    "a mask of truth values": (
        lambda o: o.dropout_forward(X, X > 0),
        "mask must be float32 or float64, got bool",
    ),
    "an average of padding": (
        lambda o: o.avg_pool_forward(X, 2, 1, 2),
        "avg_pool: pad must be at most size // 2 = 1, got 2",
    ),
    "dy of another shape": (
        lambda o: o.conv2d_backward(X, o.conv2d_forward(X, W)[-1]),
        "shape (2, 3, 4, 4)",
    ),
    "dy that would broadcast": (
        lambda o: o.relu_backward(X[:1], o.relu_forward(X)[-1]),
        "dy must have shape",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(ops, case):
    call, words = BAD[case]
    with pytest.raises(InputError) as e:
        call(ops)
    assert words in str(e.value)


@pytest.mark.parametrize("pad", [(0, 0), (1, 0), (0, 2), (2, 1), (3, 3)])
def test_a_window_fits_as_long_as_it_is_no_larger_than_the_image_with_its_border(pad):
    image = np.zeros((1, 4, 3, 1))
    KH, KW = 4 + 2 * pad[0], 3 + 2 * pad[1]
    y, _ = numpy_ops.conv2d_forward(image, np.zeros((KH, KW, 1, 1)), 1, pad)
    assert y.shape == (1, 1, 1, 1)
    for size in ((KH + 1, KW), (KH, KW + 1)):
        with pytest.raises(InputError, match=f"a {size[0]}x{size[1]} window does not fit into 4x3"):
            numpy_ops.conv2d_forward(image, np.zeros((*size, 1, 1)), 1, pad)


def test_a_pool_may_have_a_border_of_half_its_window():
    for size, pad in ((1, 0), (2, 1), (3, 1), (4, 2)):
        y, _ = numpy_ops.max_pool_forward(X, size, 1, pad)
        assert y.shape == (2, 5 + 2 * pad - size + 1, 6 + 2 * pad - size + 1, 3)
        with pytest.raises(InputError, match=rf"size // 2 = {size // 2}, got {pad + 1}"):
            numpy_ops.max_pool_forward(X, size, 1, pad + 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((X.astype(int), C3, C3), "x must be float32 or float64 or complex128, got int64"),
        ((X, C3, C3.astype("float32")), "x is float64 but beta is float32"),
        ((X[:0], C3, C3), "x is empty, shape (0, 5, 6, 3)"),
        ((C3, C3, C3), "x must have shape (N, ..., C), got (3,)"),
        ((X, C3[:, None], C3), "gamma must have shape (3,), got (3, 1)"),
        ((X, C3, [0.0, 0.0, 0.0]), "beta must be a NumPy array, got list"),
    ],
)
def test_batch_norm_names_the_argument_that_does_not_fit(arguments, words):
    statistics = np.zeros(3), np.ones(3)
    for call in (
        lambda: numpy_ops.batchnorm_forward(*arguments, EPS),
        lambda: numpy_ops.batchnorm_inference(*arguments, *statistics, EPS),
    ):
        with pytest.raises(InputError) as e:
            call()
        assert f"batchnorm: {words}" in str(e.value)


def test_batch_norm_takes_features_and_images_and_all_that_is_between(rng):
    for shape in ((4, 3), (4, 2, 3), (2, 2, 2, 3)):
        x = rng.standard_normal(shape)
        y, *_ = numpy_ops.batchnorm_forward(x, np.ones(3), np.zeros(3), 0)
        close(y.reshape(-1, 3).std(axis=0), np.ones(3), x.size)


CONTRACT = """
conv2d_forward(x, w, stride=1, pad=0, groups=1) conv2d_backward(dy, cache, input_gradient=True)
batchnorm_forward(x, gamma, beta, eps) batchnorm_backward(dy, cache)
batchnorm_inference(x, gamma, beta, mean, var, eps)
relu_forward(x) relu_backward(dy, cache)
max_pool_forward(x, size, stride, pad=0) max_pool_backward(dy, cache)
global_avg_pool_forward(x) global_avg_pool_backward(dy, cache)
linear_forward(x, w, b) linear_backward(dy, cache)
softmax_cross_entropy(logits, labels)
batchnorm_relu_forward(x, gamma, beta, eps) batchnorm_relu_backward(dy, cache)
batchnorm_relu_inference(x, gamma, beta, mean, var, eps)
local_response_norm_forward(x, n=5, k=2.0, alpha=0.0001, beta=0.75)
local_response_norm_backward(dy, cache)
dropout_forward(x, mask) dropout_backward(dy, cache)
tanh_forward(x) tanh_backward(dy, cache)
avg_pool_forward(x, size, stride, pad=0) avg_pool_backward(dy, cache)
"""


def signature(function):
    plain = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in plain.parameters.values()]
    return f"{function.__name__}{inspect.Signature(bare)}"


def test_every_backend_has_the_ops_of_the_contract(ops):
    expected = CONTRACT.replace(") ", ")\n").split("\n")
    expected = [line for line in expected if line]
    assert [signature(getattr(ops, line.split("(")[0])) for line in expected] == expected


def test_windows_are_taken_at_every_pixel_and_without_a_border_unless_asked(rng):
    cols = rng.standard_normal((2, 4, 3, 2, 3, 4))
    x = numpy_ops.col2im(cols, 5, 5)
    np.testing.assert_array_equal(x, numpy_ops.col2im(cols, 5, 5, 1, 0))
    assert numpy_ops.im2col(x, 2, 3).shape == cols.shape
    np.testing.assert_array_equal(numpy_ops.im2col(x, 2, 3), numpy_ops.im2col(x, 2, 3, 1, 0))


def test_windows_have_stride_1_and_no_border_unless_told_otherwise(rng):
    x = rng.standard_normal((2, 4, 5, 3))
    cols = numpy_ops.im2col(x, 2, 3)
    np.testing.assert_array_equal(cols, numpy_ops.im2col(x, 2, 3, stride=1, pad=0))
    back = numpy_ops.col2im(cols, 4, 5)
    np.testing.assert_array_equal(back, numpy_ops.col2im(cols, 4, 5, stride=1, pad=0))


def test_the_convolutions_of_the_page_have_the_defaults_of_those_in_parts():
    for name in ("conv2d_forward", "conv2d_backward"):
        used = inspect.signature(getattr(numpy_ops, name)).parameters
        for written in inspect.signature(getattr(numpy_ops, name).__wrapped__).parameters.values():
            assert written == used[written.name].replace(annotation=written.annotation)


def test_backends_have_the_same_public_functions():
    def public(ops):
        found = {
            n: f for n, f in vars(ops).items() if inspect.isfunction(f) and not n.startswith("_")
        }
        return {signature(f) for f in found.values() if f.__module__.startswith("minires.ops")}

    names = {backend: public(get_ops(backend)) for backend in BACKENDS}
    assert names["numpy"] == names["numba"]


def test_the_numpy_backend_is_the_pages_that_are_read():
    ops = get_ops("numpy")
    assert ops.conv2d_forward is numpy_ops.conv2d_forward
    assert ops.im2col is numpy_ops.im2col
    assert ops.batchnorm_relu_forward is numpy_fused.batchnorm_relu_forward


def test_an_unknown_backend_is_refused():
    with pytest.raises(InputError, match="backend must be one of"):
        get_ops("cuda")


# ------------------------------------------------------------------------------------- ops of users


def double(x):
    return 2 * x


def double_compiled(x):
    return x + x


@pytest.fixture
def no_pages_left(monkeypatch):
    monkeypatch.setattr(package, "_registered", {})
    yield
    get_ops.cache_clear()


@pytest.mark.usefixtures("no_pages_left")
def test_an_op_of_a_user_joins_both_backends_beside_those_of_the_package():
    register("toy", {"double": double, "halve": abs}, {"double": double_compiled})
    assert get_ops("numpy").double is double
    assert get_ops("numba").double is double_compiled
    assert get_ops("numpy").halve is get_ops("numba").halve is abs
    assert get_ops("numpy").conv2d_forward is numpy_ops.conv2d_forward


@pytest.mark.usefixtures("no_pages_left")
def test_a_module_of_a_user_gives_the_public_functions_that_it_defines():
    module = ModuleType("toy_ops")
    exec("from math import sin\ndef double(x): return 2 * x\ndef _hidden(x): pass", vars(module))
    register("toy", module)
    for backend in BACKENDS:
        assert get_ops(backend).double is module.double
        assert not hasattr(get_ops(backend), "sin")
        assert not hasattr(get_ops(backend), "_hidden")


@pytest.mark.usefixtures("no_pages_left")
def test_a_page_may_be_registered_again_but_takes_no_name_of_another_page():
    register("toy", {"double": double})
    register("toy", {"double": double_compiled})
    assert get_ops("numpy").double is double_compiled
    refused = {
        "page 'ops' has relu_forward; choose other names": ("mine", {"relu_forward": double}),
        "page 'toy' has double; choose other names": ("mine", {"double": double}),
        "page 'fused' belongs to minires": ("fused", {"triple": double}),
    }
    for words, arguments in refused.items():
        with pytest.raises(InputError) as e:
            register(*arguments)
        assert words in str(e.value)
    with pytest.raises(InputError, match="no NumPy op for the compiled triple"):
        register("mine", {"double3": double}, {"triple": double})
    assert not hasattr(get_ops("numpy"), "double3")
