"""The same numbers as PyTorch: ops, gradients of whole networks, and twenty steps of training."""

import os

import numpy as np
import pytest
from hypothesis import given
from strategies import convolutions, images, pools

from minires import get_ops, plain, resnet
from minires.layers import Conv2d, layer_outputs
from minires.ops import BACKENDS
from minires.optim import SGD

try:
    import torch
    import torch.nn.functional as F  # noqa: N812
except ImportError:
    if os.environ.get("CI"):
        raise
    pytest.skip("PyTorch is an optional peer: pip install -e '.[peers]'", allow_module_level=True)

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
    assert np.abs(ours - theirs).max() <= tolerance * max(scale, 1e-300), np.abs(ours - theirs).max() / scale


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


@given(problem=images(("float64",), least=8))
def test_batch_norm(ops, problem):
    x, rng = problem
    gamma, beta = rng.standard_normal((2, x.shape[-1]))
    y, _, _, cache = ops.batchnorm_forward(x, gamma, beta, 1e-2)
    dy = rng.standard_normal(x.shape)
    tx, tg, tb = tensor(x, True), torch.tensor(gamma, requires_grad=True), torch.tensor(beta, requires_grad=True)
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


class Peer:
    """A network of ours in PyTorch, built from its parameters by name."""

    def __init__(self, net):
        self.convolutions = {n for n, layer in net.named_layers() if isinstance(layer, Conv2d)}
        self.weights = {}
        for name, p in net.parameters().items():
            self.weights[name] = filters(p) if p.ndim == 4 else torch.tensor(p, requires_grad=True)
        self.blocks = sorted({n.split(".body")[0] for n in self.weights if ".body" in n})
        self.plain = net.title.startswith("plain")

    def conv_bn(self, x, prefix, i="", stride=1):
        w = self.weights[f"{prefix}conv{i}.w"]
        y = F.conv2d(x, w, stride=stride, padding=w.shape[2] // 2)
        gamma, beta = (self.weights[f"{prefix}bn{i}.{p}"] for p in ("gamma", "beta"))
        return F.batch_norm(y, None, None, gamma, beta, training=True, eps=1e-5)

    def __call__(self, x):
        x = F.relu(self.conv_bn(x, ""))
        for block in sorted(self.blocks, key=lambda b: [int("".join(filter(str.isdigit, p))) for p in b.split(".")]):
            K = self.weights[f"{block}.body.conv1.w"].shape[0]
            stride = 1 if K == x.shape[1] else 2
            z = self.conv_bn(F.relu(self.conv_bn(x, f"{block}.body.", 1, stride)), f"{block}.body.", 2)
            if f"{block}.shortcut.conv.w" in self.weights:
                z = z + self.conv_bn(x, f"{block}.shortcut.", stride=stride)
            elif not self.plain:
                z = z + F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, K - x.shape[1]))
            x = F.relu(z)
        return x.mean((2, 3)) @ self.weights["fc.w"] + self.weights["fc.b"]

    def loss(self, x, labels):
        for w in self.weights.values():
            w.grad = None
        loss = F.cross_entropy(self(tensor(x)), torch.tensor(labels))
        loss.backward()
        return loss.item()

    def named(self, attribute):
        found = {n: (w.grad if attribute == "grad" else w.detach()).numpy() for n, w in self.weights.items()}
        return {n: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for n, a in found.items()}


def batch(N, seed=0, side=32, dtype="float64"):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, side, side, 3)).astype(dtype), rng.integers(0, 10, N)


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
    peer = Peer(net)
    theirs_loss = peer.loss(x, labels)
    loss, ours = gradients(net, x, labels)
    assert abs(loss - theirs_loss) <= TIGHT * abs(theirs_loss)
    for name, theirs in peer.named("grad").items():
        agree(ours[name], theirs)


def signs(net, x):
    return [y > 0 for name, y in layer_outputs(net, x, train=True).items() if "relu" in name]


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_gradients_are_exact_to_the_rounding_of_their_sums(backend):
    """Norm by norm against PyTorch in float64, on a batch where no ReLU changes sides by rounding (that moves 1 %)."""
    double, single = resnet(20).astype("float64"), resnet(20).use(backend)
    for seed in range(20):
        x, labels = batch(16, seed)
        x32 = x.astype("float32")
        if all(np.array_equal(a, b) for a, b in zip(signs(double, x), signs(single, x32), strict=True)):
            break
    else:
        pytest.fail("a ReLU changed sides in each of 20 batches")
    peer = Peer(double)
    peer.loss(x32.astype("float64"), labels)
    ours = gradients(single, x32, labels)[1]
    errors = [np.linalg.norm(ours[n] - e) / np.linalg.norm(e) for n, e in peer.named("grad").items()]
    depth, terms = 20, x[..., 0].size  # every layer sums N H W terms, whose roundings add up as a random walk
    assert max(errors) <= depth * np.sqrt(terms) * np.finfo(np.float32).eps


def trajectory(net, steps, lr):
    """Train both for some steps; return the largest relative distance of a parameter."""
    peer = Peer(net)
    torch_sgd = torch.optim.SGD(peer.weights.values(), lr=lr, momentum=0.9, weight_decay=1e-4)
    sgd = SGD(net.parameters())
    for i in range(steps):
        x, labels = batch(16, seed=i)
        peer.loss(x, labels)
        torch_sgd.step()
        sgd.step(gradients(net, x, labels)[1], lr)
    theirs = peer.named("weights")
    return max(np.abs(p - theirs[n]).max() / np.abs(theirs[n]).max() for n, p in net.parameters().items())


@pytest.mark.parametrize("backend", BACKENDS)
def test_twenty_steps_of_resnet20_agree(backend):
    assert trajectory(resnet(20).astype("float64").use(backend), 20, 0.01) < 1e-9


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_few_tiny_steps_of_plain20_agree(backend):
    """Plain nets amplify a rounding error a million-fold within a few steps: few and tiny ones are all one may ask."""
    assert trajectory(plain(20).astype("float64").use(backend), 5, 1e-4) < 1e-9
