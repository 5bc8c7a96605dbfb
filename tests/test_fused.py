"""Fused networks: batch norm and ReLU in one op, no gradient of the images, the same numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minires
from minires.errors import InputError
from minires.gradcheck import check_layer, check_op
from minires.layers.base import Sequential
from minires.layers.core import BatchNorm, Conv2d, ReLU
from minires.layers.fused import BatchNormReLU
from minires.nets.fuse import fuse
from minires.ops import BACKENDS, get_ops

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(["float32", "float64"])


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return request.param


@given(
    seeds,
    dtypes,
    st.integers(2, 5),
    st.integers(1, 9),
    st.one_of(st.integers(1, 20), st.sampled_from([32, 48])),
)
def test_the_fused_op_is_batch_norm_and_then_relu_to_the_last_bit(backend, seed, dtype, N, H, C):
    rng, ops = np.random.default_rng(seed), get_ops(backend)
    x, dy = rng.standard_normal((2, N, H, H, C)).astype(dtype)
    gamma, beta, mean = rng.standard_normal((3, C)).astype(dtype)
    z, *statistics, normalised = ops.batchnorm_forward(x, gamma, beta, 1e-2)
    y, rectified = ops.relu_forward(z)
    ours, *same, cache = ops.batchnorm_relu_forward(x, gamma, beta, 1e-2)
    expected = ops.batchnorm_backward(ops.relu_backward(dy, rectified), normalised)
    for a, b in zip(
        (ours, *same, *ops.batchnorm_relu_backward(dy, cache)),
        (y, *statistics, *expected),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    z = ops.batchnorm_inference(x, gamma, beta, mean, abs(mean), 1e-2)
    ours = ops.batchnorm_relu_inference(x, gamma, beta, mean, abs(mean), 1e-2)
    np.testing.assert_array_equal(ours, ops.relu_forward(z)[0])


def test_its_gradients_are_those_of_its_formula(backend):
    rng, ops = np.random.default_rng(0), get_ops(backend)
    x, gamma, beta = (
        rng.standard_normal((4, 3, 3, 5)),
        rng.uniform(0.5, 2, 5),
        rng.standard_normal(5),
    )
    check_op(
        ops.batchnorm_relu_forward,
        ops.batchnorm_relu_backward,
        x,
        gamma,
        beta,
        1e-2,
        rng=rng,
        elements=16,
    )


def test_complex_numbers_are_refused_as_by_relu(backend):
    with pytest.raises(InputError, match="relu"):
        get_ops(backend).batchnorm_relu_forward(
            np.ones((2, 3), complex), *np.ones((2, 3), complex), 1e-2
        )


def test_the_fused_layer_shares_what_the_batch_norm_owns_and_is_checked_like_one(backend):
    norm = BatchNorm(3)
    fused = BatchNormReLU(norm).use(backend)
    assert all(fused.params[key] is norm.params[key] for key in ("gamma", "beta"))
    assert all(fused.buffers[key] is norm.buffers[key] for key in ("running_mean", "running_var"))
    check_layer(
        BatchNormReLU(BatchNorm(3)).use(backend),
        np.random.default_rng(1).standard_normal((2, 4, 4, 3)),
    )


NETS = {
    "plain": lambda: minires.plain(14, rng=3),
    "projections": lambda: minires.resnet(8, "B", rng=3),
    "bottlenecks": lambda: minires.imagenet_resnet(50, rng=3),
}


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_a_fused_network_gives_the_same_numbers_under_the_same_names(backend, make):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((4, 32, 32, 3)).astype(np.float32)
    nets = [make().use(backend), fuse(make()).use(backend)]
    found = []
    assert [name for name, _ in nets[0].named_layers()] == [
        name for name, _ in nets[1].named_layers()
    ]
    for net in nets:
        logits = net.forward(x, train=True)
        dx = net.backward(np.linspace(-1, 1, logits.size, dtype=logits.dtype).reshape(logits.shape))
        assert dx is None if net is nets[1] else dx.shape == x.shape
        found.append(
            {"logits": logits, "evaluated": net.forward(x)} | net.gradients() | net.state()
        )
    assert list(found[0]) == list(found[1])
    for name, a in found[0].items():
        np.testing.assert_array_equal(a, found[1][name], err_msg=name)


def test_only_relus_behind_additions_are_left():
    def left(net):
        return [name for name, layer in fuse(net).named_layers() if type(layer) is ReLU]

    assert left(minires.plain(14)) == []
    assert left(minires.resnet(8)) == [f"stage{i}.block1.relu" for i in (1, 2, 3)]
    assert left(Sequential(conv=Conv2d(3, 4, rng=0), relu=ReLU())) == ["relu"]


def test_a_network_may_be_fused_twice(backend):
    net = fuse(fuse(minires.plain(8, rng=0))).use(backend)
    x = np.ones((2, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(net.forward(x), minires.plain(8, rng=0).use(backend).forward(x))
