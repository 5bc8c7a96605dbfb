"""Layers and networks of AlexNet and VGG: sizes, names, masks, PyTorch, and exact resume."""

import importlib.util
import json
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import pools
from test_alexnet_ops import responses

from minires import get_ops
from minires.errors import InputError
from minires.gradcheck import check_layer
from minires.layers import AvgPool, Dropout, Flatten, LocalResponseNorm, MaxPool, Tanh
from minires.layers.describe import Description
from minires.nets import alexnet, registry, vgg
from minires.nets.audit import audit, macs, table
from minires.nets.registry import by_name
from minires.ops import BACKENDS
from minires.optim import SGD
from minires.runs import checkpoint
from minires.train import state, step
from minires.train.loop import Interrupted, train

HAS_TORCH = importlib.util.find_spec("torch") is not None or os.environ.get("CI")
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason='pip install -e ".[peers]"')
SEEDS = np.random.SeedSequence(5)


# ------------------------------------------------------------------------------------------ layers


LAYERS = {
    "local response norm": (lambda: LocalResponseNorm(3, 1.0, 0.5), (2, 3, 3, 4)),
    "dropout": (lambda: Dropout(0.4).reseed(SEEDS), (3, 20)),
    "no dropout": (lambda: Dropout(0), (3, 4)),
    "tanh": (Tanh, (2, 3, 4)),
    "average pool": (lambda: AvgPool(3, 2, 1), (2, 5, 4, 3)),
    "flatten": (Flatten, (2, 3, 4, 2)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LAYERS)
def test_gradient_of_each_layer(name, backend, rng):
    make, shape = LAYERS[name]
    check_layer(make().use(backend), rng.standard_normal(shape))


DESCRIPTIONS = {
    "local response norm": Description("local response norm, 3 channels", (3, 3, 4)),
    "dropout": Description("dropout 0.4", (20,)),
    "no dropout": Description("dropout 0", (4,)),
    "tanh": Description("tanh", (3, 4), listed=False),
    "average pool": Description("average pool", (3, 2, 3), window=(3, 3), stride=(2, 2)),
    "flatten": Description("flatten", (24,), window=None),
}


@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_is_described_with_the_shape_that_it_makes(name, rng):
    make, shape = LAYERS[name]
    y = make().forward(rng.standard_normal(shape))
    assert make().describe(shape[1:]) == DESCRIPTIONS[name]
    assert DESCRIPTIONS[name].y_shape == y.shape[1:]


def test_the_defaults_of_the_layers_are_the_papers():
    norm = LocalResponseNorm()
    assert (norm.n, norm.k, norm.alpha, norm.beta) == (5, 2.0, 1e-4, 0.75)
    assert Dropout().rate == 0.5
    assert AvgPool(1, 1).pad == 0


def test_windows_at_the_ends_of_their_range_are_taken(rng):
    x = rng.standard_normal((1, 3, 3, 3))
    assert LocalResponseNorm(3).describe((3, 3, 3)).y_shape == (3, 3, 3)
    np.testing.assert_array_equal(AvgPool(1, 1).forward(x), x)
    assert AvgPool(2, 1, 1).forward(x).shape == (1, 4, 4, 3)
    assert AvgPool(4, 1, 2).forward(x).shape == (1, 4, 4, 3)


@pytest.mark.parametrize(
    "make", [Tanh, Flatten, lambda: AvgPool(2, 2), lambda: LocalResponseNorm(3)]
)
def test_an_evaluation_leaves_nothing_for_a_backward(make):
    layer = make()
    y = layer.forward(np.ones((1, 4, 4, 3)))
    with pytest.raises(InputError, match="forward"):
        layer.backward(y)


def test_dropout_keeps_the_mean_and_is_nothing_at_test_time(rng):
    layer = Dropout(0.25).reseed(SEEDS)
    x = np.ones((100, 400), np.float32)
    y = layer.forward(x, train=True)
    assert set(np.unique(y)) == {0, np.float32(4 / 3)}
    deviation = np.sqrt(0.25 / 0.75 / x.size)  # of the mean of y
    assert abs(y.mean() - 1) < 5 * deviation
    assert layer.forward(x).tobytes() == x.tobytes()


def test_a_mask_is_drawn_once_for_forward_and_backward_and_anew_by_reseed(rng):
    layer = Dropout(0.5).reseed(SEEDS)
    x = np.ones((4, 50))
    y = layer.forward(x, train=True)
    np.testing.assert_array_equal(layer.backward(x), y)
    np.testing.assert_array_equal(layer.forward(x, train=True), y)
    other = layer.reseed(np.random.SeedSequence(6)).forward(x, train=True)
    assert (other != y).any()


def test_masks_are_the_same_in_float32_and_float64():
    masks = [Dropout(0.5).reseed(SEEDS).mask((3, 70), np.dtype(t)) for t in ("f4", "f8")]
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("rate", [1, 1.0, -0.1, 2, float("nan"), "0.5", None, True])
def test_a_rate_outside_of_0_to_1_is_refused(rate):
    with pytest.raises(InputError, match=r"rate must lie in \[0, 1\), got .*; it is the share"):
        Dropout(rate)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LocalResponseNorm(4), "n must be odd"),
        (lambda: LocalResponseNorm(0), "n must be an integer of at least 1"),
        (lambda: LocalResponseNorm(5, 0), "k must be above 0"),
        (lambda: LocalResponseNorm(5, 2, "x"), "alpha must be a finite number"),
        (lambda: LocalResponseNorm(5).describe((9, 9, 3)), "expected at least n = 5 channels"),
        (lambda: AvgPool(4, 1, 3), "pad must be at most size // 2 = 2, got 3"),
        (lambda: AvgPool(3, 1, 2), "pad must be at most size // 2 = 1, got 2"),
        (lambda: AvgPool(0, 1), "size must be an integer of at least 1"),
        (lambda: AvgPool(1, 0), "stride must be an integer of at least 1"),
        (lambda: AvgPool(3, 1, -1), "pad must be an integer of at least 0"),
        (lambda: alexnet.alexnet(66), "image_size must be an integer of at least 67, got 66"),
        (lambda: alexnet.cifar_facts("relu"), "variants of alexnet-cifar are tanh, bn"),
        (lambda: alexnet.cifar_facts("bn", "bn"), "each at most once"),
        (lambda: vgg.vgg(11), "depth of vgg must be 16 or 19, got 11"),
        (lambda: by_name("alexnet-cifar-"), "variants of alexnet-cifar"),
        (lambda: by_name("vgg16b"), "unknown network 'vgg16b'"),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(InputError) as e:
        make()
    assert words in str(e.value)


# ---------------------------------------------------------------------------------------- networks


class Zeros(np.random.Generator):
    """A generator that draws zeros at once: 140 million random weights take seconds."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))

    def standard_normal(self, size=None, dtype=np.float64, out=None):
        return np.zeros(1, np.float32).reshape((1,) * len(size)) * np.ones(size, np.float32)


SIZES = {
    "alexnet": (60_965_224, 724_406_816),
    "alexnet-torchvision": (61_100_840, 714_188_480),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464),
    "vgg16bn": (138_365_992, 15_470_264_320),
    "vgg19bn": (143_678_248, 19_632_062_464),
}
CONVOLUTIONS = {"vgg16": 15_346_630_656, "vgg19": 19_508_428_800}


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    net = by_name(name, rng=Zeros())
    parameters = sum(p.size for p in net.parameters().values())
    assert (parameters, macs(net)) == SIZES[name]
    rows = audit(net)
    assert sum(row.parameters for row in rows) == parameters
    assert sum(row.weighted for row in rows) == net.facts.depth
    if name in CONVOLUTIONS:
        assert sum(row.macs for row in rows if "conv" in row.kind) == CONVOLUTIONS[name]
    assert f"{parameters:,} parameters" in table(net)


def test_the_maps_of_alexnet_are_the_papers():
    rows = {row.name: row for row in audit(by_name("alexnet", rng=Zeros()))}
    sides = {"conv1": 55, "pool1": 27, "conv2": 27, "pool2": 13, "conv5": 13, "pool5": 6}
    assert {name: rows[name].shape[0] for name in sides} == sides
    assert [name for name, row in rows.items() if "2 groups" in row.kind] == [
        "conv2",
        "conv4",
        "conv5",
    ]
    assert "lrn1" in rows
    assert rows["drop6"].kind == "dropout 0.5"


CIFAR = {
    "alexnet-cifar": 89_578,
    "alexnet-cifar-tanh": 89_578,
    "alexnet-cifar-bn": 89_706,
    "alexnet-cifar-nolrn": 89_578,
    "alexnet-cifar-pool2": 89_578,
    "alexnet-cifar-tanh-bn-nolrn-pool2-dropout": 89_706,
}


@pytest.mark.parametrize("name", CIFAR)
def test_variants_of_alexnet_cifar_differ_in_what_their_names_say(name, rng):
    net = by_name(name)
    assert net.title == name
    assert sum(p.size for p in net.parameters().values()) == CIFAR[name]
    words = name.split("-")
    assert isinstance(net.children["act1"], Tanh) == ("tanh" in words)
    assert ("bn1" in net.children) == ("bn" in words)
    assert ("lrn1" in net.children) == ("nolrn" not in words)
    assert ("drop" in net.children) == ("dropout" in words)
    pool = net.children["pool1"]
    assert isinstance(pool, MaxPool)
    assert (pool.size, pool.stride) == ((2, 2) if "pool2" in words else (3, 2))
    assert net.describe((32, 32, 3)).parts["pool3"].y_shape == (4, 4, 64)
    x = rng.standard_normal((2, 32, 32, 3)).astype(np.float32)
    assert net.forward(x).shape == (2, 10)


def test_names_list_variants_in_any_order_and_are_shown_in_one():
    assert registry.facts("alexnet-cifar-bn-tanh").name == "alexnet-cifar-tanh-bn"
    assert registry.facts("vgg-16bn").name == "vgg16bn"
    for name in (*SIZES, *CIFAR):
        assert registry.facts(registry.facts(name).name).name == name


def test_variants_begin_with_the_same_weights():
    nets = [by_name(name, rng=3).parameters() for name in ("alexnet-cifar", "alexnet-cifar-tanh")]
    for name, w in nets[0].items():
        np.testing.assert_array_equal(nets[1][name], w)


def test_nothing_crosses_between_the_towers_but_at_convolution_3(rng):
    """A change of the first tower's filters of layer 2 reaches one half of the maps behind it."""
    net = alexnet.alexnet(67, rng=1)
    x = rng.standard_normal((1, 67, 67, 3)).astype(np.float32)

    def outputs():
        found = {}
        with net.watch(lambda call: found.update({call.name: call.value})):
            net.forward(x)
        return found

    before = outputs()
    net.children["conv2"].params["w"][..., :128] *= 2
    after = outputs()
    moved = {n: (before[n] != after[n]).any(axis=(0, 1, 2)) for n in ("conv2", "conv3")}
    assert moved["conv2"][:128].any()
    assert not moved["conv2"][128:].any()
    assert moved["conv3"][:192].any()
    assert moved["conv3"][192:].any()


# ------------------------------------------------------------------------------------------ PyTorch


def agree(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * max(np.abs(theirs).max(), 1e-300)


def nchw(torch, a):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(a, -1, 1))).requires_grad_(True)


def nhwc(t):
    return np.moveaxis(t.detach().numpy(), 1, -1)


@needs_torch
@pytest.mark.parametrize("backend", BACKENDS)
@given(problem=responses(("float64",)))
@settings(max_examples=15)
def test_local_response_norm_is_pytorchs_with_alpha_times_n(backend, problem):
    import torch

    x, options, rng = problem
    x = x.reshape(len(x), -1, x.shape[-1])
    ops, n = get_ops(backend), options["n"]
    y, cache = ops.local_response_norm_forward(x, **options)
    dy = rng.standard_normal(x.shape)
    alpha, beta, k = options["alpha"] * n, options["beta"], options["k"]
    tx = nchw(torch, x)
    ty = torch.nn.LocalResponseNorm(n, alpha, beta, k)(tx)
    ty.backward(nchw(torch, dy).detach())
    agree(y, nhwc(ty), 1e-11)
    agree(ops.local_response_norm_backward(dy, cache), nhwc(tx.grad), 1e-11)


@needs_torch
@given(problem=pools(("float64",)))
@settings(max_examples=15)
def test_average_pool_and_tanh_are_pytorchs(problem):
    import torch

    x, k, stride, pad, rng = problem
    ops = get_ops("numpy")
    y, cache = ops.avg_pool_forward(x, k, stride, pad)
    z, tanh_cache = ops.tanh_forward(y)
    dz = rng.standard_normal(y.shape)
    tx = nchw(torch, x)
    tz = torch.tanh(torch.nn.functional.avg_pool2d(tx, k, stride, pad, count_include_pad=False))
    tz.backward(nchw(torch, dz).detach())
    agree(z, nhwc(tz), 1e-11)
    dx = ops.avg_pool_backward(ops.tanh_backward(dz, tanh_cache), cache)
    agree(dx, nhwc(tx.grad), 1e-11)


def twin_with_masks(net, monkeypatch, batch_size):
    """The PyTorch twin, in which dropout multiplies by the masks that the layers of `net` draw."""
    import torch

    from minires.exchange import torch_twin

    class Masked(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            mask = self.layer.mask((batch_size, *x.shape[1:]), np.dtype(np.float64))
            return x * torch.from_numpy(mask)

    monkeypatch.setitem(torch_twin.MODULES, Dropout, Masked)
    return torch_twin.as_torch(net), torch_twin


@needs_torch
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("alexnet-cifar-dropout", "numpy"),
        ("alexnet-cifar-dropout", "numba"),
        ("alexnet-cifar-tanh-bn-pool2", "numpy"),
        ("67", "numpy"),
    ],
)
def test_one_training_step_with_fixed_masks_is_pytorchs(name, backend, rng, monkeypatch):
    import torch

    net = alexnet.alexnet(67, rng=2) if name == "67" else by_name(name, rng=2)
    net.astype("float64").use(backend).reseed(SEEDS)
    side = net.facts.input_shape[0]
    x = rng.standard_normal((4, side, side, 3))
    labels = rng.integers(0, net.facts.classes, 4)
    twin, torch_twin = twin_with_masks(net, monkeypatch, 4)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    loss = torch.nn.functional.cross_entropy(
        twin(nchw(torch, x).detach()), torch.from_numpy(labels)
    )
    loss.backward()
    sgd.step()
    ours, _ = step.train_step(net, SGD(net.parameters()), x, labels, lr=0.01)
    assert ours == pytest.approx(loss.item(), rel=1e-10)
    theirs = torch_twin.gradients(net, twin)
    for key, gradient in net.gradients().items():
        agree(gradient, theirs[key], 1e-10)
    expected = torch_twin.parameters(net, twin)
    for key, parameter in net.parameters().items():
        agree(parameter, expected[key], 1e-10)


# ----------------------------------------------------------------------------------------- training


@pytest.fixture
def dropped(tiny):
    return replace(tiny, net="alexnet-cifar-bn-dropout", pca_colour=True, lr=0.01)


def final_state(folder):
    arrays, meta = checkpoint.read(folder / checkpoint.NAME)
    return {name: a.tobytes() for name, a in arrays.items()}, meta["running_error"]


def metrics(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_a_stopped_run_with_dropout_and_colour_ends_with_the_same_bits(
    dropped, shapes, tmp_path, monkeypatch
):
    monkeypatch.setattr(state, "CHECKPOINT_SECONDS", -1)
    train(dropped, tmp_path / "whole", shapes)
    stop = threading.Event()

    def stop_at_4(progress):
        if progress.iteration == 4:
            stop.set()

    with pytest.raises(Interrupted):
        train(dropped, tmp_path / "stopped", shapes, stop_at_4, stop)
    train(dropped, tmp_path / "stopped", shapes)
    assert final_state(tmp_path / "stopped") == final_state(tmp_path / "whole")
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


def test_a_run_with_dropout_that_lost_its_last_evaluation_is_evaluated_again(
    dropped, shapes, tmp_path
):
    train(dropped, tmp_path / "run", shapes)
    before = metrics(tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line).get("kind") != "eval"]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(kept))
    train(dropped, tmp_path / "run", shapes)
    again = [line for line in metrics(tmp_path / "run") if line["kind"] == "eval"]
    assert again == [line for line in before if line["kind"] == "eval"][-1:]
