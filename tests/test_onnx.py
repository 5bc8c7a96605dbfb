"""ONNX: the same logits in onnxruntime, and the same weights back."""

import builtins
import importlib.util
import json
import os
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import toys

from minires import InputError, resnet
from minires.exchange import weights
from minires.layers import Conv2d, GlobalAvgPool, Layer, Linear
from minires.nets import registry
from minires.nets.fuse import fuse
from minires.nets.network import Facts, Network

installed = all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))) or os.environ.get("CI")
needs_onnx = pytest.mark.skipif(not installed, reason="ONNX is optional: pip install -e '.[onnx]'")


@pytest.fixture
def exchange_onnx():
    from minires.exchange import onnx

    return onnx


def trained(net):
    """The network with scales, shifts, means and variances that are not 1 and 0."""
    rng = np.random.default_rng(3)
    state = net.state()
    for name, a in state.items():
        leaf = name.rpartition(".")[2]
        if leaf in ("gamma", "running_var"):
            a[...] = rng.uniform(0.5, 1, a.shape)
        elif leaf in ("beta", "running_mean", "b"):
            a[...] = 0.1 * rng.standard_normal(a.shape)
    return net.load_state(state)


NETWORKS = ["resnet20", "resnet56B", "plain8", "imagenet-resnet18", "imagenet-resnet50"]
NETWORKS += ["alexnet", "alexnet-cifar-tanh", "vgg16"]


@needs_onnx
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_runs_in_onnxruntime_and_its_weights_come_back_bit_for_bit(
    exchange_onnx, tmp_path, name
):
    facts = registry.facts(name)
    side = min(facts.input_shape[0], 67 if "alexnet" in name else 64)
    facts = registry.fit(facts, (side, side, 3), facts.classes)
    net = trained(registry.make(facts, rng=1))
    path = tmp_path / "net.onnx"
    content = weights.to_bytes(net, kind="onnx", pictures={"image_size": side})
    assert exchange_onnx.check_in_onnxruntime(net, content) < 1e-5
    path.write_bytes(content)
    found, about = weights.load_network(name, path)
    assert (about["kind"], about["net"], about["image_size"]) == ("onnx", name, side)
    for key, a in net.state().items():
        np.testing.assert_array_equal(found.state()[key], a, strict=True)


@needs_onnx
def test_a_model_has_ir_10_opset_21_and_images_with_channels_last(exchange_onnx):
    import onnx

    model = onnx.load_model_from_string(weights.to_bytes(resnet(8), kind="onnx"))
    assert (model.ir_version, [o.version for o in model.opset_import]) == (10, [21])
    (images,) = model.graph.input
    (logits,) = model.graph.output
    sides = [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim]
    assert (images.name, sides) == ("images", ["N", 32, 32, 3])
    sides = [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim]
    assert (logits.name, sides) == ("logits", ["N", 10])
    kinds = [node.op_type for node in model.graph.node]
    assert (kinds.count("Slice"), kinds.count("Pad")) == (2, 2)  # option A, twice


@needs_onnx
@pytest.mark.parametrize("opset", [13, 18, 22])
def test_other_opsets_give_the_same_logits(exchange_onnx, opset):
    net = resnet(8, rng=2)
    assert exchange_onnx.check_in_onnxruntime(net, exchange_onnx.to_bytes(net, opset=opset)) < 1e-5


@needs_onnx
@pytest.mark.parametrize("opset", [12, 10_000, "21", True])
def test_an_unknown_opset_is_refused_when_writing(exchange_onnx, opset):
    with pytest.raises(InputError, match=r"opset must be from 13 to \d+.*21 is a safe choice"):
        exchange_onnx.to_bytes(resnet(8), opset=opset)


@pytest.fixture
def changed(tmp_path):
    """Write a model after a change; returns the path."""
    import onnx

    def write(change):
        model = onnx.load_model_from_string(weights.to_bytes(resnet(8), kind="onnx"))
        change(model)
        path = tmp_path / "changed.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


def unknown_opset(model):
    model.opset_import[0].version = 10_000


def unknown_domain(model):
    model.opset_import.add(domain="com.example", version=1)


def external(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="../secret")


def of_others(model):
    model.ClearField("metadata_props")


@needs_onnx
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unknown_opset, r"changed.onnx has opset 10000, expected one from 13 to \d+"),
        (unknown_domain, "operators of com.example"),
        (external, "arrays in other files"),
        (of_others, "ONNX of another program"),
    ],
)
def test_models_that_were_not_written_here_are_refused(changed, change, message):
    with pytest.raises(InputError, match=message):
        weights.read(changed(change))


@needs_onnx
def test_wrong_logits_in_onnxruntime_are_noticed(exchange_onnx):
    content = exchange_onnx.to_bytes(resnet(8, rng=1))
    with pytest.raises(InputError, match="differs from resnet8 by"):
        exchange_onnx.check_in_onnxruntime(resnet(8, rng=2), content)


@needs_onnx
def test_a_fused_network_is_written_too(exchange_onnx):
    net = trained(resnet(8, rng=1))
    content = exchange_onnx.to_bytes(fuse(resnet(8).load_state(net.state())))
    assert exchange_onnx.check_in_onnxruntime(net, content) < 1e-5


class Double(Layer):
    def forward(self, x, train=False):
        return x + x


@needs_onnx
def test_unknown_layers_are_refused_until_they_are_registered(exchange_onnx, monkeypatch):
    monkeypatch.setattr(exchange_onnx, "WRITERS", dict(exchange_onnx.WRITERS))
    layers = {"conv": Conv2d(3, 4, rng=1), "double": Double(), "pool": GlobalAvgPool()}
    net = Network(Facts("mine", "mine", 2, (8, 8, 3), 2), **layers, fc=Linear(4, 2, rng=1))
    with pytest.raises(InputError, match=r"no ONNX operators are known for the layer Double"):
        exchange_onnx.to_bytes(net)
    exchange_onnx.register(Double, lambda graph, layer, name, x: graph.node("Add", [x, x], name))
    assert exchange_onnx.check_in_onnxruntime(net, exchange_onnx.to_bytes(net)) < 1e-5
    for wrong in ((Layer, print), (int, print), (toys.SoftShrink, None)):
        with pytest.raises(InputError):
            exchange_onnx.register(*wrong)


def test_minires_itself_needs_neither_torch_nor_onnx():
    path = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    assert not [need for need in project["dependencies"] if "torch" in need or "onnx" in need]
    extras = project["optional-dependencies"]
    assert any("onnxruntime" in need for need in extras["onnx"])
    assert any("torchvision" in need for need in extras["peers"])


def test_without_the_extra_the_command_says_what_to_install(monkeypatch, tmp_path, run_cli):
    path = tmp_path / "net"
    path.write_bytes(weights.to_bytes(resnet(8)))
    monkeypatch.delitem(sys.modules, "minires.exchange.onnx", raising=False)
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] in ("onnx", "onnxruntime"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delattr("minires.exchange.onnx", raising=False)
    out = tmp_path / "net.onnx"
    command = ("weights", "convert", path, "--net", "resnet8", "--to", "onnx", "--out", out)
    code, _, err = run_cli(*command)
    assert code == 2
    assert 'pip install -e ".[onnx]"' in err
    assert not out.exists()


@needs_onnx
def test_the_command_converts_to_onnx_and_back(run_cli, tmp_path):
    paths = [tmp_path / name for name in ("a", "b.onnx", "c.safetensors")]
    paths[0].write_bytes(weights.to_bytes(resnet(8, rng=4)))
    words = ("weights", "convert", paths[0], "--net", "resnet8", "--to", "onnx", "--out", paths[1])
    code, out, _ = run_cli(*words)
    assert code == 0
    assert "onnxruntime: logits within" in out
    code, out, _ = run_cli(
        "weights", "convert", paths[1], "--net", "resnet8", "--out", paths[2], "--json"
    )
    assert (code, json.loads(out)["to"]) == (0, "safetensors")
    first, last = (weights.read(path).state for path in (paths[0], paths[2]))
    assert all(np.array_equal(first[key], last[key]) for key in first)
