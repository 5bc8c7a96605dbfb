"""A network is known by its facts, and names are read in one place, without building anything."""

import importlib
import json

import pytest

import minires
from minires import InputError, imagenet_resnet, plain, resnet
from minires.nets import registry
from minires.nets.network import Facts
from minires.optim import paper_warmup

BUILT = {
    "plain20": lambda: plain(20),
    "resnet56": lambda: resnet(56),
    "resnet20B": lambda: resnet(20, "B"),
    "imagenet-resnet18": lambda: imagenet_resnet(18),
    "imagenet-resnet50A": lambda: imagenet_resnet(50, "A"),
}


@pytest.mark.parametrize("name", BUILT)
def test_the_facts_of_a_name_are_those_of_the_network_that_it_builds(name):
    assert registry.facts(name) == BUILT[name]().facts
    assert registry.by_name(name).facts == registry.facts(name)


def test_reading_a_name_builds_no_network(monkeypatch):
    monkeypatch.setattr(
        "minires.layers.base.Layer.__init__", lambda self: pytest.fail("a layer was built")
    )
    assert registry.facts("resnet-110").name == "resnet110"
    assert registry.facts(" imagenet-resnet-152 ").depth == 152


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain20", ("plain", 20, (32, 32, 3), 10, "", "plain")),
        ("resnet32B", ("resnet", 32, (32, 32, 3), 10, "B", "resnetB")),
        ("resnet20A", ("resnet", 20, (32, 32, 3), 10, "", "resnet")),
        ("imagenet-resnet50", ("imagenet-resnet", 50, (224, 224, 3), 1000, "", "imagenet-resnet")),
    ],
)
def test_facts_say_family_depth_input_classes_and_variant(name, expected):
    f = registry.facts(name)
    assert (f.family, f.depth, f.input_shape, f.classes, f.variant, f.kind) == expected
    assert "1512.03385" in f.paper


def test_facts_survive_json():
    facts = registry.facts("resnet20B")
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


@pytest.mark.parametrize(
    "change",
    [
        {"depth": "20"},
        {"depth": True},
        {"depth": 0},
        {"classes": None},
        {"classes": -1},
        {"input_shape": [32, "32", 3]},
        {"input_shape": []},
        {"more": 1},
        {"name": 5},
    ],
)
def test_facts_of_other_types_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        Facts.from_json(registry.facts("plain20").to_json() | change)


def test_an_unknown_name_says_what_every_family_expects():
    with pytest.raises(InputError) as error:
        registry.facts("densenet121")
    for word in ("densenet121", "plainN", "resnetNB", "imagenet-resnetN"):
        assert word in str(error.value)


def test_a_family_that_is_not_registered_is_refused_with_the_way_to_register_it():
    facts = Facts("alexnet", "alexnet", 8, (227, 227, 3), 1000)
    with pytest.raises(InputError, match="--plugin"):
        registry.make(facts)


def test_the_papers_warm_up_depends_on_depth_not_on_digits_of_a_name():
    assert paper_warmup(registry.facts("resnet110").depth, 0.1) == 0.01
    assert paper_warmup(registry.facts("resnet56").depth, 0.1) is None
    # version 1 read 121 out of "densenet121", and no number out of "alexnet"
    assert paper_warmup(Facts("alexnet", "alexnet", 8).depth, 0.1) is None


def test_resnet_is_a_function_and_no_module_hides_behind_its_name():
    assert callable(minires.resnet)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("minires.resnet")
    assert importlib.import_module("minires.nets.resnet").ResidualBlock
