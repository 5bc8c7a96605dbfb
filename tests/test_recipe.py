"""A run does what its recipe says: steps and evaluations written out again, options followed."""

import os
import signal
import stat
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import naive
import numpy as np
import pytest

from minires import InputError, data, plain
from minires.cli import experiment, options
from minires.cli import train as train_commands
from minires.data import stream
from minires.lab import degradation
from minires.lab.presets import PRESETS
from minires.layers.base import layer_outputs
from minires.ops import default_backend
from minires.runs import checkpoint, files
from minires.runs.config import Config
from minires.runs.record import read_record
from minires.runs.run import read_run
from minires.train import loop, together
from minires.train import state as run_state
from minires.train import step as steps
from minires.train.loop import DivergenceError, Interrupted, initial_net, train

# -------------------------------------------------------------------------------- written out again


def test_two_steps_and_their_evaluation_are_those_of_the_paper_written_out(
    shapes, tmp_path, monkeypatch
):
    config = Config(
        "plain8",
        "shapes10",
        2,
        batch_size=4,
        weight_decay=0.01,
        seed=1,
        eval_every=2,
        eval_images=16,
        bn_images=24,
    )

    def in_float64(config, facts):
        net = initial_net(config, facts).astype("float64")
        forward = net.forward
        net.forward = lambda x, train=False: forward(x.astype("float64"), train)
        return net

    monkeypatch.setattr(loop, "initial_net", in_float64)
    run = read_run(train(config, tmp_path, shapes))
    state = checkpoint.load_weights(tmp_path)

    net, mean = (
        plain(8, rng=stream(1, "weights", 0)).astype("float64"),
        shapes.train.images.mean(axis=0),
    )
    w, order = net.parameters(), stream(1, "order", 0).permutation(96)
    v = {name: np.zeros_like(a) for name, a in w.items()}

    def prepared(rows, images=shapes.train.images):
        return (images[rows] - mean) / 255

    for i, line in enumerate(run.train):
        rows = order[4 * i : 4 * i + 4]
        x = naive.crop_and_flip(prepared(rows), stream(1, "augment", i), pad=4)
        logits = net.forward(x, train=True)
        loss, dlogits = naive.softmax_cross_entropy(logits, shapes.train.labels[rows])
        net.backward(dlogits)
        for name, g in net.gradients().items():
            v[name] = 0.9 * v[name] + g + 0.01 * w[name]
            w[name] -= 0.1 * v[name]
        assert line["loss"] == pytest.approx(loss, rel=1e-5)  # images are rounded to float32
        assert line["error"] == (logits.argmax(axis=1) != shapes.train.labels[rows]).mean()
    for name, a in w.items():
        np.testing.assert_allclose(
            state[name], a, rtol=1e-4, atol=1e-5 * abs(a).max(), err_msg=name
        )

    chosen = stream(1, "evaluation", 0).permutation(96)
    response = layer_outputs(net, prepared(chosen[:24]))["conv"]
    np.testing.assert_allclose(
        state["bn.running_mean"], response.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5
    )
    net.load_state(state)
    for name, x, labels in (
        ("train", prepared(chosen[24:40]), shapes.train.labels[chosen[24:40]]),
        ("test", prepared(slice(16), shapes.test.images), shapes.test.labels[:16]),
    ):
        logits = net.forward(x)
        assert run.evals[-1][f"{name}_error"] == (logits.argmax(axis=1) != labels).mean()
        loss, _ = naive.softmax_cross_entropy(logits, labels)
        assert run.evals[-1][f"{name}_loss"] == pytest.approx(loss, rel=1e-5)


def test_the_defaults_are_the_papers():
    c = Config("resnet20", "CIFAR-10", 64_000)
    assert (c.batch_size, c.lr, c.momentum, c.weight_decay, c.augment) == (
        128,
        0.1,
        0.9,
        1e-4,
        True,
    )
    assert c.warmup_lr is None
    assert (c.eval_every, c.eval_images, c.bn_images, c.seed) == (1000, 5000, 5000, 0)


def test_what_was_registered_before_the_runs_stays_as_it_was():
    registered = {
        name: (t.iterations, t.batch_size, t.lr, t.warmup_lr, t.augment, t.margin)
        for name, t in PRESETS.items()
    }
    assert registered == {
        "quick": (280, 64, 0.01, None, False, 10),
        "lesson": (2_000, 128, 0.1, 0.01, True, 15),
        "quarter": (16_000, 128, 0.1, None, True, 5),
        "paper": (64_000, 128, 0.1, None, True, 1),
    }
    measured = {name: (t.eval_images, t.evaluations) for name, t in PRESETS.items()}
    assert measured == {
        "quick": (512, 2),
        "lesson": (2_000, 5),
        "quarter": (5_000, 16),
        "paper": (10_000, 32),
    }


def test_a_run_is_evaluated_at_its_end_wherever_that_is(tiny, shapes, tmp_path):
    run = read_run(train(replace(tiny, net="plain8", iterations=5), tmp_path, shapes))
    assert [line["iteration"] for line in run.evals] == [3, 5]
    assert run.done


def test_a_run_computes_on_the_backend_that_it_names(tiny):
    for backend in ("numpy", "numba"):
        assert initial_net(replace(tiny, backend=backend)).backend == backend
    assert default_backend() == "numba"


# ------------------------------------------------------------------- warm-up, and what a stop keeps


@pytest.fixture
def errors(monkeypatch):
    """A stand-in for the training step: the k-th has loss k and the k-th of these errors.

    The clock advances by a second whenever it is read, so a step takes one.
    """

    def play(*values):
        done = []

        def step(net, optimizer, x, labels, lr):
            done.append(lr)
            return float(len(done)), values[min(len(done), len(values)) - 1]

        seconds = iter(range(10_000))
        monkeypatch.setattr(steps, "train_step", step)
        monkeypatch.setattr(run_state, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
        return done

    return play


def test_warm_up_does_not_come_back_when_the_error_rises_again(
    tiny, shapes, tmp_path, monkeypatch, errors
):
    monkeypatch.setattr(run_state, "SMOOTHING", 1.0)
    rates = errors(0.9, 0.9, 0.7, 0.9)
    train(replace(tiny, net="plain8", warmup_lr=0.01), tmp_path, shapes)
    assert rates == [0.01, 0.01, 0.01, 0.1, 0.1, 0.1]


def test_warm_up_ends_by_the_running_error_which_begins_with_guessing(
    tiny, shapes, tmp_path, errors
):
    rates = errors(0.7)
    train(
        replace(tiny, net="plain8", iterations=40, eval_every=40, warmup_lr=0.01), tmp_path, shapes
    )
    first = next(
        k for k in range(100) if 0.7 + 0.2 * 0.98**k < 0.8
    )  # 0.9 at first, a fiftieth of the way each step
    assert rates == [0.01] * first + [0.1] * (40 - first)


def test_a_stopped_run_takes_up_its_warm_up_its_means_and_its_clock(
    tiny, shapes, tmp_path, monkeypatch, errors
):
    monkeypatch.setattr(run_state, "SMOOTHING", 1.0)
    monkeypatch.setattr(run_state, "LINES", 2)  # a line for three iterations
    rates = errors(0.7, 0.9)
    config = replace(tiny, net="plain8", warmup_lr=0.01)

    def stop(progress):
        if progress.iteration == 4:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(config, tmp_path, shapes, stop)
    run = read_run(train(config, tmp_path, shapes))
    assert rates == [0.01] + 5 * [0.1]
    assert [(line["iteration"], line["loss"]) for line in run.train] == [(3, 2.0), (6, 5.0)]
    assert [line["seconds"] for line in run.train] == [3, 6]


# -------------------------------------------------------------------------------------- on the disk


def test_everything_is_on_the_disk_before_it_replaces_anything(tiny, shapes, tmp_path, monkeypatch):
    done, sync, move = [], os.fsync, os.replace

    def fsync(handle):
        sync(handle)
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            done.append("folder")
        else:
            (name,) = (
                path.name for path in tmp_path.iterdir() if path.stat().st_ino == status.st_ino
            )
            done.append(f"{name} of {status.st_size}")

    def replace_file(source, target):
        move(source, target)
        done.append(f"{source.name} to {target.name}")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace_file)
    train(replace(tiny, net="plain8", iterations=1), tmp_path, shapes)
    metrics, saved = (
        (tmp_path / name).stat().st_size for name in ("metrics.jsonl", checkpoint.NAME)
    )
    folder = [] if sys.platform == "win32" else ["folder"]  # which has no handle for one
    part = f".{checkpoint.NAME}.part"
    assert done[-3 - len(folder) :] == [
        f"metrics.jsonl of {metrics}",
        f"{part} of {saved}",
        f"{part} to {checkpoint.NAME}",
        *folder,
    ]
    done.clear()
    files.write_whole(tmp_path / "few", b"bytes")
    assert done == [".few.part of 5", ".few.part to few", *folder]


# ------------------------------------------------------------------------ what is typed, to the end


@pytest.fixture
def asked(monkeypatch, shapes, tmp_path):
    """Recipes that the commands `train` and `degradation` ask for, without training."""
    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data.shapes10, "dataset", lambda **_: shapes)
    monkeypatch.setattr(
        train_commands,
        "run_one",
        lambda config, folder, found, quiet, *_: seen.append((config, folder, quiet)),
    )
    monkeypatch.setattr(options, "prepare", lambda *_: None)  # nothing is compiled
    monkeypatch.setattr(experiment, "show", lambda *_, **__: None)
    monkeypatch.setattr(experiment, "print_claims", lambda *_, **__: None)
    monkeypatch.setattr(degradation, "run", lambda *words, **_: seen.append(words))
    return seen


OPTIONS = (
    "--dataset",
    "shapes10",
    "--iterations",
    2500,
    "--out",
    "here",
    "--lr",
    0.2,
    "--warmup-lr",
    0.02,
    "--quiet",
    "--batch-size",
    16,
    "--eval-images",
    8,
    "--eval-every",
    7,
    "--moving-average",
    "--backend",
    "numpy",
    "--no-augment",
)
RECIPE = Config(
    "plain14",
    "shapes10",
    2500,
    batch_size=16,
    lr=0.2,
    milestones=(1250, 1875),
    warmup_lr=0.02,
    eval_every=7,
    eval_images=8,
    bn_images=0,
    backend="numpy",
    augment=False,
)


def test_every_option_of_train_reaches_the_recipe(run_cli, asked):
    assert run_cli("train", "plain14", *OPTIONS, "--seed", 3)[0] == 0
    assert asked == [(replace(RECIPE, seed=3), Path("here"), True)]


def test_every_option_of_degradation_reaches_the_recipe(run_cli, asked, shapes):
    assert (
        run_cli("degradation", *OPTIONS, "--depths", "8,14", "--shortcut", "C", "--seeds", 2)[0]
        == 0
    )
    assert asked[0][:6] == (
        ["plain8", "plain14", "resnet8C", "resnet14C"],
        2,
        replace(RECIPE, net="plain20"),
        Path("here"),
        shapes,
        True,
    )


def test_train_without_options_is_the_papers_recipe(run_cli, asked):
    for net, warmup_lr in (("resnet20", None), ("resnet110", 0.01)):
        run_cli("train", net, "--dataset", "shapes10", "--eval-images", 32)
        config, folder, quiet = asked.pop()
        expected = Config(
            net,
            "shapes10",
            64_000,
            milestones=(32_000, 48_000),
            warmup_lr=warmup_lr,
            eval_every=16_000,
            eval_images=32,
            bn_images=32,
            backend="numba",
        )
        assert (config, folder.name, quiet) == (expected, f"{net}-shapes10-64000-seed0", False)


def test_an_experiment_warms_nets_of_110_layers_up(tiny, shapes, tmp_path, monkeypatch):
    trained = {}
    monkeypatch.setattr(
        together, "train", lambda config, *_: trained.update({config.net: config.warmup_lr})
    )
    degradation.run(["plain8", "resnet110"], 1, tiny, tmp_path, shapes, quiet=True)
    assert trained == {"plain8": None, "resnet110": 0.01}
    assert read_record(tmp_path / "resnet110-seed0").config.warmup_lr == 0.01


# ----------------------------------------------------------------------------------------- refusals


def test_more_test_images_than_there_are_is_refused(tiny, shapes, tmp_path):
    assert tiny.bn_images + 40 < len(shapes.train)
    with pytest.raises(InputError, match="40 test images, shapes10 has 96 and 32"):
        train(replace(tiny, eval_images=40), tmp_path, shapes)


def test_a_divergence_that_only_the_evaluation_meets_names_the_rate_that_was_used(
    tiny, shapes, tmp_path
):
    config = replace(tiny, net="plain8", iterations=1, lr=0.1, warmup_lr=1e30)
    with pytest.raises(DivergenceError, match=r"it was 1e\+30"):
        train(config, tmp_path, shapes)


@pytest.mark.parametrize("name", [checkpoint.NAME, checkpoint.PREVIOUS])
def test_a_checkpoint_of_which_nothing_is_known_is_not_taken_over(name, tiny, shapes, tmp_path):
    checkpoint.save(tmp_path, {"w": np.zeros(1)}, {"iteration": 1})
    (tmp_path / checkpoint.NAME).rename(tmp_path / name)
    with pytest.raises(InputError, match=r"no config\.json"):
        train(tiny, tmp_path, shapes)
