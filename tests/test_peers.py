"""The same numbers as PyTorch: ops, gradients of whole networks, and twenty steps of training."""

import importlib.util
import os

import numpy as np
import pytest
from hypothesis import given
from strategies import convolutions, grouped_convolutions, images, pools

from minires import InputError, get_ops, plain, resnet
from minires.layers import Conv2d, GlobalAvgPool, Layer, Linear, MaxPool, ReLU
from minires.layers.base import layer_outputs
from minires.nets.fuse import fuse
from minires.nets.network import Facts, Network
from minires.ops import BACKENDS
from minires.optim import SGD

if importlib.util.find_spec("torch") is None and not os.environ.get("CI"):
    pytest.skip('PyTorch is an optional peer: pip install -e ".[peers]"', allow_module_level=True)

import torch
import torch.nn.functional as F  # noqa: N812

from minires.exchange import torch_twin

pytestmark = pytest.mark.peers
TIGHT = 1e-11  # of the largest value, in float64


def tensor(a, grad=False):
    """NHWC to NCHW, with a gradient if wanted."""
    t = torch.from_numpy(np.ascontiguousarray(a.transpose(0, 3, 1, 2) if a.ndim == 4 else a))
    return t.requires_grad_(grad)


def filters(w):
    """(KH, KW, C, K) to (K, C, KH, KW)."""
    return torch.from_numpy(np.ascontiguousarray(w.transpose(3, 2, 0, 1))).requires_grad_(True)


def array(t):
    a = t.detach().numpy()
    return a.transpose(0, 2, 3, 1) if a.ndim == 4 else a


def agree(ours, theirs, tolerance=TIGHT):
    assert ours.shape == theirs.shape
    scale = np.abs(theirs).max()
    assert np.abs(ours - theirs).max() <= tolerance * max(scale, 1e-300), (
        np.abs(ours - theirs).max() / scale
    )


@pytest.fixture(params=BACKENDS, scope="module")
def ops(request):
    return get_ops(request.param)


@given(problem=convolutions(("float64",), touching=True))
def test_convolution(ops, problem):
    x, w, stride, pad, rng = problem
    y, cache = ops.conv2d_forward(x, w, stride, pad)
    dy = rng.standard_normal(y.shape)
    tx, tw = tensor(x, True), filters(w)
    ty = F.conv2d(tx, tw, stride=stride, padding=pad)
    ty.backward(tensor(dy))
    dx, dw = ops.conv2d_backward(dy, cache)
    agree(y, array(ty))
    agree(dx, array(tx.grad))
    agree(dw, tw.grad.numpy().transpose(2, 3, 1, 0))


@given(problem=grouped_convolutions(("float64",), touching=True))
def test_convolution_in_groups_and_with_pairs(ops, problem):
    x, w, options, rng = problem
    y, cache = ops.conv2d_forward(x, w, **options)
    dy = rng.standard_normal(y.shape)
    tx, tw = tensor(x, True), filters(w)
    ty = F.conv2d(
        tx, tw, stride=options["stride"], padding=options["pad"], groups=options["groups"]
    )
    ty.backward(tensor(dy))
    dx, dw = ops.conv2d_backward(dy, cache)
    agree(y, array(ty))
    agree(dx, array(tx.grad))
    agree(dw, tw.grad.numpy().transpose(2, 3, 1, 0))


@given(problem=images(("float64",), least=8))
def test_batch_norm(ops, problem):
    x, rng = problem
    gamma, beta = rng.standard_normal((2, x.shape[-1]))
    y, _, _, cache = ops.batchnorm_forward(x, gamma, beta, 1e-2)
    dy = rng.standard_normal(x.shape)
    tx, tg, tb = (
        tensor(x, True),
        torch.tensor(gamma, requires_grad=True),
        torch.tensor(beta, requires_grad=True),
    )
    ty = F.batch_norm(tx, None, None, tg, tb, training=True, eps=1e-2)
    ty.backward(tensor(dy))
    agree(y, array(ty))
    theirs = array(tx.grad), tg.grad.numpy(), tb.grad.numpy()
    for ours, expected in zip(ops.batchnorm_backward(dy, cache), theirs, strict=True):
        agree(ours, expected)


@given(problem=pools(("float64",)))
def test_max_pool(ops, problem):
    x, k, stride, pad, rng = problem
    y, cache = ops.max_pool_forward(x, k, stride, pad)
    dy = rng.standard_normal(y.shape)
    tx = tensor(x, True)
    ty = F.max_pool2d(tx, k, stride, pad)
    ty.backward(tensor(dy))
    agree(y, array(ty))
    agree(ops.max_pool_backward(dy, cache), array(tx.grad))


def test_cross_entropy(ops, rng):
    logits, labels = 5 * rng.standard_normal((7, 10)), rng.integers(0, 10, 7)
    loss, dlogits = ops.softmax_cross_entropy(logits, labels)
    t = torch.tensor(logits, requires_grad=True)
    theirs = F.cross_entropy(t, torch.tensor(labels))
    theirs.backward()
    assert abs(loss - theirs.item()) < TIGHT
    agree(dlogits, t.grad.numpy())


def batch(N, seed=0, side=32, dtype="float64"):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, side, side, 3)).astype(dtype), rng.integers(0, 10, N)


def torch_loss(twin, x, labels):
    twin.zero_grad()
    loss = F.cross_entropy(twin(tensor(x)), torch.tensor(labels))
    loss.backward()
    return loss.item()


def gradients(net, x, labels):
    loss, dlogits = net.ops.softmax_cross_entropy(net.forward(x, train=True), labels)
    net.backward(dlogits)
    return loss, net.gradients()


NETS = {
    "resnet20": lambda: resnet(20),
    "resnet20B": lambda: resnet(20, "B"),
    "resnet20C": lambda: resnet(20, "C"),
    "plain20": lambda: plain(20),
    "resnet56": lambda: resnet(56),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETS)
def test_gradients_of_whole_networks_in_float64(name, backend):
    net = NETS[name]().astype("float64").use(backend)
    x, labels = batch(8)
    twin = torch_twin.as_torch(net)
    theirs_loss = torch_loss(twin, x, labels)
    loss, ours = gradients(net, x, labels)
    assert abs(loss - theirs_loss) <= TIGHT * abs(theirs_loss)
    for name, theirs in torch_twin.gradients(net, twin).items():
        agree(ours[name], theirs)


def signs(net, x):
    return [y > 0 for name, y in layer_outputs(net, x, train=True).items() if "relu" in name]


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_gradients_are_exact_to_the_rounding_of_their_sums(backend):
    """Compare the norms of errors with PyTorch in float64, where rounding flips no ReLU.

    A flipped ReLU would change gradients by 1 %.
    """
    double, single = resnet(20).astype("float64"), resnet(20).use(backend)
    for seed in range(20):
        x, labels = batch(16, seed)
        x32 = x.astype("float32")
        if all(
            np.array_equal(a, b)
            for a, b in zip(signs(double, x32.astype("float64")), signs(single, x32), strict=True)
        ):
            break
    else:
        pytest.fail("a ReLU changed sides in each of 20 batches")
    twin = torch_twin.as_torch(double)
    torch_loss(twin, x32.astype("float64"), labels)
    ours = gradients(single, x32, labels)[1]
    errors = [
        np.linalg.norm(ours[n] - e) / np.linalg.norm(e)
        for n, e in torch_twin.gradients(double, twin).items()
    ]
    depth, terms = (
        20,
        x[..., 0].size,
    )  # every layer sums N H W terms, whose roundings add up as a random walk
    assert max(errors) <= depth * np.sqrt(terms) * np.finfo(np.float32).eps


def trajectory(net, steps, lr):
    """Train both for some steps; return the largest relative distance of a parameter."""
    twin = torch_twin.as_torch(net)
    torch_sgd = torch.optim.SGD(twin.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    sgd = SGD(net.parameters())
    for i in range(steps):
        x, labels = batch(8, seed=i)
        torch_loss(twin, x, labels)
        torch_sgd.step()
        sgd.step(gradients(net, x, labels)[1], lr)
    theirs = torch_twin.parameters(net, twin)
    return max(
        np.abs(p - theirs[n]).max() / np.abs(theirs[n]).max() for n, p in net.parameters().items()
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_twenty_steps_of_resnet20_agree(backend):
    assert trajectory(resnet(20).astype("float64").use(backend), 20, 0.01) < 1e-9


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_few_tiny_steps_of_plain20_agree(backend):
    """Plain nets amplify a rounding error a million-fold within a few steps: take tiny ones."""
    assert trajectory(plain(20).astype("float64").use(backend), 5, 1e-4) < 1e-9


# --------------------------------------------------------------------- networks of other layers


def agree_as_networks(net, x, labels):
    """Loss and every gradient are those of the twin, to rounding in float64."""
    twin = torch_twin.as_torch(net)
    theirs_loss = torch_loss(twin, x, labels)
    loss, ours = gradients(net, x, labels)
    assert abs(loss - theirs_loss) <= TIGHT * abs(theirs_loss)
    theirs = torch_twin.gradients(net, twin)
    assert list(theirs) == list(net.parameters())
    for name, expected in theirs.items():
        agree(ours[name], expected)


def network(conv, **layers):
    facts = Facts("toy", "toy", 2, (12, 10, 3), 10)
    head = {"pool": GlobalAvgPool(), "fc": Linear(conv.params["w"].shape[3], 10, rng=1)}
    return Network(facts, conv=conv, **layers, **head).astype("float64")


CONVOLUTIONS = {
    "pairs": lambda: Conv2d(3, 6, (1, 5), (2, 1), (0, 2), rng=0),
    "groups": lambda: Conv2d(3, 6, 3, 2, 1, groups=3, rng=0),
    "bias": lambda: Conv2d(3, 6, 3, pad=1, bias=True, rng=0),
    "all": lambda: Conv2d(3, 6, (3, 2), (1, 2), (1, 0), groups=3, bias=True, rng=0),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_twin_knows_every_kind_of_convolution(name, rng):
    conv = CONVOLUTIONS[name]()
    for key, parameter in conv.params.items():
        if key == "b":
            parameter += rng.standard_normal(parameter.shape).astype("float32")
    net = network(conv, relu=ReLU(), maxpool=MaxPool(3, 2, 1))
    agree_as_networks(net, rng.standard_normal((4, 12, 10, 3)), rng.integers(0, 10, 4))


@pytest.mark.parametrize("make", [lambda: plain(14), lambda: resnet(8, "B")])
def test_the_twin_of_a_fused_network_is_that_of_the_network(make):
    net = fuse(make()).astype("float64")
    x, labels = batch(4, side=16)
    agree_as_networks(net, x, labels)
    a, b = (torch_twin.as_torch(n) for n in (net, make().astype("float64")))
    for ours, theirs in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with torch.no_grad():
        assert torch.equal(a(tensor(x)), b(tensor(x)))


class Scale(Layer):
    """A layer that this library does not have: y = w * x."""

    def __init__(self, C):
        super().__init__()
        self.params = {"w": np.linspace(1, 2, C)}

    def forward(self, x, train=False):
        self._keep((x,), train)
        return x * self.params["w"]

    def backward(self, dy):
        (x,) = self._pop()
        self.grads["w"] = (dy * x).sum(axis=(0, 1, 2))
        return dy * self.params["w"]


class DoubleScale(Scale):
    """A subclass is written like its base."""


class TorchScale(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.from_numpy(layer.params["w"].copy()))

    def forward(self, x):
        return x * self.weight[:, None, None]


@pytest.mark.parametrize("layer_class", [Scale, DoubleScale])
def test_an_unknown_layer_is_refused_by_its_class_until_it_is_registered(
    layer_class, monkeypatch, rng
):
    monkeypatch.setattr(torch_twin, "MODULES", dict(torch_twin.MODULES))
    net = network(Conv2d(3, 6, rng=0), scale=layer_class(6), relu=ReLU())
    with pytest.raises(InputError, match=rf"layer {layer_class.__name__};.*register"):
        torch_twin.as_torch(net)
    torch_twin.register(Scale, TorchScale)
    agree_as_networks(net, rng.standard_normal((4, 12, 10, 3)), rng.integers(0, 10, 4))


@pytest.mark.parametrize("layer_class", [Layer, int])
def test_no_rule_is_registered_for_all_layers_or_for_none(layer_class):
    with pytest.raises(InputError, match="derived from Layer"):
        torch_twin.register(layer_class, lambda layer: None)


def test_the_twin_has_the_running_statistics(rng):
    net = resnet(8, rng=1).astype("float64")
    x = rng.standard_normal((4, 32, 32, 3))
    net.forward(3 * x + 1, train=True)
    with torch.no_grad():
        theirs = torch_twin.as_torch(net).eval()(tensor(x)).numpy()
    assert np.abs(theirs - net.forward(x)).max() < TIGHT * np.abs(theirs).max()
