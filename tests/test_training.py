"""A run ends with the same bits however often it is stopped, and no record is ever lost."""

import errno
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import naive
import numpy as np
import pytest

from minires import InputError, resnet
from minires.data import ArraySplit
from minires.lab.recorded import final
from minires.layers import Sequential
from minires.layers.core import BatchNorm, recompute_statistics
from minires.optim import SGD
from minires.runs import checkpoint, files
from minires.runs import metrics_file as measured
from minires.runs import run_folder as run_folders
from minires.runs.config import OPTIONS, Config
from minires.runs.run import read_run
from minires.runs.run_folder import NoFolder, RunFolder
from minires.train import loop, state, step, stopping, task
from minires.train.layerwise import by_layer
from minires.train.loop import DivergenceError, train
from minires.train.resuming import check_checkpoint
from minires.train.step import evaluate, train_step
from minires.train.transport import LostRankError


class Crash(BaseException):
    """The machine stops here."""


def final_state(folder):
    arrays, meta = checkpoint.load(folder)
    return arrays, {k: v for k, v in meta.items() if k != "seconds"}


def metrics(folder):
    return [{k: v for k, v in m.items() if k != "seconds"} for m in measured.read(folder)]


def assert_same_end(a, b):
    (arrays, meta), (expected, expected_meta) = final_state(a), final_state(b)
    assert meta == expected_meta
    assert arrays.keys() == expected.keys()
    for name, value in expected.items():
        assert value.tobytes() == arrays[name].tobytes(), name
    assert metrics(a) == metrics(b)


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory, shapes):
    config = Config(
        "resnet8", "shapes10", 6, batch_size=4, eval_every=3, eval_images=16, bn_images=16
    )
    return train(config, tmp_path_factory.mktemp("unstopped"), shapes)


@pytest.fixture
def saves_always(monkeypatch):
    monkeypatch.setattr(state, "CHECKPOINT_SECONDS", -1.0)


def test_a_network_learns_sixteen_images_by_heart(shapes):
    net = resnet(8)
    sgd = SGD(net.parameters())
    images, labels = shapes.train[:16]
    x = shapes.prepare(images, None)
    losses = [train_step(net, sgd, x, labels, 0.05)[0] for _ in range(40)]
    assert losses[0] > 2
    assert losses[-1] < 0.01


def test_a_run_folder_holds_config_metrics_and_checkpoint(unstopped, shapes):
    record = json.loads((unstopped / "config.json").read_text())
    assert record["data"] == {"name": "shapes10", "source": shapes.source, "sha256": shapes.sha256}
    assert {"minires", "python", "numpy"} <= record["provenance"]["versions"].keys()
    assert record["provenance"]["machine"]["processor"]
    lines = metrics(unstopped)
    assert [m["iteration"] for m in lines if m["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [m["iteration"] for m in lines if m["kind"] == "eval"] == [3, 6]
    assert all(
        0 <= m[f"{s}_error"] <= 1 for m in lines if m["kind"] == "eval" for s in ("train", "test")
    )
    keys = {"kind", "iteration", "seconds", "loss", "error", "lr"}
    assert all(m.keys() == keys for m in measured.read(unstopped) if m["kind"] == "train")
    assert RunFolder(unstopped).position() == 6


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    unstopped, tiny, shapes, tmp_path
):
    assert_same_end(train(tiny, tmp_path / "a", shapes), unstopped)
    other = final_state(train(replace(tiny, seed=1), tmp_path / "b", shapes))[0]
    assert not np.array_equal(other["net/conv.w"], final_state(unstopped)[0]["net/conv.w"])


def test_evaluation_does_not_change_the_training(unstopped, tiny, shapes, tmp_path):
    often = final_state(train(replace(tiny, eval_every=1), tmp_path / "a", shapes))[0]
    for name, value in final_state(unstopped)[0].items():
        if "running" not in name:
            np.testing.assert_array_equal(often[name], value, name)


def test_with_no_images_for_it_evaluation_uses_the_moving_averages(
    unstopped, tiny, shapes, tmp_path
):
    moving = final_state(train(replace(tiny, bn_images=0, eval_every=1), tmp_path, shapes))[0]
    recomputed = final_state(unstopped)[0]
    np.testing.assert_array_equal(moving["net/conv.w"], recomputed["net/conv.w"])
    assert not np.array_equal(moving["net/bn.running_mean"], recomputed["net/bn.running_mean"])


def test_a_finished_run_is_left_as_it_is(unstopped, tiny, shapes):
    before = {
        p.name: p.stat().st_mtime_ns for p in unstopped.iterdir() if p.suffix == ".safetensors"
    }
    seen = []
    train(tiny, unstopped, shapes, seen.append)
    assert seen == []
    assert {
        p.name: p.stat().st_mtime_ns for p in unstopped.iterdir() if p.suffix == ".safetensors"
    } == before


# ------------------------------------------------------------------------------------------ crashes


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_crash_at_any_write_and_a_new_start_end_with_the_same_bits(
    call, unstopped, tiny, shapes, tmp_path, monkeypatch, saves_always
):
    real = getattr(os, call)

    def crash_at(number, after):
        seen = 0

        def wrapped(*args, **kwargs):
            nonlocal seen
            seen += 1
            if seen == number:
                if after:
                    real(*args, **kwargs)
                raise Crash
            return real(*args, **kwargs)

        return wrapped

    for number in range(1, 13):
        folder = tmp_path / str(number)
        monkeypatch.setattr(os, call, crash_at(number, after=number % 2))
        with pytest.raises(Crash):
            train(tiny, folder, shapes)
        monkeypatch.setattr(os, call, real)
        train(tiny, folder, shapes)
        assert_same_end(folder, unstopped)


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
from minires.data import shapes10
from minires.runs.config import Config
from minires.train import loop, state
state.CHECKPOINT_SECONDS = 0.02
config = Config("plain8", "shapes10", 120, batch_size=4, eval_every=40, eval_images=16)
config = replace(config, bn_images=16)
data = shapes10.dataset(seed=0, train=96, test=32)
print("started", flush=True)
loop.train(config, Path(sys.argv[1]), data, lambda p: print(p.iteration, flush=True))
"""


def test_killed_at_twenty_random_instants_a_run_ends_with_the_same_bits(tmp_path):
    rng, kills, runs = np.random.default_rng(20), 0, [tmp_path / "run 0"]
    whole = tmp_path / "whole"
    subprocess.run(
        [sys.executable, "-c", KILLED, str(whole)], check=True, stdout=subprocess.DEVNULL
    )
    while kills < 20:
        command = [sys.executable, "-c", KILLED, str(runs[-1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            process.stdout.readline()  # the first iteration is done
            try:
                process.wait(timeout=rng.uniform(0, 0.12))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
            else:
                assert process.returncode == 0
                runs.append(tmp_path / f"run {len(runs)}")  # it came to its end: kill another one
    for run in runs:
        subprocess.run(
            [sys.executable, "-c", KILLED, str(run)], check=True, stdout=subprocess.DEVNULL
        )
        assert_same_end(run, whole)


def test_ctrl_c_saves_says_how_to_go_on_and_the_rest_gives_the_same_bits(
    unstopped, tiny, shapes, tmp_path
):
    def press(progress):
        if progress.iteration == 2:
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(loop.Interrupted, match="saved at iteration 2 of 6"):
        train(tiny, tmp_path, shapes, press)
    assert checkpoint.load(tmp_path)[1]["iteration"] == 2
    assert signal.getsignal(signal.SIGINT) is handler
    seen = []
    train(tiny, tmp_path, shapes, seen.append)
    assert seen[0].iteration == 3
    assert_same_end(tmp_path, unstopped)


def test_a_cut_last_line_of_metrics_is_harmless(unstopped, tiny, shapes, tmp_path, saves_always):
    def press(progress):
        if progress.iteration == 4:
            raise Crash

    with pytest.raises(Crash):
        train(tiny, tmp_path, shapes, press)
    with open(tmp_path / "metrics.jsonl", "a") as f:
        f.write('{"kind": "train", "iter')
    train(tiny, tmp_path, shapes)
    assert_same_end(tmp_path, unstopped)


# ------------------------------------------------------------------------------------------- damage


def stopped_run(tiny, shapes, folder):
    """A run of 6 iterations that crashed after 4, saved at every one."""

    def stop(progress):
        if progress.iteration == 4:
            raise Crash

    with pytest.raises(Crash):
        train(tiny, folder, shapes, stop)
    return folder / checkpoint.NAME


def test_the_record_says_from_which_iteration_on_something_else_trained(
    unstopped, tiny, shapes, tmp_path, saves_always, monkeypatch
):
    def told():
        record = json.loads((tmp_path / "config.json").read_text())
        parts = [(part["iteration"], part["provenance"]["commit"]) for part in record["continued"]]
        return record["provenance"]["commit"], parts

    def by(commit, until):
        def stop(progress):
            if progress.iteration == until:
                raise Crash

        monkeypatch.setattr(run_folders, "provenance", lambda: {"commit": commit})
        with pytest.raises(Crash):
            train(tiny, tmp_path, shapes, stop)

    by("a", until=1)
    (tmp_path / checkpoint.NAME).unlink()
    by("b", until=2)
    assert told() == ("b", [])  # nothing is left of what a did
    by("b", until=3)
    assert told() == ("b", [])
    by("c", until=4)
    assert told() == ("b", [(3, "c")])
    checkpoint_of_4 = (tmp_path / checkpoint.NAME).read_bytes()
    by("d", until=5)
    assert told() == ("b", [(3, "c"), (4, "d")])
    (tmp_path / checkpoint.NAME).write_bytes(checkpoint_of_4)
    by("e", until=5)
    assert told() == ("b", [(3, "c"), (4, "e")])  # nothing is left of what d did
    train(tiny, tmp_path, shapes)
    assert told() == ("b", [(3, "c"), (4, "e")])
    assert_same_end(tmp_path, unstopped)


def test_all_that_the_next_step_depends_on_is_taken_over_from_rank_0(tiny, shapes, tmp_path):
    config = replace(tiny, plateau=2)
    led, mine = (
        state.TrainingRun(config, RunFolder(tmp_path), shapes, loop.initial_net(net))
        for net in (config, replace(config, seed=1))
    )
    for velocity in led.optimizer.velocity.values():
        velocity += 0.5
    led.plateau.observe(3, 0.25)
    led.iteration, led.seconds, led.waited, led.warm, led.running = 4, 7.0, 2.0, False, 0.75
    led.window = {"steps": 2, "loss": 3.0, "error": 1.5}
    told = (led.meta() | {"ended": True}, led.arrays())
    mine.ranks = SimpleNamespace(share=lambda *sent: [told, sent])
    mine.join()
    assert mine.ended
    assert mine.meta() == led.meta()
    ours, theirs = mine.arrays(), led.arrays()
    assert {k: a.tobytes() for k, a in ours.items()} == {k: a.tobytes() for k, a in theirs.items()}


def test_a_rank_trains_by_the_recipe_of_rank_0_as_it_was_begun(tiny, shapes):
    led = replace(tiny, bn_average="batches").to_json()
    ranks = SimpleNamespace(share=lambda *sent: [(led, {}), (sent[0], {})], agree=lambda *_: None)
    assert loop._agreed(tiny, shapes, ranks).bn_average == "batches"


def test_more_ranks_than_parts_are_refused_before_anything_is_written(tiny, shapes, tmp_path):
    with pytest.raises(InputError, match="3 ranks need --shards 3 or more, got --shards 2"):
        train(replace(tiny, shards=2), tmp_path, shapes, ranks=SimpleNamespace(size=3, leads=True))
    assert not list(tmp_path.iterdir())


def test_a_lost_rank_says_whether_the_run_has_a_checkpoint(tmp_path):
    for saved in (False, True):
        with (
            pytest.raises(LostRankError) as e,
            loop._checkpoint_named(NoFolder(tmp_path)),
        ):
            raise LostRankError(1, 2)
        assert e.value.saved is saved
        checkpoint.save(tmp_path, {}, {"iteration": 3})


def test_weights_that_a_run_starts_from_are_saved_before_its_first_step(
    tiny, shapes, tmp_path, monkeypatch
):
    given, other = (loop.initial_net(replace(tiny, seed=seed)).state() for seed in (5, 6))
    config = replace(tiny, weights="0" * 64)
    with pytest.raises(InputError, match=r"SHA-256 0{12}.*; give them with --weights FILE"):
        train(config, tmp_path, shapes)

    def crash(*args):
        raise Crash

    monkeypatch.setattr(step, "train_step", crash)
    for weights in (given, other, None):  # a run that has begun needs them no longer
        with pytest.raises(Crash):
            train(config, tmp_path, shapes, weights=weights)
        saved = checkpoint.load_weights(tmp_path)
        assert {k: a.tobytes() for k, a in saved.items()} == {
            k: a.tobytes() for k, a in given.items()
        }


CHECKED = {"iteration": 6, "seconds": 0.0, "warm": True, "running_error": 0.5}
CHECKED |= {"window": {"steps": 0}}
LONG = "net/" + 56 * "x"


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "net/w is missing"),
        ({"net/w": np.zeros((2, 3))}, "net/w: expected float32 (2, 3), got float64 (2, 3)"),
        ({"net/w": np.zeros((1, 3), "float32")}, "expected float32 (2, 3), got float32 (1, 3)"),
        ({"net/w": np.zeros((3, 3), "float32")}, "expected float32 (2, 3), got float32 (3, 3)"),
        ({"net/w": np.zeros((2, 3), "float32"), LONG: np.zeros(1)}, f"({LONG} is unknown)"),
    ],
    ids=["missing", "type", "shorter", "longer", "unknown"],
)
def test_the_first_array_that_is_not_of_a_run_is_described(arrays, words, tiny):
    meta = CHECKED | {"config": tiny.to_json()}
    expected = {"net/w": np.zeros((2, 3), "float32")}
    check_checkpoint("here", tiny, expected, expected, meta)
    with pytest.raises(InputError, match="here: its checkpoint is not of resnet8") as e:
        check_checkpoint("here", tiny, expected, arrays, meta)
    assert words in str(e.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"net": "plain8"}, "its checkpoint is of plain8, not resnet8"),
        (None, "its checkpoint is of weights alone, not resnet8"),
        ({"lr": 0.2, "seed": 1}, "is of another run (lr 0.2, not 0.1; seed 1, not 0)"),
    ],
    ids=["network", "weights alone", "recipe"],
)
def test_a_checkpoint_with_another_network_or_recipe_says_what_it_is_of(change, words, tiny):
    config = tiny.to_json()
    del config["until"]  # as an earlier version wrote it
    check_checkpoint("here", tiny, {}, {}, CHECKED | {"config": config})
    with pytest.raises(InputError) as e:
        check_checkpoint("here", tiny, {}, {}, CHECKED | {"config": change and config | change})
    assert words in str(e.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"iteration": 7},
        {"seconds": -1.0},
        {"seconds": np.inf},
        {"seconds": np.nan},
        {"seconds": True},
        {"waited": -1.0},
        {"warm": None},
        {"running_error": "low"},
        {"plateau": 5},
        {"window": [0]},
        {"window": {"steps": True}},
        {"window": {"steps": 1, "loss": "low"}},
    ],
    ids=str,
)
def test_the_values_of_a_checkpoint_that_make_no_sense_are_named(wrong, tiny):
    meta = CHECKED | {"config": tiny.to_json()}
    check_checkpoint("here", tiny, {}, {}, meta)
    with pytest.raises(InputError, match=rf"checkpoint is damaged \({next(iter(wrong))}\); rest"):
        check_checkpoint("here", tiny, {}, {}, meta | wrong)


@pytest.mark.parametrize("damage", ["cut", "a bit flipped", "empty", "rubbish"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_serves(
    damage, unstopped, tiny, shapes, tmp_path, saves_always
):
    path = stopped_run(tiny, shapes, tmp_path)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(
        {"cut": content[:-500], "empty": b"", "rubbish": b"x" * 1000}.get(damage, bytes(content))
    )
    with pytest.warns(UserWarning, match="going on from the one before"):
        train(tiny, tmp_path, shapes)
    assert_same_end(tmp_path, unstopped)


def test_with_no_whole_checkpoint_the_run_is_refused_and_kept(tiny, shapes, tmp_path, saves_always):
    path = stopped_run(tiny, shapes, tmp_path)
    for name in (checkpoint.NAME, checkpoint.PREVIOUS):
        path.with_name(name).write_bytes(b"rubbish")
    lines = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="not a whole checkpoint"):
        train(tiny, tmp_path, shapes)
    assert (tmp_path / "metrics.jsonl").read_bytes() == lines


def test_metrics_of_a_run_whose_checkpoint_is_gone_are_kept(
    unstopped, tiny, shapes, tmp_path, saves_always
):
    kept = []
    for name in ("metrics.previous.jsonl", "metrics.previous1.jsonl"):
        stopped_run(tiny, shapes, tmp_path)
        kept.append((name, (tmp_path / "metrics.jsonl").read_bytes()))
        for path in tmp_path.glob("checkpoint*"):
            path.unlink()
    train(tiny, tmp_path, shapes)
    assert all((tmp_path / name).read_bytes() == before for name, before in kept)
    assert_same_end(tmp_path, unstopped)


def test_a_finished_run_without_its_checkpoint_is_left_as_it_is(tiny, shapes, tmp_path):
    train(tiny, tmp_path, shapes)
    (tmp_path / checkpoint.NAME).unlink()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.name != ".lock"}
    train(tiny, tmp_path, shapes, lambda progress: pytest.fail("it trained again"))
    assert RunFolder(tmp_path).position() == tiny.iterations
    assert {
        path: path.read_bytes() for path in tmp_path.iterdir() if path.name != ".lock"
    } == before


def test_saving_beside_a_damaged_checkpoint_never_costs_the_whole_one(tmp_path, monkeypatch):
    arrays = {"w": np.arange(3.0)}
    for i in (1, 2):
        checkpoint.save(tmp_path, arrays, {"iteration": i})
    (tmp_path / checkpoint.NAME).write_bytes(b"rubbish")
    real = os.replace

    def crash(source, target):
        raise Crash

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(Crash):
        checkpoint.save(tmp_path, arrays, {"iteration": 3})
    monkeypatch.setattr(os, "replace", real)
    with pytest.warns(UserWarning, match="going on from the one before"):
        assert checkpoint.load(tmp_path)[1] == {"iteration": 1}
    checkpoint.save(tmp_path, arrays, {"iteration": 3})
    assert checkpoint.load(tmp_path)[1] == {"iteration": 3}
    assert checkpoint.read(tmp_path / checkpoint.PREVIOUS)[1] == {"iteration": 1}


def test_a_checkpoint_whose_position_was_altered_is_damaged(tmp_path):
    checkpoint.save(tmp_path, {"w": np.arange(3.0)}, {"iteration": 1000})
    path = tmp_path / checkpoint.NAME
    path.write_bytes(path.read_bytes().replace(b"1000", b"3000"))
    with pytest.raises(InputError, match="damaged"):
        checkpoint.read(path)


def test_ctrl_c_in_the_last_iteration_stops_the_experiment_too(tiny, shapes, tmp_path):
    def press(progress):
        if progress.iteration == tiny.iterations:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(loop.Interrupted):
        train(tiny, tmp_path, shapes, press)
    assert RunFolder(tmp_path).position() == tiny.iterations


def test_a_checkpoint_of_another_net_is_refused(tiny, shapes, tmp_path, saves_always):
    theirs = stopped_run(replace(tiny, net="plain8"), shapes, tmp_path / "theirs")
    mine = stopped_run(tiny, shapes, tmp_path / "mine")
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(InputError, match="its checkpoint is of plain8, not resnet8"):
        train(tiny, mine.parent, shapes)


def test_a_damaged_config_is_refused(unstopped, tiny, shapes, tmp_path):
    half = json.loads((unstopped / "config.json").read_text()) | {"continued": [{"iteration": 3}]}
    wrong = ({"config": {}}, {"config": {"net": "resnet8"}, "data": {}}, half)
    for content in ("", "{", "[]", *map(json.dumps, wrong)):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError, match=r"damaged|must have the fields"):
            train(tiny, tmp_path, shapes)


@pytest.mark.parametrize(
    "change", [{"lr": 0.05}, {"net": "plain8"}, {"iterations": 7}, {"seed": 3}]
)
def test_a_folder_of_another_recipe_is_refused_and_says_what_differs(
    change, unstopped, tiny, shapes
):
    with pytest.raises(InputError, match=f"holds another run: {next(iter(change))}"):
        train(replace(tiny, **change), unstopped, shapes)


def test_a_folder_of_other_data_is_refused(unstopped, tiny, shapes):
    test = ArraySplit(shapes.test.images, (shapes.test.labels + 1) % 10)
    other = replace(shapes, test=test)
    with pytest.raises(InputError, match="other data"):
        train(tiny, unstopped, other)


def test_a_locked_folder_is_refused_and_free_again_afterwards(unstopped, tiny, shapes):
    with (
        RunFolder(unstopped).locked(),
        pytest.raises(InputError, match=f"in use by process {os.getpid()}"),
    ):
        train(tiny, unstopped, shapes)
    train(tiny, unstopped, shapes)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_is_one_message_and_loses_nothing(
    failing, unstopped, tiny, shapes, tmp_path, monkeypatch, saves_always
):
    real, calls = getattr(os, failing), 0

    def full(*args):
        nonlocal calls
        calls += 1
        if calls > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(
        InputError, match=r"cannot write .*No space left on device.*recorded before is whole"
    ):
        train(tiny, tmp_path, shapes)
    monkeypatch.setattr(os, failing, real)
    assert checkpoint.load(tmp_path)[1]["iteration"] >= 1
    assert not list(tmp_path.glob(".*.part"))
    train(tiny, tmp_path, shapes)
    assert_same_end(tmp_path, unstopped)


def test_a_folder_that_cannot_be_made_is_one_message(tiny, shapes, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        train(tiny, tmp_path / "file" / "run", shapes)


def test_a_read_only_folder_is_one_message(tiny, shapes, tmp_path, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        train(tiny, tmp_path, shapes)


# --------------------------------------------------------------------------------------- divergence


def test_a_diverging_run_names_step_and_layer_and_advises(tiny, shapes, tmp_path):
    with pytest.raises(DivergenceError) as e:
        train(replace(tiny, lr=1e30), tmp_path, shapes)
    text = str(e.value)
    assert "resnet8 diverged at iteration" in text
    assert "First values that are not finite: " in text
    assert "--lr" in text
    assert ("checkpoint" in text) == (tmp_path / checkpoint.NAME).exists()
    train(tiny, tmp_path, shapes)  # the advice can be followed in the same folder
    assert RunFolder(tmp_path).position() == tiny.iterations


def test_a_record_without_its_checkpoint_is_not_given_to_another_recipe(
    tiny, shapes, tmp_path, saves_always
):
    stopped_run(tiny, shapes, tmp_path)
    for path in tmp_path.glob("checkpoint*"):
        path.unlink()
    with pytest.raises(InputError, match="holds another run: lr"):
        train(replace(tiny, lr=0.05), tmp_path, shapes)


def test_a_recipe_that_was_refused_does_not_occupy_the_folder(tiny, shapes, tmp_path):
    with pytest.raises(InputError, match="ask for fewer"):
        train(replace(tiny, eval_images=5000), tmp_path, shapes)
    train(tiny, tmp_path, shapes)


def test_nan_in_a_weight_is_traced_to_it(tiny, shapes, tmp_path, monkeypatch):
    real = step.train_step

    def poisoned(net, *args):
        net.parameters()["stage2.block1.body.conv1.w"][0, 0, 0, 0] = np.nan
        return real(net, *args)

    monkeypatch.setattr(step, "train_step", poisoned)
    with pytest.raises(DivergenceError, match=r"not finite: stage2\.block1\.body\.conv1\.w"):
        train(tiny, tmp_path, shapes)


# ------------------------------------------------------------------------------------------- recipe


def test_warm_up_lasts_until_the_training_error_is_below_80_percent(
    tiny, shapes, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        step, "train_step", lambda net, sgd, x, y, lr: (1.0, 0.79 if len(rates) > 2 else 0.8)
    )
    monkeypatch.setattr(state, "SMOOTHING", 1.0)
    rates = []
    train(replace(tiny, warmup_lr=0.01), tmp_path, shapes, lambda p: rates.append(p.lr))
    assert rates == [0.01, 0.01, 0.01, 0.01, 0.1, 0.1]


def test_the_learning_rate_drops_at_the_milestones(tiny, shapes, tmp_path):
    rates = []
    train(replace(tiny, milestones=(2, 4)), tmp_path, shapes, lambda p: rates.append(p.lr))
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_evaluation_counts_every_image_once(shapes, rng):
    net = resnet(8)
    loss, error = evaluate(net, shapes.test, shapes.prepare, 5)
    whole_loss, whole_error = evaluate(net, shapes.test, shapes.prepare, 32)
    assert error == whole_error
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    assert inspect.signature(evaluate).parameters["batch_size"].default == 128
    images, labels = shapes.test[:]
    logits = net.forward(shapes.prepare(images, None)).astype(float)
    classes = [max(range(10), key=row.__getitem__) for row in logits.tolist()]
    wrong = sum(a != b for a, b in zip(classes, labels, strict=True))
    assert 0 < wrong < 32
    assert error == wrong / 32
    assert loss == pytest.approx(naive.softmax_cross_entropy(logits, labels)[0], rel=1e-5)


def test_a_step_returns_loss_and_error_of_its_batch_before_the_weights_change(shapes):
    net = resnet(8)
    before = net.state()
    images, labels = shapes.train[:32]
    x = shapes.prepare(images, None)
    loss, error = train_step(net, SGD(net.parameters()), x, labels, 0.1)
    assert not np.array_equal(net.parameters()["conv.w"], before["conv.w"])
    logits = resnet(8).load_state(before).forward(x, train=True).astype(float)
    assert loss == pytest.approx(naive.softmax_cross_entropy(logits, labels)[0], rel=1e-5)
    assert 0 < error < 1
    assert error == sum(logits.argmax(axis=1) != labels) / 32


def test_a_loss_that_is_not_finite_changes_no_parameter(shapes):
    net = resnet(8)
    net.parameters()["fc.b"][0] = np.nan
    before = {name: w.copy() for name, w in net.parameters().items()}
    images, labels = shapes.train[:4]
    with pytest.raises(FloatingPointError, match="the loss is not finite"):
        train_step(net, SGD(net.parameters()), shapes.prepare(images, None), labels, 0.1)
    for name, w in net.parameters().items():
        np.testing.assert_array_equal(w, before[name], name)


@pytest.mark.parametrize(
    "change",
    [
        {"iterations": 0},
        {"batch_size": 1},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"seed": -1},
        {"eval_images": 0},
        {"eval_every": 0},
        {"bn_images": -1},
        {"milestones": (4, 2)},
        {"backend": "tpu"},
    ],
)
def test_a_senseless_recipe_is_refused(change, tiny):
    with pytest.raises(InputError, match=next(iter(change))):
        replace(tiny, **change)


def test_more_evaluation_images_than_there_are_is_refused(tiny, shapes, tmp_path):
    with pytest.raises(InputError, match="evaluation needs"):
        train(replace(tiny, eval_images=90), tmp_path, shapes)


def test_a_config_survives_json(tiny):
    assert Config.from_json(json.loads(json.dumps(tiny.to_json()))) == tiny


# --------------------------------------------------------------------------- folders of version 0.1


ADDED = [name for name, row in OPTIONS.items() if row.option.added]


def as_version_1_wrote_it(folder):
    """Make a run folder look as version 0.1 left it: no facts, no metrics, fewer settings."""
    record = json.loads((folder / "config.json").read_text())
    del record["network"], record["metrics"]
    for name in ADDED:
        del record["config"][name]
    (folder / "config.json").write_text(json.dumps(record))
    for path in folder.glob("checkpoint*"):
        arrays, meta = checkpoint.read(path)
        for name in ADDED:
            del meta["config"][name]
        meta["window"] = {"loss": 0.0, "error": 0.0, "steps": 0} | meta["window"]
        checkpoint.save(folder, arrays, meta)


def test_a_run_that_version_1_began_is_resumed_to_the_same_bits(
    unstopped, tiny, shapes, tmp_path, saves_always
):
    stopped_run(tiny, shapes, tmp_path)
    (tmp_path / checkpoint.PREVIOUS).unlink()
    as_version_1_wrote_it(tmp_path)
    train(tiny, tmp_path, shapes)
    (arrays, meta), (expected, expected_meta) = final_state(tmp_path), final_state(unstopped)
    assert {k: a.tobytes() for k, a in arrays.items()} == {
        k: a.tobytes() for k, a in expected.items()
    }
    assert meta["running_error"] == expected_meta["running_error"]
    assert metrics(tmp_path) == metrics(unstopped)


def test_the_facts_of_a_run_of_version_1_are_derived_from_its_name(unstopped, tmp_path):
    shutil.copytree(unstopped, tmp_path / "old")
    as_version_1_wrote_it(tmp_path / "old")
    assert read_run(tmp_path / "old").facts == read_run(unstopped).facts
    assert read_run(tmp_path / "old").config == read_run(unstopped).config | {
        "bn_average": "batches"
    }
    assert read_run(tmp_path / "old").metric.name == "error"


def test_the_position_of_a_run_is_read_without_hashing_its_checkpoint(unstopped, monkeypatch):
    monkeypatch.setattr(
        checkpoint.hashlib, "sha256", lambda *_: pytest.fail("the checkpoint was hashed")
    )
    assert RunFolder(unstopped).position() == 6


def test_the_position_is_that_of_the_previous_checkpoint_if_the_latest_is_cut(
    tiny, shapes, tmp_path, saves_always
):
    path = stopped_run(tiny, shapes, tmp_path)
    assert RunFolder(tmp_path).position() == 4
    path.write_bytes(path.read_bytes()[:100])
    assert RunFolder(tmp_path).position() == 3


def test_a_checkpoint_of_the_same_net_and_another_recipe_is_refused(
    tiny, shapes, tmp_path, saves_always
):
    theirs = stopped_run(replace(tiny, seed=1), shapes, tmp_path / "theirs")
    mine = stopped_run(tiny, shapes, tmp_path / "mine")
    mine.write_bytes((theirs.parent / checkpoint.PREVIOUS).read_bytes())  # of iteration 3
    before = (mine.parent / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"another run \(seed 1, not 0"):
        train(tiny, mine.parent, shapes)
    assert (mine.parent / "metrics.jsonl").read_bytes() == before


def test_a_run_whose_task_measures_something_else_now_is_refused_and_kept(
    tiny, shapes, tmp_path, monkeypatch
):
    train(tiny, tmp_path, shapes)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    renamed = replace(task.ERROR, name="mistakes")
    monkeypatch.setattr(task.Classification, "metrics", (renamed,))
    with pytest.raises(InputError, match="measured error"):
        train(tiny, tmp_path, shapes)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_damaged_metrics_are_kept_beside_what_is_left_of_them(unstopped, tiny, shapes, tmp_path):
    shutil.copytree(unstopped, tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    damaged = b"rubbish\nand more\n" + path.read_bytes()
    path.write_bytes(damaged)
    train(tiny, tmp_path / "run", shapes)
    assert (tmp_path / "run" / "metrics.previous.jsonl").read_bytes() == damaged
    assert metrics(tmp_path / "run") == metrics(unstopped)


# ------------------------------------------------------------------ statistics of batch norm


def means_and_variances(layer):
    return layer.buffers["running_mean"].astype(float), layer.buffers["running_var"].astype(float)


@pytest.mark.parametrize("large", [511, 128, 1999])
def test_a_last_batch_of_one_image_changes_statistics_as_little_as_one_image_can(large, rng):
    N, M = large + 1, 4  # images, values of a channel in one image
    x = rng.standard_normal((N, 2, 2, 3)).astype("float32")
    x[-1] += 10  # an image unlike the rest of the set
    norm = BatchNorm(3)
    recompute_statistics(norm, [x])
    mean, var = means_and_variances(norm)
    recompute_statistics(norm, [x[:-1], x[-1:]])
    weighed_mean, weighed_var = means_and_variances(norm)

    # means agree up to rounding in pairwise sums of N M float32 values;
    # 10 is the largest mean of a part
    rounding = 10 * np.finfo("float32").eps * np.log2(N * M)
    np.testing.assert_allclose(weighed_mean, mean, rtol=0, atol=rounding)
    # averaged variances lack the variance between the parts, and divide by n M - 1 in each part
    large_part, small = x[:-1].reshape(-1, 3).astype(float), x[-1].reshape(-1, 3).astype(float)
    between = large / N**2 * (large_part.mean(axis=0) - small.mean(axis=0)) ** 2
    within = (large_part.var(axis=0, ddof=1) + small.var(axis=0, ddof=1) + var) / (N * M - 1)
    assert (abs(weighed_var - var) <= between + within + 100 * rounding).all()


def test_statistics_of_a_deep_net_are_means_over_images(rng):
    net = resnet(8)
    x = rng.standard_normal((9, 32, 32, 3)).astype("float32")
    parts = [x[:8], x[8:]]

    def statistics(*batches, **weigh):
        recompute_statistics(net, batches, **weigh)
        return {k: v.astype(float) for k, v in net.state().items() if "running" in k}

    first, last = (statistics(part) for part in parts)
    by_images = statistics(*parts)
    by_batches = statistics(*parts, weigh=lambda x: 1)
    for name in first:
        scale = abs(first[name]).max() + abs(last[name]).max()
        tolerance = {"rtol": 0, "atol": 4 * np.finfo("float32").eps * scale, "err_msg": name}
        expected = (8 * first[name] + last[name]) / 9
        np.testing.assert_allclose(by_images[name], expected, **tolerance)
        expected = (first[name] + last[name]) / 2
        np.testing.assert_allclose(by_batches[name], expected, **tolerance)


def test_equal_batches_give_the_bits_that_they_always_gave(rng):
    x = rng.standard_normal((21, 2, 2, 3)).astype("float32")
    norm = BatchNorm(3)
    recompute_statistics(norm, np.split(x, 7))
    by_images = [a.tobytes() for a in norm.buffers.values()]
    recompute_statistics(norm, np.split(x, 7), lambda x: 1)
    assert by_images == [a.tobytes() for a in norm.buffers.values()]


def test_evaluation_recomputes_statistics_from_batches_of_equal_size(
    tiny, shapes, tmp_path, monkeypatch
):
    seen = []

    def spy(net, batches, weigh):
        seen.append([(len(x), weigh(x)) for x in batches])

    monkeypatch.setattr(state, "recompute_statistics", spy)
    config = replace(tiny, bn_images=9, iterations=1)
    train(config, tmp_path / "new", shapes)
    assert seen == [[(3, 3)] * 3]  # the fewest batches of at most 4
    train(replace(config, bn_average="batches"), tmp_path / "old", shapes)
    assert seen[1] == [(4, 1), (4, 1), (1, 1)]


def test_a_run_says_how_its_statistics_were_made_and_an_old_one_goes_on_as_it_began(
    unstopped, tiny, shapes, tmp_path, saves_always
):
    assert json.loads((unstopped / "config.json").read_text())["config"]["bn_average"] == "images"
    began = replace(tiny, bn_images=9, bn_average="batches")
    train(began, tmp_path / "whole", shapes)
    stopped_run(began, shapes, tmp_path / "run")
    (tmp_path / "run" / checkpoint.PREVIOUS).unlink()
    as_version_1_wrote_it(tmp_path / "run")
    train(replace(began, bn_average="images"), tmp_path / "run", shapes)  # the command as ever
    arrays, expected = (final_state(tmp_path / name)[0] for name in ("run", "whole"))
    assert {k: a.tobytes() for k, a in arrays.items()} == {
        k: a.tobytes() for k, a in expected.items()
    }
    assert read_run(tmp_path / "run").config["bn_average"] == "batches"


def test_a_new_run_is_not_continued_with_statistics_of_another_kind(tiny, shapes, unstopped):
    with pytest.raises(InputError, match="holds another run: bn_average images there, batches"):
        train(replace(tiny, bn_average="batches"), unstopped, shapes)


def test_how_statistics_are_made_changes_no_weight(tiny, shapes, tmp_path):
    config = replace(tiny, bn_images=9)
    train(config, tmp_path / "images", shapes)
    train(replace(config, bn_average="batches"), tmp_path / "batches", shapes)
    ours, theirs = (final_state(tmp_path / name)[0] for name in ("images", "batches"))
    differing = {name for name in ours if ours[name].tobytes() != theirs[name].tobytes()}
    assert differing
    assert all("running" in name for name in differing)


# ------------------------------------------------------------------------- damaged and forged files

TRAIN = '{"kind": "train", "iteration": %s, "error": %s, "lr": 0.1, "seconds": 1, "loss": 1}'
LAYERS = '{"kind": "layers", "iteration": 2, "gradient_norm": %s, "weight_norm": %s, %s}'
NO_RESPONSE = '"response_std": {}'


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"kind": ' + "[" * 40 + "]" * 40 + "}",
        TRAIN % ("1", "9" * 6000),
        TRAIN % ("1", "9" * 400),
        TRAIN % ("1", '"half"'),
        TRAIN % ("1", "true"),
        TRAIN % ("true", "0.5"),
        TRAIN % ("1.5", "0.5"),
        TRAIN % ("-1", "0.5"),
        TRAIN % ("7", "0.5"),  # the run has 6 iterations
        '{"kind": ["train"], "iteration": 1}',
        LAYERS % ("{}", "{}", NO_RESPONSE),
        LAYERS % ('{"conv": 1}', '{"fc": 1}', NO_RESPONSE),
        LAYERS % ('{"conv": 1}', '{"conv": 1}', NO_RESPONSE),  # fewer layers than other lines
        "\x1b]0;title\x07",
    ],
)
def test_a_damaged_line_of_metrics_is_passed_over_with_a_note(line, unstopped, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(unstopped, folder)
    lines = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(f"{line}\n{lines}")
    whole = read_run(unstopped)
    with pytest.warns(UserWarning, match="1 damaged line passed over"):
        run = read_run(folder)
    assert (run.train, run.evals, run.layers) == (whole.train, whole.evals, whole.layers)
    (folder / "metrics.jsonl").write_text(lines + line)  # as a crash leaves it: no note
    assert read_run(folder).evals == whole.evals


def forged(folder, unstopped, change):
    """A copy of a run whose config.json was changed."""
    shutil.copytree(unstopped, folder)
    record = json.loads((folder / "config.json").read_text())
    change(record)
    (folder / "config.json").write_text(json.dumps(record))
    return folder


DEEP = json.loads("[" * 50 + "]" * 50)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("config", "iterations", True),
        ("config", "iterations", 10**4000),
        ("config", "seed", 2**63),
        ("config", "lr", 10**400),
        ("config", "lr", True),
        ("config", "augment", "no"),
        ("config", "net", "resnet8\n(i) held"),
        ("config", "net", ""),
        ("config", "milestones", "12"),
        ("config", "task", "\x1b]0;title\x07" * 500),
        ("config", "backend", ["\n"]),
        ("data", "name", ""),
        ("data", "sha256", 5),
        ("provenance", "plugins", [5]),
        ("provenance", "plugins", "toys.py"),
        ("provenance", "machine", DEEP),
        ("network", "depth", 10**30),
        ("network", "input_shape", [32, 3]),
    ],
)
def test_a_damaged_config_is_one_line(part, name, value, unstopped, tiny, shapes, tmp_path):
    folder = forged(tmp_path / "run", unstopped, lambda record: record[part].update({name: value}))
    with pytest.raises(InputError) as e:
        train(tiny, folder, shapes)
    assert str(e.value).isprintable()
    assert len(str(e.value)) < 1500


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("continued", [{"iteration": "3", "provenance": {}}]),
        ("continued", [{"iteration": 3, "provenance": {"plugins": [None]}}]),
        ("continued", 5),
        ("metrics", [{"name": "error", "scale": 10**400}]),
        ("metrics", "error"),
        ("data", []),
        ("provenance", [["commit", "x"]]),
    ],
)
def test_a_config_with_another_type_in_it_is_damaged(name, value, unstopped, tmp_path):
    folder = forged(tmp_path / "run", unstopped, lambda record: record.update({name: value}))
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        read_run(folder)


def test_texts_of_a_config_cannot_set_the_title_nor_forge_a_line(unstopped, tmp_path):
    evil = "shapes10\x1b]0;title\x07\n  (i)   held          \u202eeverything\ud800"

    def change(record):
        record["data"]["name"] = evil
        record["data"][evil] = evil
        record["provenance"]["commit"] = evil
        record["continued"] = [{"iteration": 1, "provenance": {evil: {evil: [evil]}}}]

    run = read_run(forged(tmp_path / "run", unstopped, change))
    assert run.data["name"].startswith(r"shapes10\x1b]0;title\x07\n  (i)   held")
    assert repr((run.data, run.provenance, run.continued)).isprintable()
    texts = [run.data["name"], *run.data, run.provenance["commit"]]
    texts += [*run.continued[0]["provenance"]]
    assert all(map(str.isprintable, texts))


def safetensors_file(entries, metadata=None):
    """Bytes of a file whose header names these dtypes and shapes: name -> (dtype, shape, bytes)."""
    header = {} if metadata is None else {"__metadata__": metadata}
    body = b""
    for name, (dtype, shape, content) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape}
        header[name]["data_offsets"] = [len(body), len(body) + len(content)]
        body += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F8_E4M3", "I32", "U8", "BOOL", "C64"])
def test_weights_of_another_type_are_refused_by_its_name(dtype, tmp_path):
    size = {"BF16": 2, "F16": 2, "I32": 4, "C64": 8}.get(dtype, 1)
    content = safetensors_file({"w": (dtype, [4], bytes(4 * size))})
    for name in (checkpoint.NAME, checkpoint.WEIGHTS):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"w holds {dtype}, expected F32 or F64"):
            checkpoint.load_weights(tmp_path)
        (tmp_path / name).unlink()


def test_weights_without_a_checksum_are_loaded_with_a_note(unstopped, tmp_path):
    state = checkpoint.load_weights(unstopped)
    entries = {name: ("F32", list(a.shape), a.tobytes()) for name, a in state.items()}
    (tmp_path / checkpoint.WEIGHTS).write_bytes(safetensors_file(entries))
    with pytest.warns(UserWarning, match="no SHA-256"):
        loaded = checkpoint.load_weights(tmp_path)
    assert all(np.array_equal(loaded[name], a) for name, a in state.items())
    with pytest.warns(UserWarning, match="no SHA-256"):
        checkpoint.export_weights(tmp_path)  # writes one, as the note says
    assert checkpoint.load_weights(tmp_path).keys() == state.keys()


def test_notes_name_the_line_that_asked(tmp_path):
    checkpoint.save(tmp_path, {"net/w": np.ones(3)}, {"iteration": 1})
    checkpoint.save(tmp_path, {"net/w": np.ones(3)}, {"iteration": 2})
    (tmp_path / checkpoint.NAME).write_bytes(b"rubbish")
    with pytest.warns(UserWarning, match="the one before") as notes:
        checkpoint.load(tmp_path)
    weights = tmp_path / "weights only"
    weights.mkdir()
    content = safetensors_file({"w": ("F32", [1], bytes(4))})
    (weights / checkpoint.WEIGHTS).write_bytes(content)
    with pytest.warns(UserWarning, match="no SHA-256") as more:
        checkpoint.load_weights(weights)
    assert {note.filename for note in (*notes, *more)} == {__file__}


@pytest.mark.parametrize(("iteration", "whole"), [
    (0, True), (2**63 - 1, True), (-1, False), (2**63, False), (True, False), ("1", False)
])  # fmt: skip
def test_an_iteration_is_a_whole_number_of_64_bits(iteration, whole, tmp_path):
    checkpoint.save(tmp_path, {"w": np.ones(3)}, {"iteration": iteration})
    if whole:
        assert checkpoint.load(tmp_path)[1]["iteration"] == iteration
        assert checkpoint.position(tmp_path) == iteration
    else:
        with pytest.raises(InputError, match="is not a whole checkpoint"):
            checkpoint.load(tmp_path)
        with pytest.raises(InputError, match="is not a whole checkpoint"):
            checkpoint.position(tmp_path)


def test_a_folder_without_weights_has_none_to_load_or_export(tmp_path):
    assert checkpoint.load(tmp_path) is None
    assert checkpoint.position(tmp_path) is None
    assert checkpoint.load_weights(tmp_path) is None
    assert not checkpoint.exists(tmp_path)
    with pytest.raises(InputError, match="no checkpoint to take weights from"):
        checkpoint.export_weights(tmp_path)
    (tmp_path / checkpoint.PREVIOUS).write_bytes(b"")
    assert checkpoint.exists(tmp_path)
    (tmp_path / checkpoint.NAME).mkdir()
    with pytest.raises(InputError, match=r"\(it is a folder\).*; .*Move .* away to start again"):
        checkpoint.load(tmp_path)


def test_the_checksum_covers_names_and_shapes(tmp_path):
    a, b = np.arange(4, dtype="float32"), np.ones(4, "float32")
    checkpoint.save(tmp_path, {"a": a, "b": b}, {"iteration": 1})
    path = tmp_path / checkpoint.NAME
    whole = path.read_bytes()
    for old, new in ((b'"a"', b'"c"'), (b"[4]", b"[2,2]")):
        head = int.from_bytes(whole[:8], "little")
        text = whole[8 : 8 + head].replace(old, new).rstrip()
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + head :])
        with pytest.raises(InputError, match="another SHA-256"):
            checkpoint.read(path)


@pytest.mark.parametrize(
    "change",
    [
        {"iteration": -1},
        {"iteration": 1.5},
        {"iteration": True},
        {"iteration": 10**30},
        {"iteration": 7},
        {"iteration": DEEP},
        {"seconds": "x"},
        {"warm": 1},
        {"running_error": None},
        {"window": {}},
        {"window": {"steps": 0, "loss": "x"}},
        {"config": []},
        {"config": {"net": "\n\x1b"}},
    ],
)
def test_a_checkpoint_with_senseless_values_is_refused_and_the_metrics_are_kept(
    change, unstopped, tiny, shapes, tmp_path
):
    folder = tmp_path / "run"
    shutil.copytree(unstopped, folder)
    for path in folder.glob("checkpoint*"):
        path.unlink()
    arrays, meta = checkpoint.load(unstopped)
    checkpoint.save(folder, arrays, meta | change)
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError) as e:
        train(tiny, folder, shapes)
    assert str(e.value).isprintable()
    assert (folder / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("change", ["shape", "type", "missing", "unknown"])
def test_a_checkpoint_with_odd_arrays_names_the_first(change, unstopped, tiny, shapes, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(unstopped, folder)
    arrays, meta = checkpoint.load(unstopped)
    odd = {
        "shape": {"velocity/fc.w": arrays["velocity/fc.w"][:1]},  # would be broadcast
        "type": {"velocity/fc.w": arrays["velocity/fc.w"].astype("float64")},
        "unknown": {"velocity/fc.w2": arrays["velocity/fc.w"]},
    }
    arrays |= odd.get(change, {})
    if change == "missing":
        del arrays["velocity/fc.w"]
    checkpoint.save(folder, arrays, meta)
    with pytest.raises(InputError, match=r"not of resnet8 for these images \(velocity/fc\.w"):
        train(tiny, folder, shapes)


def test_a_checkpoint_that_cannot_be_opened_is_not_replaced_by_the_one_before(
    tmp_path, monkeypatch
):
    for i in (1, 2):
        checkpoint.save(tmp_path, {"w": np.zeros(1)}, {"iteration": i})

    def refuse(path, *args):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(checkpoint.Path, "open", refuse)
    with pytest.raises(InputError, match=r"Too many open files; raise the limit .*ulimit"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EMFILE, "raise the limit of open files"),
        (errno.EACCES, "choose a folder that can be read and written"),
        (errno.EROFS, "choose a folder that can be read and written"),
    ],
)
def test_the_advice_fits_the_cause(number, advice, tmp_path):
    with pytest.raises(InputError, match=advice) as e, files.writing(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in str(e.value)
    assert ("make room" in str(e.value)) == (number == errno.ENOSPC)


@pytest.mark.skipif(sys.platform == "win32", reason="there no working folder can be deleted")
def test_a_deleted_working_folder_is_named_as_the_cause(tiny, shapes, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for ask in (lambda: train(tiny, Path("run"), shapes), lambda: read_run(Path("run"))):
        with pytest.raises(InputError, match=r"working folder was deleted.*change to a folder"):
            ask()


# ------------------------------------------------------------------------------- ends of a run


def test_a_finished_run_that_lost_its_last_evaluation_is_evaluated_again(
    unstopped, tiny, shapes, tmp_path
):
    folder = tmp_path / "run"
    shutil.copytree(unstopped, folder)
    path = folder / "metrics.jsonl"
    lines = [line for line in path.read_text().splitlines() if '"eval", "iteration": 6' not in line]
    path.write_text("\n".join([*lines, '{"kind": "eval", "iter']))
    assert not read_run(folder).done
    assert RunFolder(folder).position() == 5  # so that an experiment takes it up
    train(tiny, folder, shapes, lambda progress: pytest.fail("it trained again"))
    assert read_run(folder).done
    assert RunFolder(folder).position() == 6
    assert sorted(map(str, metrics(folder))) == sorted(map(str, metrics(unstopped)))


def test_ctrl_c_in_the_last_iteration_says_that_the_run_is_finished(tiny, shapes, tmp_path):
    def press(progress):
        if progress.iteration == tiny.iterations:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(loop.Interrupted) as e:
        train(tiny, tmp_path, shapes, press)
    assert str(e.value) == f"resnet8 is finished: all 6 iterations are saved in {tmp_path}"


def test_a_second_ctrl_c_interrupts_at_once():
    with stopping.stop_requests() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


class Finished:
    """An object whose end calls a function: what that raises is dropped, as in a callback."""

    def __init__(self, call):
        self.call = call

    def __del__(self):
        self.call()


def test_a_ctrl_c_that_python_dropped_is_found_again_and_other_errors_are_shown(monkeypatch):
    dropped, numbers = [], (signal.SIGINT, signal.SIGTERM)
    monkeypatch.setattr(sys, "unraisablehook", lambda args: dropped.append(args.exc_type))
    before = [sys.unraisablehook, *map(signal.getsignal, numbers)]
    for number in numbers:
        with stopping.interrupts_remembered():
            stopping.check_interrupt()  # none so far
            Finished(lambda number=number: signal.raise_signal(number))
            with pytest.raises(KeyboardInterrupt):
                stopping.check_interrupt()
            with pytest.raises(KeyboardInterrupt), stopping.stop_requests():
                pytest.fail("it went on")
            assert not dropped
            Finished(lambda: 1 / 0)
            assert dropped == [ZeroDivisionError]
        assert [sys.unraisablehook, *map(signal.getsignal, numbers)] == before
        stopping.check_interrupt()
        dropped.clear()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_ctrl_c_that_is_remembered_interrupts_as_any_other(number):
    with pytest.raises(KeyboardInterrupt), stopping.interrupts_remembered():
        signal.raise_signal(number)


def test_ctrl_c_is_remembered_only_where_it_would_interrupt():
    def handler(number, frame):
        pytest.fail("nobody pressed it")

    def inside(_=None):
        with stopping.interrupts_remembered():
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor() as pool:
        assert [*pool.map(inside, [None])] == [signal.default_int_handler]
    before = signal.signal(signal.SIGINT, handler)
    try:
        assert inside() is handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="there signals cannot be held back")
def test_a_ctrl_c_that_is_held_back_comes_after_the_block():
    reached = []

    def start():
        with stopping.interrupts_held_back():
            signal.raise_signal(signal.SIGINT)
            reached.append(True)

    with pytest.raises(KeyboardInterrupt):
        start()
    assert reached
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_the_advice_of_a_divergence_reads_no_checkpoint(tiny, shapes, tmp_path, monkeypatch):
    train(tiny, tmp_path, shapes)
    run = state.TrainingRun(tiny, RunFolder(tmp_path), shapes, loop.initial_net(tiny))
    monkeypatch.setattr(RunFolder, "load", lambda *_: pytest.fail("it was read"))
    assert f"the checkpoint in {tmp_path} is from before" in run._advice(0.1)


def test_a_home_folder_is_expanded(tiny, shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert train(replace(tiny, iterations=1), Path("~/run"), shapes) == tmp_path / "run"
    assert (tmp_path / "run" / "config.json").exists()


# ------------------------------------------------------------------------------------ users' tasks


class Odd(task.Classification):
    """Classification with other values in place of its numbers."""

    def __init__(self, method, change):
        self.change = {method: change}

    def step(self, *args):
        return self.change.get("step", lambda v: v)(super().step(*args))

    def evaluate(self, *args):
        return self.change.get("evaluate", lambda v: v)(super().evaluate(*args))


@pytest.fixture
def with_task(tiny, shapes, tmp_path):
    def run(odd):
        task.register("odd", odd)
        try:
            return read_run(train(replace(tiny, task="odd", iterations=1), tmp_path, shapes))
        finally:
            task.unregister("odd")

    return run


@pytest.mark.parametrize("method", ["step", "evaluate"])
@pytest.mark.parametrize("convert", [np.float32, np.float64, np.array])
def test_numbers_of_numpy_are_metrics(method, convert, with_task):
    run = with_task(Odd(method, lambda v: {k: convert(x) for k, x in v.items()}))
    assert run.done
    assert type(run.evals[-1]["test_error"]) is float


@pytest.mark.parametrize("method", ["step", "evaluate"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: {"loss": 1.0}, "error is missing"),
        (lambda v: v | {"error": "low"}, "got 'low' for 'error'"),
        (lambda v: v | {"error": None}, "got None for 'error'"),
        (lambda v: v | {"error": np.zeros(2)}, "for 'error'"),
        (lambda v: v | {"iteration": 3.0}, "for 'iteration'"),
        (lambda v: (1.0, 0.5), r"a dict.*got \(1\.0, 0\.5\)"),
        (lambda v: None, "got None"),
    ],
)
def test_a_task_that_returns_no_numbers_is_told_so(method, change, words, with_task):
    with pytest.raises(InputError, match=f"{method} of the task 'odd' must return.*{words}"):
        with_task(Odd(method, change))


def test_a_task_that_returns_a_loss_of_nan_diverges(with_task):
    with pytest.raises(DivergenceError):
        with_task(Odd("step", lambda v: v | {"loss": float("nan")}))


@pytest.mark.parametrize(
    "named", [("loss",), ("iteration",), ("a", "a")], ids=["loss", "a key", "twice"]
)
def test_metrics_need_names_of_their_own(named):
    odd = task.Classification()
    odd.metrics = tuple(map(task.Metric, named))
    with pytest.raises(InputError, match="names of their own"):
        task.register("odd", odd)


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ((), "must have at least one metric, got none"),
        (("error",), r"must be of minires.runs.metric.Metric, got \('error',\)"),
    ],
)
def test_a_task_without_metrics_is_not_registered(metrics, words):
    odd = task.Classification()
    odd.metrics = metrics
    with pytest.raises(InputError, match=words):
        task.register("odd", odd)
    with pytest.raises(InputError, match="unknown task 'odd': expected one of classification"):
        task.get_task("odd")


@pytest.mark.parametrize("key", ["loss", "error", "extra"])
@pytest.mark.parametrize(
    "value", [True, np.True_, "1", None, 1j, [1.0], np.zeros(1), np.array("1"), np.array(True)]
)
def test_what_is_no_real_number_is_no_metric(key, value):
    whole = {"loss": np.array(1), "error": np.float32(0.5), "extra": 2}
    known = task.get_task("classification")
    assert task.measured_by(known, "odd", "step", whole) == {"loss": 1, "error": 0.5, "extra": 2}
    with pytest.raises(InputError, match=f"for '{key}'; return numbers alone"):
        task.measured_by(known, "odd", "step", whole | {key: value})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((1.0, 0.5), r"got \(1\.0, 0\.5\)"),
        (None, "got None"),
        ({"loss": 1.0}, r"got \['loss'\]; error is missing"),
        ({}, "loss, error is missing"),
        ({"loss": 1.0, "error": 0.5, "lr": 0.1}, "got 0.1 for 'lr'"),
    ],
)
def test_what_is_no_dict_of_all_numbers_says_which_are_expected(values, words):
    known = task.get_task("classification")
    begins = r"evaluate of the task 'odd' must return a dict with the numbers \['loss', 'error'\]"
    with pytest.raises(InputError, match=f"^{begins}, .*{words}"):
        task.measured_by(known, "odd", "evaluate", values)


def test_a_network_that_guesses_errs_in_all_classes_but_one(shapes):
    known = task.get_task("classification")
    assert task.guess_of(known, "classification", shapes) == 0.9
    with pytest.raises(InputError, match="needs the names of the classes, toys has none"):
        known.guess(SimpleNamespace(name="toys", classes=()))


def test_a_guess_of_a_thousand_characters_is_cut_in_the_message(shapes):
    odd = SimpleNamespace(guess=lambda data: 1000 * "x")
    with pytest.raises(InputError, match=f"must return a number, got '{96 * 'x'}[.]{{3}}$"):
        task.guess_of(odd, "odd", shapes)


def test_a_guess_that_is_no_number_is_told_so(with_task):
    odd = Odd("step", lambda v: v)
    odd.guess = lambda data: "half"
    with pytest.raises(InputError, match="guess of the task 'odd' must return a number"):
        with_task(odd)


# --------------------------------------------------------------------------------- what is recorded


def test_the_recorded_learning_rate_is_the_one_that_was_used(tiny, shapes, tmp_path):
    run = read_run(train(replace(tiny, milestones=(2, 4)), tmp_path, shapes))
    np.testing.assert_allclose(
        [line["lr"] for line in run.train], [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


def test_a_line_of_training_is_the_mean_of_the_steps_since_the_last_one(
    tiny, shapes, tmp_path, monkeypatch
):
    measured = iter([(1.0, 0.5), (3.0, 0.5), (8.0, 0.5), (2.0, 0.25), (2.0, 0.75), (5.0, 0.5)])
    monkeypatch.setattr(step, "train_step", lambda *args: next(measured))
    monkeypatch.setattr(state, "LINES", 2)
    run = read_run(train(tiny, tmp_path, shapes))
    lines = [(line["iteration"], line["loss"], line["error"]) for line in run.train]
    assert lines == [(3, 4.0, 0.5), (6, 3.0, 0.5)]


def test_norms_by_layer_are_those_of_the_gradient_and_weight_of_each_convolution(shapes):
    net = resnet(8)
    images, labels = shapes.train[:4]
    train_step(net, SGD(net.parameters()), shapes.prepare(images, None), labels, 0.1)
    record = by_layer(net)
    for kind, arrays in (("gradient_norm", net.gradients()), ("weight_norm", net.parameters())):
        kernels = {n.removesuffix(".w"): a.astype(float) for n, a in arrays.items() if "conv" in n}
        assert len(kernels) == 7
        norms = {name: np.sqrt((a**2).sum()) for name, a in kernels.items()}
        assert record[kind] == pytest.approx(norms, rel=1e-5)
    norms = [name for name, layer in net.named_layers() if isinstance(layer, BatchNorm)]
    assert [*record["response_std"]] == norms


def test_responses_are_the_spread_of_batch_norms_output(rng):
    norm = BatchNorm(3, eps=0.5, momentum=1.0)
    norm.params["gamma"][:] = [0.5, 2.0, -1.0]
    norm.params["beta"][:] = [3.0, -4.0, 0.0]
    x = (0.7 * rng.standard_normal((64, 8, 8, 3))).astype("float32")
    y = norm.forward(x, train=True)
    norm.name = "bn"
    net = Sequential(bn=norm)
    response = by_layer(net)["response_std"]["bn"]
    # the running variance is unbiased, and six digits are recorded
    assert response == pytest.approx(y.astype(float).std(), rel=1 / y[..., 0].size + 1e-5)


def test_the_final_error_is_that_of_the_last_evaluation_not_the_best(unstopped):
    run = read_run(unstopped)
    run.evals[-1]["test_error"] = 0.9
    run.evals[0]["test_error"] = 0.1
    assert final([run], "test").tolist() == [90.0]
