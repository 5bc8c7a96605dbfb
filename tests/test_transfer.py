"""Fine-tuning: frozen parts do not change by a bit, the others do, and resume knows all of it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from minires import InputError, resnet
from minires.exchange import weights as exchange
from minires.layers.base import Layer, Sequential, layer_outputs
from minires.layers.core import BatchNorm, Conv2d
from minires.layers.frozen import Frozen, FrozenBatchNorm
from minires.nets.freeze import freeze, start_from, trained_parameters
from minires.nets.fuse import fuse
from minires.nets.resnet import build_cifar, resnet_facts
from minires.runs import checkpoint
from minires.runs.config import Config
from minires.runs.run import read_run
from minires.train import state as run_state
from minires.train.loop import initial_net, train

IMAGES = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype(np.float32)
DLOGITS = np.random.default_rng(3).standard_normal((4, 10)).astype(np.float32)


def small(classes=10, rng=0):
    facts = replace(resnet_facts(8), input_shape=(8, 8, 3), classes=classes)
    return with_statistics(build_cifar(facts, rng))


def with_statistics(net):
    """Statistics as after some training, in place."""
    random = np.random.default_rng(9)
    for name, values in net._collect("buffers").items():
        low, high = (-0.2, 0.2) if name.endswith("mean") else (0.5, 2)
        values[...] = random.uniform(low, high, values.shape)
    return net


# ---------------------------------------------------------------------------------------- layers


def test_frozen_batch_norm_computes_in_training_as_in_evaluation():
    norm = BatchNorm(3)
    norm.buffers["running_mean"][...] = (1, 2, 3)
    norm.buffers["running_var"][...] = (4, 9, 16)
    norm.params["gamma"][...] = (2, 3, 4)
    expected = norm.forward(IMAGES)
    before = norm.state()
    frozen = FrozenBatchNorm(norm)
    np.testing.assert_array_equal(frozen.forward(IMAGES, train=True), expected)
    assert all(np.array_equal(norm.state()[name], a) for name, a in before.items())
    assert trained_parameters(frozen) == {}


def test_the_gradient_through_frozen_batch_norm_is_checked():
    norm = BatchNorm(2)
    norm.buffers["running_var"][...] = (4, 0.5)
    frozen = FrozenBatchNorm(norm).astype("float64")
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 2))
    dy = np.random.default_rng(1).standard_normal(x.shape)
    y = frozen.forward(x, train=True)
    dx = frozen.backward(dy)
    step = 1e-3 * np.random.default_rng(2).standard_normal(x.shape)
    change = frozen.forward(x + step, train=True) - y  # linear in x, so this is exact
    np.testing.assert_allclose((dy * change).sum(), (dx * step).sum(), rtol=1e-10)


def test_an_evaluation_of_frozen_batch_norm_leaves_nothing_for_a_backward():
    frozen = FrozenBatchNorm(BatchNorm(3))
    y = frozen.forward(IMAGES)
    with pytest.raises(InputError, match="forward"):
        frozen.backward(y)


def test_a_layer_that_is_wrapped_as_frozen_is_not_trained_and_evaluates_in_training():
    layer = Sequential(conv=Conv2d(3, 4, rng=0), bn=BatchNorm(4))
    expected, before = layer.forward(IMAGES), layer.state()
    frozen = Frozen(layer)
    assert trained_parameters(frozen) == {}
    np.testing.assert_array_equal(frozen.forward(IMAGES, train=True), expected)
    assert frozen.backward(expected) is None
    assert all(np.array_equal(frozen.state()[name], a) for name, a in before.items())


def test_a_frozen_layer_has_all_that_a_layer_has_and_the_children_of_what_it_wraps():
    layer = Sequential(bn=BatchNorm(3))
    frozen = Frozen(layer)
    assert vars(frozen).keys() >= vars(Layer()).keys()
    assert frozen.children["bn"] is layer.children["bn"]


@pytest.mark.parametrize("how", ["parts", "parts with bn frozen"])
def test_a_step_changes_everything_but_the_frozen_parts(how):
    parts, norms = ("conv", "bn", "stage1"), "frozen" if "bn frozen" in how else "train"
    net = fuse(freeze(small(), parts, norms))
    before = net.state()
    assert net.forward(IMAGES, train=True).shape == (4, 10)
    net.backward(DLOGITS)
    trained = trained_parameters(net)
    for name, w in trained.items():
        w -= 0.1 * net.gradients()[name]
    after = net.state()
    frozen = [name for name in before if name.startswith(tuple(f"{part}." for part in parts))]
    norm_arrays = ("gamma", "beta", "running_mean", "running_var")
    if norms == "frozen":
        frozen += [name for name in before if name.rpartition(".")[2] in norm_arrays]
    assert len(frozen) > 10
    for name, value in before.items():
        assert (value.tobytes() == after[name].tobytes()) == (name in frozen), name


def test_gradients_of_the_trained_parts_are_those_of_the_whole_network():
    whole = freeze(small(), (), "frozen").astype("float64")
    part = freeze(small(), ("conv", "bn", "stage1", "stage2"), "frozen").astype("float64")
    dy = np.random.default_rng(1).standard_normal((4, 10))
    for net in (whole, part):
        net.forward(IMAGES.astype("float64"), train=True)
        net.backward(dy)
    assert set(part.gradients()) < set(whole.gradients())
    for name, g in part.gradients().items():
        np.testing.assert_array_equal(g, whole.gradients()[name])


def test_frozen_parts_at_the_beginning_keep_no_caches():
    net = freeze(small(), ("conv", "bn", "stage1"))
    net.forward(IMAGES, train=True)
    assert isinstance(net.children["stage1"], Frozen)
    cached = [name for name, layer in net.named_layers() if layer._cache is not None]
    assert cached
    assert not [name for name in cached if name.startswith(("conv", "bn", "stage1"))]


def test_a_part_in_the_middle_passes_the_gradient_on():
    net = fuse(freeze(small(), ("stage2",)))
    net.forward(IMAGES, train=True)
    net.backward(DLOGITS)
    assert abs(net.gradients()["stage1.block1.body.conv1.w"]).max() > 0
    assert not [name for name in trained_parameters(net) if name.startswith("stage2")]


def test_names_and_outputs_stay_those_of_the_network():
    net, frozen = small(), freeze(small(), ("conv", "bn", "stage1"), "frozen")
    assert list(frozen.state()) == list(net.state())
    assert frozen.describe((8, 8, 3)).macs == net.describe((8, 8, 3)).macs
    np.testing.assert_array_equal(frozen.forward(IMAGES), net.forward(IMAGES))
    assert "stage1.block1.body.conv1" in layer_outputs(frozen, IMAGES)


@pytest.mark.parametrize(
    ("parts", "norms", "message"),
    [
        (("stag1",), "train", "no part 'stag1' to freeze: its parts are conv, bn, .*stage1"),
        (("conv", "bn", "stage1", "stage2", "stage3", "fc"), "train", "nothing left to train"),
        ((), "cold", "must be one of train, frozen"),
    ],
)
def test_what_cannot_be_frozen_is_refused(parts, norms, message):
    with pytest.raises(InputError, match=message):
        freeze(small(), parts, norms)


def test_a_new_head_keeps_its_initial_weights_and_the_rest_is_loaded():
    trained, net = small(10, rng=1), small(3, rng=2)
    head = net.parameters()["fc.w"].copy()
    start_from(net, trained.state(), "new")
    np.testing.assert_array_equal(net.parameters()["fc.w"], head)
    for name, value in trained.state().items():
        if not name.startswith("fc."):
            np.testing.assert_array_equal(net.state()[name], value)


def test_a_head_of_other_classes_is_refused_with_advice():
    with pytest.raises(InputError, match="--head new"):
        start_from(small(3), small(10).state())


# ------------------------------------------------------------------------------------------ runs


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Weights of a resnet8 as a file."""
    path = tmp_path_factory.mktemp("weights") / "resnet8.safetensors"
    net = with_statistics(resnet(8, rng=5))
    path.write_bytes(exchange.to_bytes(net))
    return path


FREEZE = ("conv", "bn", "stage1")


@pytest.fixture
def tuned(tiny):
    return replace(tiny, weights="0" * 64, head="new", freeze=FREEZE, bn="frozen", lr=0.01)


def bits(folder):
    arrays, _ = checkpoint.load(folder)
    return {name: a.tobytes() for name, a in arrays.items()}


def test_a_run_starts_from_weights_and_leaves_frozen_parts_as_they_are(
    tuned, shapes, tmp_path, file
):
    loaded, _ = exchange.load_network("resnet8", file)
    train(tuned, tmp_path, shapes, weights=loaded.state())
    after = checkpoint.load_weights(tmp_path)
    fresh = initial_net(tuned).state()
    for name, value in loaded.state().items():
        norm = name.rpartition(".")[2] in ("gamma", "beta", "running_mean", "running_var")
        same = name.startswith(tuple(f"{part}." for part in FREEZE)) or norm
        assert (value.tobytes() == after[name].tobytes()) == same, name
    # six steps of a small rate stay near the initial weights of the new last layer
    assert abs(after["fc.w"] - fresh["fc.w"]).max() < 0.1 < abs(fresh["fc.w"]).max()


def test_a_fine_tuned_run_is_killed_and_resumed_to_the_same_bits_without_the_file(
    tuned, shapes, tmp_path, file, monkeypatch
):
    loaded = exchange.load_network("resnet8", file)[0].state()
    train(tuned, tmp_path / "whole", shapes, weights=loaded)

    class KilledError(Exception):
        pass

    def kill(progress):
        if progress.iteration == 4:
            raise KilledError

    for seconds in (1e9, 0.0):  # killed before the first checkpoint of its own, and after it
        monkeypatch.setattr(run_state, "CHECKPOINT_SECONDS", seconds)
        with pytest.raises(KilledError):
            train(tuned, tmp_path / "killed", shapes, kill, weights=loaded)
    train(tuned, tmp_path / "killed", shapes)
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


def test_a_recipe_with_weights_needs_them(tuned, shapes, tmp_path):
    with pytest.raises(InputError, match="give them with --weights FILE"):
        train(tuned, tmp_path, shapes)


def test_a_new_head_without_weights_is_refused(tiny):
    with pytest.raises(InputError, match="give --weights FILE"):
        replace(tiny, head="new")


def test_the_command_line_records_what_a_run_starts_from(
    run_cli, monkeypatch, shapes, tmp_path, file
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minires.data.shapes10.dataset", lambda **_: shapes)
    words = ("train", "resnet8", "--dataset", "shapes10", "--iterations", 2, "--eval-images", 8)
    words += ("--backend", "numpy", "--batch-size", 4, "--out", "run", "--quiet")
    tuning = ("--weights", file, "--freeze", "conv,bn,stage1", "--bn", "frozen", "--head", "new")
    assert run_cli(*words, *tuning)[0] == 0
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert config["freeze"] == ["conv", "bn", "stage1"]
    assert (config["bn"], config["head"], len(config["weights"])) == ("frozen", "new", 64)
    assert Config.from_json(config) == Config.from_json(read_run(tmp_path / "run").config)
    assert run_cli("resume", "run")[0] == 0
    assert run_cli("report", "run")[0] == 0
    assert "--freeze conv,bn,stage1 --bn frozen" in (tmp_path / "run/report.html").read_text()
    code, _, err = run_cli(*words, "--weights", file, "--head", "new")
    assert code == 2
    assert "holds another run" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--freeze", "stage9"), "no part 'stage9' to freeze"),
        (("--head", "new"), "give --weights"),
        (("--bn", "cold"), "--bn must be one of train, frozen"),
    ],
)
def test_senseless_tuning_is_refused_before_anything_is_compiled(
    run_cli, monkeypatch, shapes, tmp_path, options, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minires.data.shapes10.dataset", lambda **_: shapes)
    monkeypatch.setattr("minires.cli.train.compile_kernels", lambda *_: pytest.fail("compiled"))
    words = ("train", "resnet8", "--dataset", "shapes10", "--iterations", 2, "--eval-images", 8)
    code, _, err = run_cli(*words, *options)
    assert code == 2
    assert message in err
    assert not list(tmp_path.rglob("config.json"))


def test_weights_of_another_network_are_refused_by_name(run_cli, monkeypatch, tmp_path, file):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_cli("train", "resnet14", "--dataset", "shapes10", "--weights", file)
    assert code == 2
    assert "resnet8" in err
