"""Folded networks: batch norm inside the convolutions, the same logits to rounding."""

import copy
import importlib
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minires
from minires.errors import InputError
from minires.gradcheck import check_op
from minires.layers.alexnet import Tanh
from minires.layers.base import Layer, Sequential
from minires.layers.core import BatchNorm, Conv2d, Identity, ReLU
from minires.nets import audit
from minires.nets.fold import FoldedConv2d, fold
from minires.nets.fuse import fuse
from minires.nets.network import Facts, Network
from minires.nets.registry import by_name
from minires.nets.resnet import ResidualBlock
from minires.ops import BACKENDS, get_ops

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return request.param


def trained(net, seed=0):
    """The network with random batch-norm parameters and statistics, as training leaves them."""
    rng = np.random.default_rng(seed)
    for _, layer in net.named_layers():
        if isinstance(layer, BatchNorm):
            for a in (layer.params["gamma"], layer.buffers["running_var"]):
                a[...] = rng.uniform(0.5, 1.5, a.shape)
            for a in (layer.params["beta"], layer.buffers["running_mean"]):
                a[...] = 0.3 * rng.standard_normal(a.shape)
    return net


NETS = {
    "plain": lambda: minires.plain(14, rng=3),
    "option A": lambda: minires.resnet(14, rng=3),
    "projections": lambda: minires.resnet(8, "C", rng=3),
    "bottlenecks": lambda: minires.imagenet_resnet(50, rng=3),
    "fused": lambda: fuse(minires.plain(8, rng=3)),
    "fused, residual": lambda: fuse(minires.resnet(8, rng=3)),
}


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_a_folded_network_computes_the_same_logits(backend, make):
    net = trained(make()).astype("float64").use(backend)
    x = np.random.default_rng(1).standard_normal((2, 32, 32, 3))
    folded = fold(net)
    assert not [layer for _, layer in folded.named_layers() if isinstance(layer, BatchNorm)]
    assert folded.backend == backend
    logits = net.forward(x)
    np.testing.assert_allclose(folded.forward(x), logits, rtol=0, atol=1e-12 * abs(logits).max())


def test_folding_leaves_the_network_as_it_was():
    net = trained(minires.resnet(8, rng=0))
    before = net.state()
    folded = fold(net)
    for a in folded.parameters().values():
        a[...] = 0
    assert all(np.array_equal(a, before[name]) for name, a in net.state().items())


@pytest.mark.parametrize("name", ["plain", "option A"])
def test_training_a_folded_network_is_refused(backend, name):
    folded = fold(NETS[name]()).use(backend)
    x = np.ones((2, 32, 32, 3), np.float32)
    with pytest.raises(InputError, match="inference only"):
        folded.forward(x, train=True)
    folded.forward(x)
    with pytest.raises(InputError, match="inference only"):
        next(iter(folded.children.values())).backward(x)


def test_a_layer_of_an_unknown_class_is_copied_and_still_called():
    class Double(Layer):
        def forward(self, x, train=False):
            return 2 * x

    conv = Conv2d(3, 4, rng=0)
    net = Network(Facts("mine8", "mine", 8), conv=conv, double=Double(), norm=BatchNorm(4))
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(fold(net).forward(x), net.forward(x))


def test_a_convolution_with_a_bias_folds_alone_or_with_what_follows():
    conv = Conv2d(3, 4, rng=0, bias=True)
    conv.params["b"][...] = [1, -2, 3, -4]
    norm = trained(Sequential(norm=BatchNorm(4))).children["norm"]
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 3)).astype(np.float32)
    for layers in ({}, {"norm": norm}, {"relu": ReLU()}, {"norm": norm, "relu": ReLU()}):
        net = Network(Facts("mine8", "mine", 8), conv=conv, **layers)
        folded = fold(net)
        assert [type(layer) for layer in folded.children.values()] == [FoldedConv2d]
        np.testing.assert_allclose(folded.forward(x), net.forward(x), rtol=2e-5, atol=2e-5)


def test_a_folded_network_has_the_multiply_adds_of_its_convolutions():
    net = minires.resnet(20)
    facts = net.facts
    assert fold(net).describe(facts.input_shape).macs == net.describe(facts.input_shape).macs
    assert "+ relu" in audit.table(fold(net))


# --------------------------------------------------------------------------------- the fused ops


@given(seeds, st.sampled_from(["float32", "float64"]), st.integers(1, 3), st.integers(1, 20),
       st.integers(0, 20), st.integers(1, 3), st.booleans())  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_addition_and_relu_in_one_op_are_those_of_the_formula(
    backend, seed, dtype, N, C, more, stride, swap
):
    rng, ops = np.random.default_rng(seed), get_ops(backend)
    H, W = rng.integers(1, 9, 2)
    x = rng.standard_normal((N, H, W, C)).astype(dtype)
    f = rng.standard_normal((N, -(-H // stride), -(-W // stride), C + more)).astype(dtype)
    if swap:  # another memory order
        x, f = (np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2) for a in (x, f))
    z = np.zeros_like(f)
    z[..., :C] = x[:, ::stride, ::stride]
    z += f
    y, cache = ops.add_relu_forward(f, x, stride)
    np.testing.assert_array_equal(y, np.where(z > 0, z, 0))
    dy = rng.standard_normal(f.shape).astype(dtype)
    dz = ops.add_relu_backward(dy, cache)
    np.testing.assert_array_equal(dz, np.where(z > 0, dy, 0))
    dx = rng.standard_normal(x.shape).astype(dtype)
    expected = dx.copy()
    expected[:, ::stride, ::stride] += dz[..., :C]
    np.testing.assert_array_equal(ops.add_shortcut_gradient(dx, dz, stride), expected)


def test_the_gradient_of_the_addition_is_that_of_the_formula(backend):
    rng, ops = np.random.default_rng(0), get_ops(backend)
    f, x = rng.standard_normal((2, 3, 3, 5)), rng.standard_normal((2, 5, 6, 3))

    def backward(dy, cache):
        dz = ops.add_relu_backward(dy, cache)
        return dz, ops.add_shortcut_gradient(np.zeros_like(x), dz, 2)

    check_op(lambda f, x: ops.add_relu_forward(f, x, 2), backward, f, x, rng=rng)


@given(seeds, st.sampled_from(["float32", "float64"]), st.sampled_from([1, 3, 16, 64]),
       st.one_of(st.integers(1, 20), st.sampled_from([32, 64, 96])), st.integers(1, 2),
       st.integers(1, 2), st.booleans(), st.booleans())  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_the_convolution_of_inference_is_its_composition(
    backend, seed, dtype, C, K, stride, groups, rectify, with_shortcut
):
    """With few channels and many, whatever is kept from one call to the next."""
    rng, ops = np.random.default_rng(seed), get_ops(backend)
    C, K = C * groups, K * groups
    w, b = rng.standard_normal((3, 3, C // groups, K)).astype(dtype), rng.standard_normal(K)
    b, kept = b.astype(dtype), {}
    for side in 4 * rng.integers(1, 4, 2):  # two images of different size
        x = rng.standard_normal((rng.integers(1, 4), side, side + 1, C)).astype(dtype)
        y, _ = ops.conv2d_forward(x, w, stride, 1, groups)
        shortcut = rng.standard_normal(y.shape).astype(dtype) if with_shortcut else None
        expected = y + b if shortcut is None else y + b + shortcut
        if rectify:
            expected = np.maximum(expected, 0)
        ours = ops.conv2d_inference(x, w, b, stride, 1, groups, shortcut, rectify, kept)
        np.testing.assert_array_equal(ours, expected)


def test_a_folded_convolution_takes_the_filters_that_it_is_given(backend, rng):
    x = rng.standard_normal((1, 8, 8, 16))
    conv = Conv2d(16, 16, 3, rng=rng).astype("float64").use(backend)
    folded = FoldedConv2d(conv)
    first = folded.forward(x)
    np.testing.assert_array_equal(folded.forward(x), first)
    folded.params["w"] = 2 * folded.params["w"]
    np.testing.assert_array_equal(folded.forward(x), 2 * first)
    folded.params["w"] *= 2
    np.testing.assert_array_equal(folded.forget().forward(x), 4 * first)


def test_a_convolution_of_inference_has_stride_1_no_border_and_a_relu_unless_told_otherwise(
    backend, rng
):
    ops = get_ops(backend)
    x, w, b = (rng.standard_normal(shape) for shape in ((2, 5, 4, 3), (3, 3, 3, 6), 6))
    y, _ = ops.conv2d_forward(x, w, 1, 0, 1)
    np.testing.assert_array_equal(ops.conv2d_inference(x, w, b), np.maximum(y + b, 0))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda ops, f, x: ops.add_relu_forward(f, x, 1), "with stride 1"),
        (lambda ops, f, x: ops.add_relu_forward(f, x, 0), "integer of at least 1"),
        (lambda ops, f, x: ops.add_relu_forward(f[..., :2], x, 2), "at least 3 channels"),
        (lambda ops, f, x: ops.add_shortcut_gradient(x, f[:1], 2), "dz of shape"),
        (lambda ops, f, x: ops.add_relu_forward(f, x.astype(np.float32), 2), "same dtype"),
        (lambda ops, f, x: ops.add_relu_forward(f, x[0], 2), r"x must have shape \(N, H, W, C\)"),
        (lambda ops, f, x: ops.add_relu_forward(f[0], x, 2), r"f must have shape \(N, OH, OW, K\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(backend, call, words):
    f, x = np.ones((2, 3, 3, 5)), np.ones((2, 5, 6, 3))
    with pytest.raises(InputError, match=words):
        call(get_ops(backend), f, x)


def test_complex_numbers_are_refused_before_anything_is_computed(backend):
    x, w, b = np.ones((1, 4, 4, 2)), np.ones((3, 3, 2, 3)), np.ones(3)
    for arguments in ((x + 1j, w, b), (x, w + 1j, b), (x, w, b + 1j)):
        with pytest.raises(InputError, match="conv2d_inference"):
            get_ops(backend).conv2d_inference(*arguments, 1, 1)


def test_a_bias_or_a_shortcut_of_another_shape_is_refused(backend):
    ops = get_ops(backend)
    x, w = np.ones((1, 4, 4, 2)), np.ones((3, 3, 2, 3))
    with pytest.raises(InputError, match="b must have shape"):
        ops.conv2d_inference(x, w, np.ones(2), 1, 1)
    with pytest.raises(InputError, match="shortcut must have shape"):
        ops.conv2d_inference(x, w, np.ones(3), 1, 1, 1, np.ones((1, 4, 4, 2)))
    with pytest.raises(InputError, match="y is float64 but shortcut is float32"):
        ops.conv2d_inference(x, w, np.ones(3), 1, 1, 1, np.ones((1, 4, 4, 3), np.float32))
    with pytest.raises(InputError, match="x is float64 but b is float32"):
        ops.conv2d_inference(x, w, np.ones(3, np.float32))


# ------------------------------------------------------------------ what folding must not assume


def same_logits(folded, net, rng):
    x = rng.standard_normal((2, 32, 32, 3))
    expected = net.forward(x)
    limit = 1e-12 * np.abs(expected).max()
    np.testing.assert_allclose(folded.forward(x), expected, rtol=0, atol=limit)


def double(name="resnet8"):
    return trained(by_name(name, rng=3)).astype("float64")


@pytest.mark.parametrize("name", ["resnet8", "plain8", "resnet8B"])
def test_a_network_folded_twice_is_the_network_folded_once(name, rng):
    net = double(name)
    same_logits(fold(fold(net)), net, rng)


class Halved(ResidualBlock):
    """y = F(x) / 2 + x."""

    def forward(self, x, train=False):
        return 0.5 * self.body.forward(x, train) + x


class Reversed(Sequential):
    def forward(self, x, train=False):
        return x[:, ::-1]


class Own(Network):
    def forward(self, x, train=False):
        return 2 * super().forward(x, train)


@pytest.mark.parametrize("name", ["resnet8", "plain8"])
def test_blocks_that_compute_something_else_are_copied(name, rng):
    net = double(name)
    block = net.children["stage1"].children["block1"]
    for relu in (Tanh(), Identity()):
        block.relu = block.children["relu"] = relu
        same_logits(fold(net), net, rng)
    stage = net.children["stage2"]
    stage.children["block1"] = Sequential(a=stage.children["block1"], b=Reversed())
    net.children["stage1"].children["block1"] = Halved(block.body, Identity())
    same_logits(fold(net), net, rng)


def test_a_network_with_a_forward_of_its_own_is_refused():
    net = double()
    with pytest.raises(InputError, match="got a Own with a forward of its own"):
        fold(Own(net.facts, **net.children))


def test_what_a_folded_network_keeps_is_neither_copied_nor_pickled_nor_left_stale(rng):
    net, other = double().use("numba"), trained(double(), seed=8)
    folded, size = fold(net), len(pickle.dumps(fold(net)))
    same_logits(folded, net, rng)
    assert len(pickle.dumps(folded)) == size
    for copied in (copy.deepcopy(folded), pickle.loads(pickle.dumps(folded))):
        assert copied.children["conv"]._cache is None
        same_logits(copied, net, rng)
    same_logits(folded.load_state(fold(other).state()), other, rng)


@pytest.mark.parametrize("library", ["onnx", "torch_twin", "jax_twin"])
def test_a_folded_network_is_not_exported_without_its_relus(library):
    needs = {"onnx": "onnx", "torch_twin": "torch", "jax_twin": "jax"}
    pytest.importorskip(needs[library], reason=f"{needs[library]} is not installed")
    module = importlib.import_module(f"minires.exchange.{library}")
    folded = fold(double())
    export = {
        "onnx": lambda: module.to_bytes(folded),
        "torch_twin": lambda: module.as_torch(folded),
        "jax_twin": lambda: module.forward(
            folded, np.ones((1, 32, 32, 3)), module.Pass(folded, folded.parameters(), {}, False)
        ),
    }
    with pytest.raises(InputError, match="pass the network that it was folded from"):
        export[library]()
