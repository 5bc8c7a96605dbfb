"""Every hyper-parameter is declared once; commands, recipe line and names are made from that."""

import multiprocessing
import re
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires import InputError, data
from minires.cli import experiment
from minires.cli import options as cli_options
from minires.cli import train as train_commands
from minires.lab import commands, degradation, presets
from minires.lab.recorded import by_net, find_runs
from minires.nets import registry
from minires.nets.initialise import initialise
from minires.runs import options
from minires.runs.config import OPTIONS, Config, in_words
from minires.runs.metric import ERROR
from minires.runs.run import Run
from minires.train import state, step
from minires.train.loop import initial_net, train

TYPED = [name for name, row in OPTIONS.items() if row.option.help]
RARE = {"bn_images", "pca_colour", "plateau", "shards", "image_size", "normalise", "bn", "until"}
RARE |= {"task", "bn_average"}


def test_every_field_of_config_is_a_row_of_the_table():
    assert list(OPTIONS) == [f.name for f in fields(Config)]
    assert {"momentum", "weight_decay", "milestones", "init", "subtract_mean", "task"} <= {*TYPED}


def test_rows_of_the_table_and_recipes_cannot_be_changed(tiny):
    for fixed in (OPTIONS["lr"], OPTIONS["lr"].option, tiny):
        with pytest.raises(FrozenInstanceError):
            setattr(fixed, fields(fixed)[0].name, None)


def test_rare_settings_are_left_to_the_long_help(run_cli):
    code, out, _ = run_cli("degradation", "--help")
    assert code == 0
    flags = {name: OPTIONS[name].flag.split("/")[0] for name in TYPED}
    listed = {name for name, flag in flags.items() if re.search(rf"{flag}\b", out)}
    assert {*TYPED} - listed == RARE


@pytest.mark.parametrize("command", ["train", "degradation"])
def test_every_row_is_an_option_of_both_training_commands(run_cli, command):
    code, out, _ = run_cli(command, "--help-all")
    assert code == 0
    for name in TYPED:
        for flag in OPTIONS[name].flag.split("/"):
            assert re.search(rf"{flag}\b", out), flag


recipes = st.fixed_dictionaries(
    {},
    optional={
        "iterations": st.sampled_from([280, 300, 2000]),
        "batch_size": st.sampled_from([16, 64]),
        "lr": st.sampled_from([0.01, 0.1, 0.25]),
        "milestones": st.sampled_from([(), (100, 150), (5, 280)]),
        "warmup_lr": st.sampled_from([0.01, 0.001]),
        "momentum": st.sampled_from([0.0, 0.9]),
        "weight_decay": st.sampled_from([0.0, 1e-4, 5e-4]),
        "augment": st.booleans(),
        "eval_every": st.sampled_from([70, 140]),
        "eval_images": st.sampled_from([16, 512]),
        "bn_images": st.just(0),
        "init": st.sampled_from(["he", "normal"]),
        "subtract_mean": st.booleans(),
        "pca_colour": st.booleans(),
        "plateau": st.sampled_from([1, 3]),
        "shards": st.sampled_from([1, 4]),
        "normalise": st.sampled_from(["per-pixel-mean", "imagenet"]),
        "freeze": st.sampled_from([(), ("conv", "stage1")]),
        "bn": st.sampled_from(["train", "frozen"]),
        "backend": st.sampled_from(["numpy", "numba"]),
    },
)


@pytest.fixture
def understood(monkeypatch, run_cli, shapes_like, tmp_path):
    """Type a training command; returns the recipe that it asks for, without training."""
    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data.shapes10, "dataset", lambda **_: shapes_like)
    monkeypatch.setattr(train_commands, "run_one", lambda config, *_: seen.append(config))
    monkeypatch.setattr(degradation, "run", lambda nets, seeds, base, *_, **__: seen.append(base))
    monkeypatch.setattr(cli_options, "prepare", lambda *_: None)  # nothing is compiled
    monkeypatch.setattr(experiment, "show", lambda *_, **__: None)
    monkeypatch.setattr(experiment, "print_claims", lambda *_, **__: None)

    def understand(command):
        code, _, err = run_cli(*command.split()[1:])
        assert code == 0, err
        return seen.pop()

    return understand


@given(asked=recipes, seeds=st.sampled_from([(0,), (1,), (0, 1)]))
def test_the_command_that_repeats_a_run_gives_its_recipe(understood, shapes_like, asked, seeds):
    config = presets.base_config(shapes_like, "quick", net="plain8", **asked)
    runs = [recorded(replace(config, seed=seed), registry.facts("plain8")) for seed in seeds]
    for command in commands.commands(runs):
        again = replace(understood(command), net="plain8", seed=0)
        assert again == config


@pytest.fixture(scope="module")
def shapes_like():
    """Enough images for every preset of the recipes above."""
    return data.shapes10.dataset(train=2048, test=600)


def recorded(config, facts):
    origin = {"name": config.dataset, "sha256": "0" * 64}
    done = [{"iteration": config.iterations, "train_error": 0.5, "test_error": 0.5, "seconds": 1}]
    folder = Path(f"seed{config.seed}")
    config = config.to_json()
    return Run(folder, config, facts, ERROR, origin, {}, [], done, done, [])


def test_runs_that_differ_in_a_new_option_have_it_in_their_names(shapes_like):
    facts = registry.facts("plain8")
    base = presets.base_config(shapes_like, "quick", net="plain8")
    changes = ({}, {"momentum": 0.0}, {"subtract_mean": False}, {"init": "normal"})
    runs = [recorded(replace(base, **change), facts) for change in changes]
    names = list(by_net(runs))
    assert len(names) == 4
    assert any("momentum 0.0" in name for name in names)
    assert any("no mean subtracted" in name for name in names)
    assert any("init normal" in name for name in names)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("iterations", 280, "280 iterations"),
        ("batch_size", 64, "batch 64"),
        ("lr", 0.1, "lr 0.1"),
        ("warmup_lr", None, "no warm-up"),
        ("warmup_lr", 0.01, "warm-up 0.01"),
        ("augment", True, "crops and flips"),
        ("augment", False, "no crops and flips"),
        ("bn_images", 0, "moving averages"),
        ("bn_images", 5000, "recomputed statistics"),
        ("subtract_mean", True, "mean subtracted"),
        ("subtract_mean", False, "no mean subtracted"),
        ("pca_colour", True, "colour shifts"),
        ("pca_colour", False, "no colour shifts"),
        ("plateau", None, "no plateau"),
        ("plateau", 3, "plateau of 3 epochs"),
        ("shards", 4, "batches in 4 parts"),
        ("image_size", None, "images of the data's size"),
        ("image_size", 64, "images of 64 pixels"),
        ("weights", "", "random weights"),
        ("weights", "0123456789abcdef", "weights 0123456789ab"),
        ("head", "new", "new last layer"),
        ("freeze", (), "nothing frozen"),
        ("freeze", ("conv", "stage1"), "conv, stage1 frozen"),
        ("bn", "train", "batch norm trained"),
        ("bn", "frozen", "batch norm frozen"),
        ("until", None, "to the last iteration"),
        ("until", 0.25, "until 0.25"),
        ("bn_average", "batches", "statistics averaged over batches"),
        ("weight_decay", 0.5, "weight decay 0.5"),
    ],
)
def test_a_setting_has_words_for_runs_that_differ_by_it(name, value, words):
    assert OPTIONS[name].words(value) == words


def test_the_recipe_line_says_what_is_not_as_usual(tiny):
    usual = "6 iterations, batch 4, lr 0.1, with crops and flips, numpy backend"
    assert in_words(tiny) == usual
    changed = replace(tiny, momentum=0.5, warmup_lr=0.02, milestones=(3,), init="normal")
    line = in_words(changed)
    for words in ("lr 0.1 after a warm-up at 0.02", "momentum 0.5", "init normal", "milestones"):
        assert words in line


def test_settings_with_words_of_their_own_come_first_in_the_names_of_runs(tiny):
    listed = [*options.settings_in_words(OPTIONS, tiny.to_json())]
    own = [name for name in listed if OPTIONS[name].option.words]
    assert listed[: len(own)] == own
    assert {*listed} == {*OPTIONS} - {"net", "dataset", "seed"}
    assert listed.index("warmup_lr") < listed.index("momentum") < listed.index("weight_decay")


def test_lists_are_typed_with_commas_or_as_none():
    assert options.integers("1000, 1500") == (1000, 1500)
    assert options.names("stage1, conv") == ("stage1", "conv")
    assert options.integers("none") == options.names(" none ") == ()
    for text in ("", "1,,2", "-1", "1.5", "a", "None"):
        with pytest.raises(InputError, match="numbers such as 1000,1500, or none"):
            options.integers(text)
    for text in ("", "conv,,bn", "conv,"):
        with pytest.raises(InputError, match="names such as conv,bn,stage1, or none"):
            options.names(text)


VERSION_1 = {
    "net": "plain8", "dataset": "shapes10", "iterations": 6, "batch_size": 4, "lr": 0.1,
    "milestones": [2, 4], "warmup_lr": None, "momentum": 0.9, "weight_decay": 1e-4, "seed": 0,
    "augment": True, "eval_every": 3, "eval_images": 16, "bn_images": 16, "backend": "numpy",
}  # fmt: skip


def test_a_recipe_of_version_1_is_read_with_what_that_version_did():
    since = {"init": "he", "subtract_mean": True, "pca_colour": False, "plateau": None}
    since |= {"shards": 1, "image_size": None, "normalise": "per-pixel-mean", "weights": ""}
    since |= {"head": "keep", "freeze": [], "bn": "train", "until": None}
    since |= {"task": "classification", "bn_average": "batches"}
    assert Config.from_json(VERSION_1).to_json() == VERSION_1 | since


def test_a_recipe_with_other_settings_names_those_that_are_missing_or_unknown():
    values = {name: v for name, v in VERSION_1.items() if name not in ("lr", "seed")}
    with pytest.raises(InputError) as e:
        Config.from_json(values | {"speed": 1})
    advice = "It was written by another version; train into another folder"
    assert str(e.value).endswith(f"; differing: ['lr', 'seed', 'speed']. {advice}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"iterations": 10**5000}, "at least 1 and below 2^63, got an integer of thousands of"),
        ({"iterations": 0}, "iterations must be an integer of at least 1"),
        ({"batch_size": 1}, "batch_size must be an integer of at least 2"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"seed": True}, "seed must be an integer of at least 0"),
        ({"eval_every": 0}, "eval_every must be an integer of at least 1"),
        ({"bn_images": -1}, "bn_images must be an integer of at least 0"),
        ({"plateau": 0}, "plateau must be an integer of at least 1"),
        ({"image_size": 7}, "image_size must be an integer of at least 8"),
        ({"shards": 3}, "shards must divide the batch size 4, got 3"),
        ({"lr": True}, "lr must be a number, got True"),
        ({"lr": 0.0}, "lr must be a positive number, got 0.0; the paper's is 0.1"),
        ({"lr": float("inf")}, "lr must be a positive number"),
        ({"warmup_lr": -0.1}, "warmup_lr must be a positive number, got -0.1; the paper's is 0.01"),
        ({"warmup_lr": "low"}, "warmup_lr must be a number, got 'low'"),
        ({"until": "low"}, "until must be a number, got 'low'"),
        ({"momentum": -0.1}, "momentum must lie in [0, 1)"),
        ({"momentum": 1.0}, "momentum must lie in [0, 1)"),
        ({"weight_decay": -1e-9}, "weight_decay must be at least 0"),
        ({"weight_decay": float("inf")}, "weight_decay must be at least 0"),
        ({"milestones": [1, 2]}, "milestones must be integers from 0 to the 6 iterations"),
        ({"milestones": (1, 7)}, "milestones must be integers from 0 to the 6 iterations"),
        ({"milestones": (-1,)}, "milestones must be integers from 0 to the 6 iterations"),
        ({"milestones": (True,)}, "milestones must be integers from 0 to the 6 iterations"),
        ({"milestones": (2, 2)}, "milestones must rise"),
        ({"augment": 1}, "augment must be true or false, got 1"),
        ({"net": ""}, "net must be a name, got ''"),
        ({"dataset": 5}, "dataset must be a name, got 5"),
        ({"weights": None}, "weights must be a SHA-256, got None"),
        ({"freeze": ["conv"]}, "freeze must be names of parts"),
        ({"freeze": ("conv", "")}, "freeze must be names of parts"),
        ({"freeze": (5,)}, "freeze must be names of parts"),
        ({"head": "new"}, "a new last layer needs weights for the others"),
        ({"bn": "none"}, "bn must be one of train, frozen, got 'none'"),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_named_with_what_was_expected(tiny, change, words):
    with pytest.raises(InputError) as e:
        replace(tiny, **change)
    assert words in str(e.value)


def test_values_at_the_bounds_make_sense(tiny):
    least = {"iterations": 1, "batch_size": 2, "eval_every": 1, "eval_images": 1, "bn_images": 0}
    least |= {"plateau": 1, "image_size": 8, "momentum": 0.0, "weight_decay": 0.0}
    replace(tiny, **least)
    replace(tiny, milestones=(0, tiny.iterations), head="new", weights="0" * 64, shards=4)


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("--init", "zeros"), "he, normal"),
        (("--momentum", 1.0), r"\[0, 1\)"),
        (("--weight-decay", -1.0), "at least 0"),
        (("--milestones", "a,b"), "1000,1500, or none"),
        (("--milestones", "2,1"), "must rise"),
        (("--milestones", 9), "from 0 to the 2 iterations"),
        (("--milestones", "9" * 20), "from 0 to the 2 iterations"),
        (("--task", "regression"), "unknown task"),
    ],
)
def test_senseless_options_are_refused(run_cli, shapes, monkeypatch, tmp_path, words, advice):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data.shapes10, "dataset", lambda **_: shapes)
    code, _, err = run_cli(
        "train", "plain8", "--dataset", "shapes10", "--iterations", 2, "--eval-images", 8, *words
    )
    assert code == 2
    assert re.search(advice, err)


def test_momentum_and_weight_decay_reach_the_optimizer(tiny, shapes, tmp_path, monkeypatch):
    seen = []

    class Spy(state.SGD):
        def __init__(self, parameters, momentum, weight_decay):
            seen.append((momentum, weight_decay))
            super().__init__(parameters, momentum, weight_decay)

    monkeypatch.setattr(state, "SGD", Spy)
    train(replace(tiny, momentum=0.25, weight_decay=0.5, iterations=1), tmp_path, shapes)
    assert seen == [(0.25, 0.5)]


def test_without_the_mean_the_network_sees_scaled_images(tiny, shapes, tmp_path, monkeypatch):
    seen = []
    real = step.train_step

    def spy(net, optimizer, x, labels, lr):
        seen.append(x.copy())
        return real(net, optimizer, x, labels, lr)

    monkeypatch.setattr(step, "train_step", spy)
    config = replace(tiny, subtract_mean=False, augment=False, iterations=1)
    train(config, tmp_path, shapes)
    rows = data.batch_indices(0, 0, 4, len(shapes.train))
    expected = shapes.train.images[rows].astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(seen[0], expected)


def test_the_initial_weights_of_a_run_are_those_that_it_names(tiny):
    he = initial_net(tiny).parameters()
    normal = initial_net(replace(tiny, init="normal")).parameters()
    weights = np.concatenate([w.ravel() for name, w in normal.items() if name.endswith("w")])
    assert abs(weights.std() - 0.01) < 5 * 0.01 / np.sqrt(2 * weights.size)
    assert not np.array_equal(he["conv.w"], normal["conv.w"])
    rng = data.stream(tiny.seed, "weights", 0)
    again = initialise(registry.by_name(tiny.net), "normal", rng).parameters()
    assert all(np.array_equal(again[name], w) for name, w in normal.items())


def test_a_run_trains_in_another_process_that_loads_its_data_by_name(tmp_path):
    config = Config("plain8", "shapes10", 2, batch_size=4, eval_every=2, eval_images=8, bn_images=8)
    process = multiprocessing.get_context("spawn").Process(
        target=train, args=(config, tmp_path / "there")
    )
    process.start()
    train(config, tmp_path / "here", data.load("shapes10"))
    process.join()
    assert process.exitcode == 0
    (there,), (here,) = (find_runs([tmp_path / name]) for name in ("there", "here"))
    assert [{k: v for k, v in m.items() if k != "seconds"} for m in there.evals] == [
        {k: v for k, v in m.items() if k != "seconds"} for m in here.evals
    ]


def test_data_of_an_unknown_name_are_refused_before_anything_is_written(tiny, tmp_path):
    with pytest.raises(InputError, match="expected a data set named"):
        train(replace(tiny, dataset="imagenet"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
