"""A network is known by its facts, and names are read in one place, without building anything."""

import importlib
import json
import re
import sys

import pytest

import minires
from minires import InputError, imagenet_plain, imagenet_resnet, ops, plain, plugins, resnet
from minires.nets import registry
from minires.nets.network import MOST_LAYERS, Facts
from minires.optim import paper_warmup

BUILT = {
    "plain20": lambda: plain(20),
    "resnet56": lambda: resnet(56),
    "resnet20B": lambda: resnet(20, "B"),
    "imagenet-resnet18": lambda: imagenet_resnet(18),
    "imagenet-resnet50A": lambda: imagenet_resnet(50, "A"),
    "imagenet-resnet50-torchvision": lambda: imagenet_resnet(50, "-torchvision"),
    "imagenet-plain18": lambda: imagenet_plain(18),
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
    facts = Facts("zfnet", "zfnet", 8, (224, 224, 3), 1000)
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


# ------------------------------------------------------------------------------------ absurd depths


@pytest.mark.parametrize("depth", [10_004, 99_998, 99_999_998, 10**30 + 4])
@pytest.mark.parametrize("build", [plain, resnet, lambda depth: registry.by_name(f"plain{depth}")])
def test_an_absurd_depth_is_refused_before_anything_is_built(monkeypatch, depth, build):
    monkeypatch.setattr(
        "minires.layers.base.Layer.__init__", lambda self: pytest.fail("a layer was built")
    )
    with pytest.raises(InputError, match=r"depth|layers"):
        build(depth)


def test_the_message_about_an_absurd_depth_names_the_limit_and_the_reason():
    with pytest.raises(InputError, match=r"at most 10,000 layers.*memory.*99999998.*smaller"):
        registry.facts("plain99999998")


def test_a_depth_of_thousands_of_digits_is_refused_in_a_short_line():
    with pytest.raises(InputError, match="a number of 5000 digits") as error:
        registry.facts(f"resnet{'9' * 5000}")
    assert len(str(error.value)) < 300


def test_the_papers_deepest_network_and_the_limit_itself_are_known():
    assert registry.facts("resnet1202").depth == 1202
    assert Facts("a", "a", MOST_LAYERS).depth == MOST_LAYERS
    assert registry.facts("plain0020").depth == 20


def test_recorded_facts_of_an_absurd_depth_are_refused():
    with pytest.raises(InputError, match="at most"):
        Facts.from_json(registry.facts("plain20").to_json() | {"depth": MOST_LAYERS + 1})


# ------------------------------------------------------------------------------------- wrong types


def nothing(*_):
    return None


@pytest.mark.parametrize(
    "call",
    [
        lambda: registry.register(5, nothing, nothing),
        lambda: registry.register("", nothing, nothing),
        lambda: registry.register("mine", "resnet", nothing),
        lambda: registry.register("mine", nothing, None),
        lambda: registry.register("mine", nothing, nothing, 5),
        lambda: registry.facts(20),
        lambda: registry.by_name(None),
        lambda: Facts.from_json([1, 2]),
        lambda: ops.register(5, {}),
        lambda: ops.register("", {}),
        lambda: ops.register("mine", 5),
        lambda: ops.register("mine", [nothing]),
        lambda: ops.register("mine", {"square_forward": 5}),
        lambda: ops.register("mine", {5: nothing}),
        lambda: ops.register("mine", {"square_forward": nothing}, 5),
    ],
)
def test_a_wrong_type_is_refused_in_words_and_registers_nothing(call):
    families, pages = dict(registry.FAMILIES), dict(ops._registered)
    with pytest.raises(InputError, match=r"expected|must be"):
        call()
    assert families == registry.FAMILIES
    assert pages == ops._registered


@pytest.mark.parametrize("result", [5, "resnet20", ("resnet", 20)])
def test_functions_of_a_family_that_return_something_else_are_named(result):
    registry.register("mine", lambda name: result if name == "mine8" else None, nothing)
    try:
        with pytest.raises(InputError, match="parse of the family 'mine' must return Facts"):
            registry.facts("mine8")
        with pytest.raises(InputError, match="make of the family 'mine' must return a Network"):
            registry.make(Facts("mine8", "mine", 8))
    finally:
        registry.unregister("mine")


def test_an_unknown_name_is_shown_cut_and_with_the_way_to_a_network_of_ones_own():
    with pytest.raises(InputError, match="--plugin FILE") as error:
        registry.facts("x" * 10_000)
    assert len(str(error.value)) < 500


# ----------------------------------------------------------------------------------------- plugins


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(plugins, "LOADED", [])

    def load(text, name="mine.py"):
        file = tmp_path / name
        file.write_text(text)
        plugins.load(file)
        return file

    yield load
    for name in [name for name in sys.modules if name.startswith("minires_plugin_mine")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("x = 1\n\n1 / 0\n", 3, "ZeroDivisionError: division by zero"),
        ("x = 1\ny = (\n", 2, "SyntaxError"),
        ("def f():\n    import no_such_module\nf()\n", 2, "ModuleNotFoundError"),
        ("\n\nimport sys\nsys.exit(0)\n", 4, "calls sys.exit"),
        ("raise SystemExit\n", 1, "calls sys.exit"),
        ("raise EOFError\n", 1, "EOFError"),
        ("raise GeneratorExit\n", 1, "GeneratorExit"),
        ("import json\njson.loads('[')\n", 2, "JSONDecodeError"),
        ("raise ValueError('one\\ntwo')\n", 1, "ValueError: one two"),
        ("from minires.nets import registry\nregistry.register(1, 2, 3)\n", 2, "InputError"),
    ],
)
def test_a_plugin_that_fails_is_named_with_its_line(plugin, tmp_path, text, line, words):
    with pytest.raises(InputError) as error:
        plugin(text)
    assert f"{tmp_path / 'mine.py'}, line {line} " in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert plugins.LOADED == []
    assert "minires_plugin_mine" not in sys.modules


def test_ctrl_c_while_a_plugin_is_imported_is_no_fault_of_the_plugin(plugin):
    with pytest.raises(KeyboardInterrupt):
        plugin("raise KeyboardInterrupt")


def test_a_run_that_was_recorded_with_a_plugin_needs_it(plugin):
    for damaged in ([], None, 5, "mine.py"):
        plugins.require(damaged, "resume run")
    plugin("")
    plugins.require(["mine.py"], "resume run")
    with pytest.raises(InputError, match=re.escape("minires --plugin other.py resume run")):
        plugins.require(["mine.py", "other.py"], "resume run")


def test_the_pytorch_twin_refuses_wrong_types_in_words():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    twin = importlib.import_module("minires.exchange.torch_twin")
    before = dict(twin.MODULES)
    for layer, make in ((5, nothing), ("ReLU", nothing), (minires.nets.resnet.ReLU, 5)):
        with pytest.raises(InputError, match=r"expected a class|must be a function"):
            twin.register(layer, make)
    assert before == twin.MODULES


def test_a_pytorch_that_cannot_be_imported_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libtorch.so:\\n no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [m for m in sys.modules if m.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "minires.exchange.torch_twin", raising=False)
    with pytest.raises(InputError, match=r"PyTorch cannot be imported .*no such file"):
        importlib.import_module("minires.exchange.torch_twin")
