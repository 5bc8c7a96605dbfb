"""Every backward pass is the transpose of its forward's derivative.

Random cotangents, float64, every backend.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import convolutions, grouped_convolutions, images, pools, rngs

from minires import get_ops, plain, resnet
from minires.gradcheck import check_layer, check_op
from minires.layers.core import BatchNorm, Conv2d, GlobalAvgPool, Identity, Linear, MaxPool, ReLU
from minires.nets.resnet import (
    PlainBlock,
    ResidualBlock,
    ZeroPadShortcut,
    basic_body,
    bottleneck_body,
    make_shortcut,
)
from minires.ops import BACKENDS
from minires.ops.numpy_ops import col2im, im2col

EPS = 1e-5
F64 = ("float64",)


@pytest.fixture(params=BACKENDS, scope="module")
def ops(request):
    return get_ops(request.param)


def spaced(x, gap=1e-3):
    """Move values off the kink at 0 and off each other, so that no maximum is a close race."""
    order = np.argsort(np.argsort(x, axis=None)).reshape(x.shape)  # 0 .. size - 1
    return (order - x.size / 2 + 0.5) * gap


@given(problem=convolutions(F64, touching=True))
def test_convolution(ops, problem):
    x, w, stride, pad, rng = problem
    check_op(
        ops.conv2d_forward, ops.conv2d_backward, x, w, stride=stride, pad=pad, rng=rng, elements=16
    )


@given(problem=grouped_convolutions(F64, touching=True))
def test_convolution_in_groups_and_with_pairs(ops, problem):
    x, w, options, rng = problem
    check_op(ops.conv2d_forward, ops.conv2d_backward, x, w, **options, rng=rng, elements=16)


@given(problem=images(F64, least=4))
def test_batch_norm(ops, problem):
    x, rng = problem
    gamma, beta = rng.uniform(0.5, 2, (2, x.shape[-1])) * rng.choice([-1, 1], (2, x.shape[-1]))
    # of either sign, but not near 0: there the rounding of beta drowns what gamma adds
    check_op(
        ops.batchnorm_forward, ops.batchnorm_backward, x, gamma, beta, 1e-2, rng=rng, elements=16
    )


@given(problem=images(F64))
def test_relu(ops, problem):
    x, rng = problem
    x[0, 0, 0, 0] = 1  # one positive value, or there is no gradient to check
    check_op(ops.relu_forward, ops.relu_backward, x, rng=rng, elements=16)


@given(problem=pools(F64))
def test_max_pool(ops, problem):
    x, k, stride, pad, rng = problem
    check_op(
        ops.max_pool_forward, ops.max_pool_backward, spaced(x), k, stride, pad, rng=rng, elements=16
    )


@given(problem=images(F64))
def test_global_average_pool(ops, problem):
    x, rng = problem
    check_op(ops.global_avg_pool_forward, ops.global_avg_pool_backward, x, rng=rng, elements=16)


@given(rng=rngs(), N=st.integers(1, 4), C=st.integers(1, 6), K=st.integers(1, 6))
def test_linear(ops, rng, N, C, K):
    x, w, b = (rng.standard_normal(s) for s in ((N, C), (C, K), K))
    check_op(ops.linear_forward, ops.linear_backward, x, w, b, rng=rng, elements=16)


@given(rng=rngs(), N=st.integers(1, 4), K=st.integers(2, 6))
def test_cross_entropy(ops, rng, N, K):
    labels = rng.integers(0, K, N)

    def loss(logits):
        return ops.softmax_cross_entropy(logits, labels)

    check_op(loss, lambda dloss, dlogits: dloss * dlogits, rng.standard_normal((N, K)), rng=rng)


def test_smooth_ops_agree_with_the_complex_step_to_rounding(rng):
    ops, x, labels = get_ops("numpy"), rng.standard_normal((3, 5, 6, 2)), np.array([0, 2, 1])
    w, logits = rng.standard_normal((3, 2, 2, 4)), rng.standard_normal((3, 3))
    gamma, beta = rng.standard_normal((2, 2))
    reports = [
        check_op(ops.conv2d_forward, ops.conv2d_backward, x, w, 2, 1, method="complex"),
        check_op(
            ops.conv2d_forward, ops.conv2d_backward, x, w[:, :, :1], (1, 2), 1, 2, method="complex"
        ),
        check_op(
            ops.batchnorm_forward, ops.batchnorm_backward, x, gamma, beta, EPS, method="complex"
        ),
        check_op(ops.global_avg_pool_forward, ops.global_avg_pool_backward, x, method="complex"),
        check_op(
            ops.linear_forward, ops.linear_backward, x[0, 0], x[0, 1, :2], beta, method="complex"
        ),
        check_op(
            lambda z: ops.softmax_cross_entropy(z, labels),
            lambda d, dz: d * dz,
            logits,
            method="complex",
        ),
    ]
    eps = np.finfo(np.float64).eps
    assert max(report.error for report in reports) < 4 * eps * x.size


# -------------------------------------------------------------------------------- layers and blocks

LAYERS = {
    "conv": lambda: Conv2d(3, 4, 3, 2, 1, rng=0),
    "conv, pairs": lambda: Conv2d(3, 4, (1, 3), (2, 1), (0, 1), rng=0),
    "conv, groups": lambda: Conv2d(3, 6, 3, pad=1, groups=3, rng=0),
    "conv, bias": lambda: Conv2d(3, 4, 3, bias=True, rng=0),
    "batch norm": lambda: BatchNorm(3),
    "relu": ReLU,
    "max pool": lambda: MaxPool(3, 2, 1),
    "average pool": GlobalAvgPool,
    "identity": Identity,
    "option A": lambda: ZeroPadShortcut(6, 2),
    "option B": lambda: make_shortcut("B", 3, 6, 2, 0),
    "option C": lambda: make_shortcut("C", 3, 3, 1, 0),
    "plain block": lambda: PlainBlock(basic_body(3, 3, 1, 0)),
    "residual block, same shape": lambda: ResidualBlock(basic_body(3, 3, 1, 0), Identity()),
    "residual block A": lambda: ResidualBlock(
        basic_body(3, 6, 2, 0), make_shortcut("A", 3, 6, 2, 1)
    ),
    "residual block B": lambda: ResidualBlock(
        basic_body(3, 6, 2, 0), make_shortcut("B", 3, 6, 2, 1)
    ),
    "residual block C": lambda: ResidualBlock(
        basic_body(3, 3, 1, 0), make_shortcut("C", 3, 3, 1, 1)
    ),
    "bottleneck": lambda: ResidualBlock(
        bottleneck_body(3, 8, 2, 0), make_shortcut("B", 3, 8, 2, 1)
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, backend, rng):
    layer = LAYERS[name]().use(backend)
    for part in [p for _, p in layer.named_layers() if isinstance(p, BatchNorm)]:
        part.params["gamma"][:] = rng.uniform(0.5, 2, part.params["gamma"].shape)
        part.params["beta"][:] = rng.standard_normal(part.params["beta"].shape)
    report = check_layer(layer, rng.standard_normal((3, 5, 6, 3)), rng=rng)
    assert len(report.rows) == 1 + len(layer.parameters())


def test_linear_layer(rng):
    assert len(check_layer(Linear(5, 4, rng=0), rng.standard_normal((3, 5))).rows) == 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [plain, resnet], ids=["plain8", "resnet8"])
def test_every_gradient_of_a_whole_network(make, backend, rng):
    net = make(8).use(backend)
    report = check_layer(net, rng.standard_normal((2, 12, 8, 3)), elements=3)
    assert [row.argument for row in report.rows] == ["x", *net.parameters()]


# --------------------------------------------------------------------------------------- identities


@given(problem=convolutions(F64))
def test_col2im_is_the_adjoint_of_im2col(problem):
    x, w, stride, pad, rng = problem
    cols = im2col(x, *w.shape[:2], stride, pad)
    other = rng.standard_normal(cols.shape)
    left, right = (cols * other).sum(), (x * col2im(other, *x.shape[1:3], stride, pad)).sum()
    assert (
        abs(left - right)
        <= 4 * np.finfo(float).eps * np.sqrt(cols.size) * np.abs(cols * other).sum()
    )


@given(problem=convolutions(F64))
def test_convolution_is_linear_in_images_and_in_filters(ops, problem):
    x, w, stride, pad, rng = problem
    a, b = rng.standard_normal(2)
    x2, w2 = rng.standard_normal(x.shape), rng.standard_normal(w.shape)

    def y(x, w):
        return ops.conv2d_forward(x, w, stride, pad)[0]

    size = w[..., 0].size * (abs(a) + abs(b)) * 50 * np.finfo(float).eps
    np.testing.assert_allclose(y(a * x + b * x2, w), a * y(x, w) + b * y(x2, w), rtol=0, atol=size)
    np.testing.assert_allclose(y(x, a * w + b * w2), a * y(x, w) + b * y(x, w2), rtol=0, atol=size)


@given(problem=images(F64, least=4))
def test_batch_norm_gradients_sum_to_zero_whatever_the_cotangent(ops, problem):
    x, rng = problem
    gamma, beta = rng.standard_normal((2, x.shape[-1]))
    *_, cache = ops.batchnorm_forward(x, gamma, beta, EPS)
    dx, _, dbeta = ops.batchnorm_backward(rng.standard_normal(x.shape), cache)
    np.testing.assert_allclose(
        dx.sum(axis=(0, 1, 2)), 0, atol=1e-13 * x.size * (1 + np.abs(dx).max())
    )
    assert dbeta.shape == gamma.shape


@given(problem=images(F64, least=4), scale=st.floats(0.5, 100), shift=st.floats(-100, 100))
def test_batch_norm_does_not_see_scale_and_shift_of_its_input(ops, problem, scale, shift):
    x, rng = problem
    gamma, beta = rng.standard_normal((2, x.shape[-1]))
    y, *_ = ops.batchnorm_forward(x, gamma, beta, 0.0)
    same, *_ = ops.batchnorm_forward(scale * x + shift, gamma, beta, 0.0)
    spread = x.std(axis=(0, 1, 2)).min()
    np.testing.assert_allclose(
        same, y, atol=1e-14 * x.size * (100 + abs(shift) / (scale * spread)) / spread
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("option", ["A", "B", "C"])
@pytest.mark.parametrize(("K", "stride"), [(3, 1), (6, 2)])
def test_a_block_whose_last_gamma_is_zero_is_its_shortcut(option, K, stride, backend, rng):
    shortcut = make_shortcut(option, 3, K, stride, 1)
    block = ResidualBlock(basic_body(3, K, stride, 0), shortcut).use(backend)
    block.parameters()["body.bn2.gamma"][:] = 0
    x = rng.standard_normal((2, 6, 6, 3)).astype("float32")
    for train in (True, False):
        expected = np.maximum(shortcut.forward(x, train), 0)
        np.testing.assert_array_equal(block.forward(x, train), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_assigned_and_never_shared(backend, rng):
    net = resnet(8, "B").use(backend)
    x = rng.standard_normal((2, 8, 8, 3)).astype("float32")
    first = net.backward(np.ones_like(net.forward(x, train=True)))
    kept = {name: g.copy() for name, g in net.gradients().items()}
    held = net.gradients()
    again = net.backward(np.ones_like(net.forward(x, train=True)))
    np.testing.assert_array_equal(first, again)
    for name, g in net.gradients().items():
        np.testing.assert_array_equal(g, kept[name], name)
        assert not any(np.shares_memory(g, p) for p in net.parameters().values()), name
        assert not any(
            np.shares_memory(g, other) for n, other in net.gradients().items() if n != name
        ), name
    net.backward(np.zeros_like(net.forward(x, train=True)))
    for name, g in held.items():
        np.testing.assert_array_equal(g, kept[name], name)
