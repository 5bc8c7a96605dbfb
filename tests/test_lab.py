"""The degradation lab: sizes, claims and verdicts, records by layer, figures, the report."""

import base64
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
import types
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minires
from minires import InputError, data, get_ops, plain, resnet
from minires.data import shapes10, training_batch
from minires.lab import claims, degradation, live, plots, presets, report, tables
from minires.lab.layer_plot import turning, turning_message
from minires.lab.notebook import Stopped
from minires.lab.presets import PRESETS
from minires.lab.recorded import by_net, find_runs, noise
from minires.lab.relative_steps import STILL, relative_steps, shares
from minires.lab.studies.deepen import deepen
from minires.lab.studies.identity import fit_identity
from minires.lab.studies.sensitivity import growth, sensitivity
from minires.lab.verdicts import groups
from minires.layers.base import layer_outputs
from minires.nets.registry import facts
from minires.optim import SGD, step_schedule
from minires.runs import checkpoint, files, provenance
from minires.runs.config import Config
from minires.train import state, together
from minires.train.layerwise import by_layer
from minires.train.loop import initial_net, train
from minires.train.progress import Progress, bar, compile_bar, details, follower
from minires.train.step import train_step
from minires.train.stopping import Interrupted

NETS = ("plain20", "plain56", "resnet20", "resnet56")
JPEG = "CIFAR-10 (JPEG copy)"
DEGRADATION = {"plain20": 0.5, "plain56": 0.8, "resnet20": 0.45, "resnet56": 0.5}


@pytest.fixture
def record(tmp_path):
    """Write the folder of a finished run with these errors; call it again for other seeds."""

    def write(
        train=DEGRADATION,
        gap=0.0,
        tier="quick",
        seed=0,
        name=JPEG,
        smallest=0.5,
        folder="exp",
        sha256="0" * 64,
        **changes,
    ):
        for net, error in train.items():
            size = PRESETS[tier]
            base = Config(net, name, size.iterations, lr=size.lr, seed=seed, eval_images=1000)
            base = replace(base, milestones=presets.paper_milestones(size.iterations))
            sizes = {key: getattr(size, key) for key in ("batch_size", "warmup_lr", "augment")}
            config = replace(base, **sizes | changes)
            run = tmp_path / folder / f"{net}-seed{seed}"
            files.make_folder(run)
            origin = {"name": name, "source": "nowhere", "sha256": sha256}
            record = {
                "config": config.to_json(),
                "data": origin,
                "provenance": provenance.provenance(),
            }
            (run / "config.json").write_text(json.dumps(record))
            end, loss = config.iterations, {"loss": 1.0, "seconds": 9.0}
            alike = (
                "stage3.block2.body.conv2",
                "stage3.block3.body.conv1",
                "stage3.block3.body.conv2",
            )
            by_name = dict(zip(alike, (smallest, 0.7, 1.0), strict=True))
            layers = {
                "gradient_norm": by_name,
                "weight_norm": dict.fromkeys(by_name, 2.0),
                "response_std": by_name,
            }
            test = min(1.0, error + (gap if net == "plain56" else 0.1))
            lines = [
                {"kind": "train", "iteration": i, "error": error, "lr": config.lr, **loss}
                for i in (1, end)
            ]
            lines += [
                {"kind": "layers", "iteration": i, "seconds": 9.0, **layers} for i in (1, 100, end)
            ]
            lines += [
                {
                    "kind": "eval",
                    "iteration": end,
                    "train_error": error,
                    "test_error": test,
                    "seconds": 9.0,
                }
            ]
            (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return tmp_path / folder

    return write


def preset_of(config):
    run = types.SimpleNamespace(config=config.to_json(), depth=facts(config.net).depth)
    return presets.preset_name(run)


def verdicts(folder):
    (rows,) = claims.judge(find_runs([folder])).values()
    return {claim.key: verdict for claim, verdict in rows}


# -------------------------------------------------------------------------------------------- sizes


def test_tiers_have_the_papers_schedule_and_the_quick_one_none(shapes):
    configs = {name: presets.base_config(shapes, name) for name in PRESETS}
    assert [c.iterations for c in configs.values()] == [280, 2_000, 16_000, 64_000]
    assert configs["quick"].milestones == ()
    assert configs["lesson"].milestones == (1_000, 1_500)
    assert configs["quarter"].milestones == (8_000, 12_000)
    assert configs["paper"].milestones == (32_000, 48_000)
    assert all(preset_of(c) == name for name, c in configs.items())
    assert preset_of(replace(configs["quick"], lr=0.1)) is None
    assert preset_of(replace(configs["quick"], augment=True)) is None
    assert presets.base_config(shapes, "quick", augment=True).augment
    for change in (
        {"milestones": (500,)},
        {"momentum": 0.0},
        {"weight_decay": 0.0},
        {"augment": False},
    ):
        assert preset_of(replace(configs["lesson"], **change)) is None


def test_the_lesson_tier_warms_up_every_net_and_the_others_those_of_110_layers(shapes):
    lesson, quarter = (presets.base_config(shapes, tier) for tier in ("lesson", "quarter"))
    for net, warmup_lr in (("plain56", None), ("resnet110", 0.01), ("plain1202", 0.01)):
        for base, expected in ((lesson, 0.01), (quarter, warmup_lr)):
            config = presets.with_warmup(replace(base, net=net), facts(net))
            assert config.warmup_lr == expected
            assert PRESETS[preset_of(config)].iterations == config.iterations
    assert preset_of(replace(lesson, warmup_lr=None)) is None
    assert preset_of(replace(quarter, warmup_lr=0.01)) is None
    assert presets.base_config(shapes, "lesson", lr=0.05).warmup_lr is None


def test_networks_for_much_larger_images_are_refused_before_anything_is_trained(
    tiny, shapes, tmp_path
):
    advice = (
        r"made for images of 224x224, got images of 32x32: .* \(minires info imagenet-resnet18\)"
    )
    with pytest.raises(InputError, match=advice):
        presets.base_config(shapes, net="imagenet-resnet18")
    with pytest.raises(InputError, match=advice):
        degradation.run(["plain8", "imagenet-resnet18"], 1, tiny, tmp_path, shapes)
    assert not list(tmp_path.iterdir())
    for sides, net in (((224, 224, 3), "imagenet-resnet18"), ((8, 20, 1), "plain20")):
        presets.check_size(facts(net), types.SimpleNamespace(input_shape=sides))
    with pytest.raises(InputError, match="got images of 32x7"):
        presets.check_size(facts("plain20"), types.SimpleNamespace(input_shape=(32, 7, 3)))


def test_runs_of_one_size_are_judged_apart_where_one_warmed_up(record):
    runs = find_runs([record(tier="lesson"), record(tier="lesson", warmup_lr=None, folder="cold")])
    assert [title.split(":")[0] for title in claims.judge(runs)] == [
        f"{JPEG}, lesson",
        f"{JPEG}, custom size",
    ]


def test_a_tier_asks_for_no_more_images_than_there_are(shapes):
    assert presets.base_config(shapes).eval_images == 32


def test_nets_are_made_of_depths_and_a_shortcut():
    assert degradation.nets() == list(NETS)
    assert degradation.nets(["8", "14"], "B") == ["plain8", "plain14", "resnet8B", "resnet14B"]


def test_a_folder_of_another_run_is_refused_before_anything_is_trained(tiny, shapes, tmp_path):
    train(replace(tiny, net="plain8", seed=1, iterations=2), tmp_path / "plain8-seed1", shapes)
    with pytest.raises(InputError, match="plain8-seed1 holds another run"):
        degradation.run(["plain8"], 2, tiny, tmp_path, shapes, quiet=True)
    assert not (tmp_path / "plain8-seed0" / "metrics.jsonl").exists()


def test_a_long_experiment_says_how_to_stop_it_and_a_finished_one_says_nothing(
    tiny, shapes, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(degradation, "LONG", 6)
    said = []

    def run(config):
        return degradation.run(["plain8"], 1, config, tmp_path, shapes, say=said.append)

    run(tiny)
    assert said == ["Stop it with Ctrl-C at any time; run it again to resume."]
    capsys.readouterr()
    run(tiny)
    assert len(said) == 1
    assert capsys.readouterr().err == ""  # no empty bar


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(28, "No space"), ValueError("closed")]
)
def test_a_message_that_cannot_be_printed_does_not_end_the_experiment(
    tiny, shapes, tmp_path, monkeypatch, error
):
    def fail(*text):
        raise error

    broken = io.StringIO()
    broken.write = broken.flush = fail

    monkeypatch.setattr(degradation, "LONG", 1)
    monkeypatch.setattr(sys, "stderr", broken)
    (folder,) = degradation.run(
        ["plain8"], 1, replace(tiny, iterations=2), tmp_path, shapes, say=fail
    )
    assert find_runs([folder])[0].evals


class Terminal(io.StringIO):
    """A terminal in place of standard error; the fixture `terminal` sets its width."""

    def isatty(self):
        return True

    def fileno(self):
        return 2


@pytest.fixture
def terminal(monkeypatch):
    """Make standard error a terminal with a given number of columns."""

    def make(columns=80):
        monkeypatch.setattr("os.get_terminal_size", lambda fd: os.terminal_size((columns, 24)))
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stderr

    return make


def bars(text):
    """Texts of a bar, in order."""
    return [shown for shown in re.split("[\r\n]", text) if shown.strip()]


@pytest.mark.parametrize("net", ["resnet110", "plain56"])
@pytest.mark.parametrize("runs", [1, 2])
def test_bars_fit_80_columns_and_show_the_errors(terminal, net, runs):
    terminal()
    with bar(runs * 64_000, at_once=True) as progress:
        shown = {}
        for run in range(runs):
            follow = follower(progress, f"{net} seed {run}", 1, shown=shown)
            follow(Progress(123, 64_000, 1.234, 0.43, 0.1))
        progress.refresh()
    lines = bars(sys.stderr.getvalue())
    assert lines[0].startswith("  0%|  ")
    assert all(len(line) < 80 for line in lines)
    for line in lines[1:]:
        assert len(line.split("|")[1]) >= 10
        assert "error" in line
    assert lines[-1].count("43 %") == runs


def test_a_wide_terminal_shows_everything(terminal):
    stream = terminal(200)
    with bar(2, at_once=True) as progress:
        follower(progress, "plain8 seed 3", 1)(Progress(1, 2, 1.25, 0.25, 0.1))
    line = bars(stream.getvalue())[-1]
    assert line.endswith("left, plain8 seed 3 1/2 error 25 %, loss 1.25, lr 0.1")


def test_a_running_bar_has_four_lengths():
    two = {f"plain{depth} seed 0": Progress(3, 9, 1.0, 0.5, 0.1) for depth in (20, 56)}
    assert details(two) == [
        "plain20 seed 0 3/9 error 50 %, plain56 seed 0 3/9 error 50 %",
        "plain20 3/9 error 50 %, plain56 3/9 error 50 %",
        "errors plain20 50 %, plain56 50 %",
        "errors 50 %, 50 %",
    ]


def test_a_log_gets_whole_lines_and_no_carriage_returns(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with bar(10, at_once=True) as progress:
        follow = follower(progress, "plain8", 1)
        for i in range(1, 11):
            follow(Progress(i, 10, 1.0, 0.5, 0.1))
    text = sys.stderr.getvalue()
    assert "\r" not in text
    assert text.startswith("100% after 00:00, 00:00 left, plain8 10/10")
    assert text.endswith("\n")
    assert text.count("\n") == 1


def test_work_that_is_done_already_shows_no_bar(monkeypatch, terminal):
    for stream in (terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with bar(10):
            pass
        assert stream.getvalue() == ""


@pytest.mark.parametrize("quiet", [True, False])
def test_there_is_no_bar_without_standard_error_or_if_quiet(monkeypatch, quiet):
    stream = Terminal() if quiet else None
    monkeypatch.setattr(sys, "stderr", stream)
    with bar(10, quiet, at_once=True) as progress:
        follower(progress, "plain8", 1)(Progress(1, 10, 1.0, 0.5, 0.1))
    assert stream is None or stream.getvalue() == ""


def test_the_bar_for_compiling_appears_with_the_first_kernel_and_has_a_total(monkeypatch, terminal):
    for stream, first in (
        (terminal(), "compiling for this machine: 0 of 10 kernels |"),
        (io.StringIO(), "compiling for this machine\n"),
    ):
        monkeypatch.setattr(sys, "stderr", stream)
        with compile_bar() as report:
            assert stream.getvalue() == ""
            report("conv", 0, 10)
            assert stream.getvalue().lstrip("\r").startswith(first)
            report("norm", 7, 10)
        assert ("7 of 10" in stream.getvalue()) == stream.isatty()
        assert ("\r" in stream.getvalue()) == stream.isatty()


def test_the_time_before_the_first_step_is_done_does_not_count_as_speed(monkeypatch, terminal):
    now = 0.0
    monkeypatch.setattr("tqdm.std.time", lambda: now)
    stream = terminal(200)
    with bar(1_000) as progress:
        follow = follower(progress, "plain8", 1)
        now = 600.0  # of starting and compiling
        follow(Progress(101, 1_000, 1.0, 0.5, 0.1))
        assert "10:00, ? left" in bars(stream.getvalue())[-1]
        now += 2.0
        follow(Progress(102, 1_000, 1.0, 0.5, 0.1))
        assert progress.format_dict["rate"] == pytest.approx(0.5)


def test_what_a_stopped_run_had_behind_it_does_not_count_as_speed(monkeypatch):
    clock = itertools.count(0, 0.25)
    monkeypatch.setattr("tqdm.std.time", lambda: now)
    now = next(clock)
    with bar(16_000) as progress:
        follow = follower(progress, "plain8", 1)
        for iteration in range(8_001, 8_401):
            now = next(clock)
            follow(Progress(iteration, 16_000, 1.0, 0.5, 0.1))
        shown = progress.format_dict
    assert (shown["total"] - shown["n"]) / shown["rate"] == pytest.approx(7_600 * 0.25, rel=0.05)


# ------------------------------------------------------------------------------------------- claims


def test_claims_hold_where_every_seed_has_the_margin(record):
    record(seed=0)
    found = verdicts(record({**DEGRADATION, "plain56": 0.62}, seed=1))
    assert found["i"].held
    assert found["ii"].held
    assert "30.00, 12.00 points; at least 10 demanded" in found["i"].numbers


def test_a_claim_does_not_hold_where_one_seed_misses_the_margin(record):
    record(seed=0)
    found = verdicts(record({**DEGRADATION, "resnet56": 0.75}, seed=1))
    assert found["i"].held
    assert found["ii"].held is False
    assert str(found["ii"]) == "NOT HELD"


def test_what_was_not_trained_is_not_measured(record):
    found = verdicts(record({"plain20": 0.5}))
    assert {key for key, verdict in found.items() if verdict.held is None} == {
        "i",
        "ii",
        "iii",
        "v",
        "vi",
    }


def test_a_run_that_is_not_finished_decides_nothing(record):
    metrics = record() / "plain56-seed0" / "metrics.jsonl"
    *lines, last = metrics.read_text().splitlines()
    metrics.write_text("\n".join([*lines, last.replace('"iteration": 280', '"iteration": 140')]))
    found = verdicts(metrics.parents[1])
    assert [found[key].held for key in ("i", "ii", "iii")] == [None, None, None]
    assert found["iv"].numbers.startswith("plain20")


def test_the_same_nets_and_seeds_of_two_experiments_are_judged_apart(record):
    runs = find_runs([record(folder="a"), record({**DEGRADATION, "plain56": 0.55}, folder="b")])
    judged = claims.judge(runs)
    assert [
        title.rsplit("in ", 1)[1].endswith(folder)
        for title, folder in zip(judged, "ab", strict=True)
    ]
    assert [{c.key: v.held for c, v in rows}["i"] for rows in judged.values()] == [True, False]


@pytest.mark.parametrize("changes", [{"bn_images": 0}, {"eval_images": 64}, {"sha256": "1" * 64}])
def test_runs_measured_otherwise_or_on_other_images_are_judged_apart(record, changes):
    runs = find_runs(
        [record({"plain20": 0.5}, folder="a"), record({"plain56": 0.8}, folder="b", **changes)]
    )
    judged = claims.judge(runs)
    assert [{c.key: v.held for c, v in rows}["i"] for rows in judged.values()] == [None, None]
    told = {
        "bn_images": "statistics of 0",
        "eval_images": "on 64 images",
        "sha256": f"images {'1' * 12}",
    }
    assert sorted(told[next(iter(changes))] in title for title in judged) == [False, True]


def test_two_runs_of_one_net_and_seed_in_one_folder_decide_nothing(record):
    (record({"plain56": 0.55}, backend="numba", folder="b") / "plain56-seed0").rename(
        record() / "again"
    )
    found = verdicts(record())
    assert [found[key].held for key in ("i", "ii", "iii", "iv")] == [None] * 4
    assert "plain56 with seed 0 is in" in found["i"].reason
    assert "again" in found["i"].reason


def test_records_are_judged_without_the_backend_that_made_them(record, monkeypatch):
    monkeypatch.setattr("minires.ops.importlib.util.find_spec", lambda name: None)
    get_ops.cache_clear()
    with pytest.raises(InputError, match="needs Numba"):
        initial_net(Config("plain8", JPEG, 1, backend="numba"))
    found = verdicts(Path(__file__).parents[1] / "lessons" / "runs" / "lesson-cifar10")
    assert all(found[key].held for key in ("i", "ii", "iii", "iv"))


def test_a_folder_that_does_not_exist_is_not_passed_over(record, run_cli, tmp_path):
    for command in ("plot", "claims", "report", "export"):
        code, _, err = run_cli(command, record(), tmp_path / "mistyped")
        assert code == 2
        assert "no run in" in err
        assert "mistyped" in err


def test_a_folder_given_twice_is_one_run(record):
    folder = record({"plain20": 0.5})
    assert len(find_runs([folder, folder / "plain20-seed0", folder / ".." / "exp"])) == 1


@pytest.mark.parametrize(("ratio", "held"), [(100.01, True), (99.99, False)])
def test_sensitivity_is_compared_between_the_plain_net_and_its_residual_twin(
    monkeypatch, ratio, held
):
    distances = {"plain": ratio * 1e-12, "resnet": 1e-12}
    ends = {
        f"{family}{depth}": end for family, end in distances.items() for depth in (8, 14, 20, 32)
    }
    ends["plain32"] = 1e-13  # plain20 decides
    monkeypatch.setattr(claims, "sensitivity", lambda net: np.geomspace(1e-14, ends[net], 11))
    verdict = claims._sensitivity.__wrapped__()
    assert verdict.held is held
    assert "after 10 steps plain20's copies are 1e+02 times as far apart" in verdict.numbers
    assert "100 demanded; growth per step, plain and residual: 2.5 and 1.6 at 8" in verdict.numbers


def test_sensitivity_is_measured_under_a_bar_that_names_the_claim(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(claims, "sensitivity", lambda net: np.geomspace(1e-14, 1e-12, 11))
    claims._sensitivity.__wrapped__()
    assert re.search(r"^100% after .*\bclaim \(vi\)$", sys.stderr.getvalue(), re.M)


@pytest.mark.parametrize("tier", PRESETS)
@pytest.mark.parametrize(("more", "held"), [(0.00001, True), (-0.00001, False)])
def test_claims_i_and_ii_are_decided_at_the_margin_of_the_preset(record, tier, more, held):
    error = 0.3 + PRESETS[tier].margin / 100 + more
    errors = {"plain20": 0.3, "plain56": error, "resnet20": 0.3, "resnet56": 0.3}
    found = verdicts(record(errors, tier=tier))
    assert [found[key].held for key in ("i", "ii")] == [held, held]


@pytest.mark.parametrize(("lost", "held"), [(-0.002, True), (0.002, False)])
def test_claim_iii_is_decided_at_three_standard_errors(record, lost, held):
    gap = 0.1
    for _ in range(6):  # the standard error depends on the gap itself
        plain20, plain56 = ([run] for run in find_runs([record(gap=gap)])[:2])
        measured = itertools.product((plain20, plain56), ("train", "test"))
        gap = 0.1 + noise(*measured, times=3) / 100
    assert verdicts(record(gap=gap + lost))["iii"].held is held


@pytest.mark.parametrize(("more", "held"), [(0.5, True), (-0.5, False)])
def test_on_fresh_images_the_difference_must_exceed_two_standard_errors(record, more, held):
    def write(folder, error):
        return record(
            {"plain20": 0.4, "plain56": error}, gap=0.1, name="shapes10-fresh", folder=folder
        )

    plain20, plain56 = ([run] for run in find_runs([write("a", 0.45)]))
    chance = noise((plain56, "test"), (plain20, "test"))
    found = verdicts(write("b", 0.4 + (chance + more) / 100))["iii"]
    assert found.held is held


@pytest.mark.parametrize("smallest", [(0.4, 0.0092), (0.0092, 0.4)])
def test_the_smallest_step_of_any_deepest_net_decides_on_vanishing_gradients(record, smallest):
    for seed, share in enumerate(smallest):  # one seed is enough to refute
        folder = record(smallest=share, seed=seed)
    found = verdicts(folder)["iv"]
    assert found.held is False
    assert found.numbers.startswith("plain56, smallest relative step")
    assert " at step 1, 0.01 demanded; later" in found.numbers
    counts = ("1/0", "0/1")[smallest[0] > smallest[1]]
    assert f"0.0092 at step 100 ({counts} of 3 layers below 0.01)" in found.numbers
    for metrics in folder.glob("plain56-*/metrics.jsonl"):
        metrics.unlink()
    assert verdicts(folder)["iv"].held is False  # plain20 is the deepest now
    record({"plain20": 0.5}, smallest=0.0092, seed=2, folder="c")
    assert verdicts(record({"plain56": 0.5}, smallest=0.4, folder="c"))["iv"].held  # deepest only


def change_layers(metrics, step, change):
    """Change the records by layer of one step, or of every step if it is None."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "layers" and step in (None, line["iteration"]):
            change(line)
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(("step", "held"), [(1, False), (100, True), (280, True)])
def test_the_first_step_decides_on_vanishing_gradients_and_later_ones_are_listed(
    record, step, held
):
    metrics = record() / "plain56-seed0" / "metrics.jsonl"
    smaller = {"stage3.block3.body.conv1": 0.0004}
    change_layers(metrics, step, lambda line: line["gradient_norm"].update(smaller))
    found = verdicts(metrics.parents[1])["iv"]
    assert found.held is held
    assert f"0.0004 at step {step}" in found.numbers
    assert re.findall(r"at step (\d+)", found.numbers) == ["1", "100", "280"]


def test_without_a_record_of_the_first_step_vanishing_gradients_are_not_judged(record):
    metrics = record() / "plain56-seed0" / "metrics.jsonl"
    change_layers(metrics, 1, lambda line: line.update(iteration=2))
    found = verdicts(metrics.parents[1])["iv"]
    assert found.held is None
    assert found.reason == "needs a record by layer of the first step"


@pytest.mark.parametrize(
    ("points", "held"), [(0.09, True), (-0.09, True), (0.11, False), (-0.11, False)]
)
def test_claim_v_allows_a_tenth_of_a_point(record, monkeypatch, points, held):
    net = types.SimpleNamespace(
        use=lambda backend: net, load_state=lambda state: net, forward=lambda x: np.ones((2, 10))
    )
    errors = iter([0.3, 0.3 + points / 100])
    images = types.SimpleNamespace(
        train=np.zeros(2000), prepare=lambda images, rng: images, with_images=lambda *_: images
    )
    monkeypatch.setattr(claims, "load_weights", lambda folder: {})
    monkeypatch.setattr(claims, "load_data", lambda run, folder: images)
    monkeypatch.setattr(claims, "Rows", lambda data, rows: FakeRows())
    monkeypatch.setattr(claims, "by_name", lambda name: net)
    deeper = types.SimpleNamespace(forward=lambda x: np.full((2, 10), 0.98))
    monkeypatch.setattr(claims, "deepen", lambda net, depth, x: deeper)
    monkeypatch.setattr(claims, "evaluate", lambda *a: (0.0, next(errors)))
    runs = find_runs([record({"plain20": 0.3}, bn_images=0)])
    verdict = claims._construction(claims.Group(runs))
    assert verdict.held is held
    assert f"30.00 %, of the plain56 made of it {30 + points:.2f} %" in verdict.numbers
    assert verdict.numbers.endswith("; logits apart by 2e-02 of the largest")


class FakeRows:
    """Images whose pixels do not matter."""

    def __getitem__(self, rows):
        return np.zeros((2, 1)), np.zeros(2)


def test_claim_v_needs_runs_of_classification_and_the_weights_of_the_first_seed(record):
    record({"plain20": 0.3}, seed=1)
    runs = find_runs([record({"plain20": 0.3})])
    assert claims._construction(claims.Group(runs)).reason == "needs the weights of plain20-seed0"
    runs[0].config["task"] = "regression"
    assert claims._construction(claims.Group(runs)).reason == "needs runs of classification"
    assert claims._construction(claims.Group([])).reason == "needs a finished run of plain20"


def test_claims_that_were_not_measured_take_one_line(record):
    judged = claims.judge(find_runs([record({"plain20": 0.5, "plain56": 0.8}, iterations=250)]))
    title, *lines = claims.text(judged).splitlines()
    assert title.startswith(f"Claims on {JPEG}, custom size: 250 iterations")
    assert [line.split()[0] for line in lines] == ["(i)", "(iii)", "(iv)", "not", "not", "not"]
    assert lines[0] == "  (i)   not measured  plain56 above plain20 by 30.00 points"
    presets_only = "needs runs of a preset (--tier quick, lesson, quarter, paper)"
    assert f"  not measured: (i), (iii), (iv): {presets_only}" in lines
    twin = "needs finished runs of plain56 and resnet56 with the same seed"
    assert f"  not measured: (ii): {twin}" in lines
    assert lines[-1].startswith("  not measured: (v), (vi): takes a minute; ask for it with: ")


def test_claims_are_listed_with_what_decided_them_and_those_without_by_their_reason():
    found = {
        "i": claims.Verdict(True, "1 point"),
        "ii": claims.Verdict(False, "2 points"),
        "iii": claims.Verdict(None, "3 points", "needs a preset"),
        "iv": claims.Verdict(None, reason="needs runs"),
        "v": claims.Verdict(None, reason="needs a preset"),
    }
    rows = [(claims.Claim(key, f"Sentence {key}.", None), v) for key, v in found.items()]
    assert claims.text({"a title": rows, "another": rows[:1]}).splitlines() == [
        "Claims on a title",
        "  (i)   held          Sentence i.",
        "                      1 point",
        "  (ii)  NOT HELD      Sentence ii.",
        "                      2 points",
        "  (iii) not measured  3 points",
        "  not measured: (iii), (v): needs a preset",
        "  not measured: (iv): needs runs",
        "Claims on another",
        "  (i)   held          Sentence i.",
        "                      1 point",
    ]


def test_claims_and_verdicts_cannot_be_changed(record):
    for fixed in (claims.CLAIMS[0], claims.Verdict(True), claims.Group([])):
        with pytest.raises(FrozenInstanceError):
            setattr(fixed, fields(fixed)[0].name, None)


def test_claims_have_a_title_of_size_and_seeds_and_of_evaluation_where_only_that_differs(record):
    quick = PRESETS["quick"]
    size = f"{quick.iterations} iterations of {quick.batch_size} images at lr {quick.lr}"

    def titles(*folders):
        return [title for title, _, _ in groups(find_runs(folders))]

    one = f"{JPEG}, quick: {size}, 1 seed"
    assert titles(record()) == [one]
    other = record(seed=2, eval_images=500, folder="b")
    images = Config("plain20", "cifar10", 1).bn_images
    assert titles(record(), other) == [
        f"{one}, errors on {n} images, statistics of {images}, images {12 * '0'}"
        for n in (1000, 500)
    ]
    assert titles(record(seed=1)) == [f"{JPEG}, quick: {size}, 2 seeds"]


DAMAGED = {
    "a list": "[]",
    "text": "rubbish",
    "nested": "[" * 100_000,
    "nested verdicts": '{"a": ' * 2_000 + "1" + "}" * 2_000,
    "a list of verdicts": '{"a": ["v"]}',
    "a number for a group": '{"a": 1}',
    "a text for a verdict": '{"a": {"v": "held"}}',
    "an unknown key": '{"a": {"v": {"held": true, "numbers": "1", "evil\\n": 1}}}',
    "a missing key": '{"a": {"v": {"held": true}}}',
    "held is a text": '{"a": {"v": {"held": "yes", "numbers": "1"}}}',
    "held is a number": '{"a": {"v": {"held": 1, "numbers": "1"}}}',
    "numbers is a list": '{"a": {"v": {"held": true, "numbers": []}}}',
    "a huge integer": '{"a": {"v": {"held": true, "numbers": ' + "9" * 6_000 + "}}}",
    "other bytes": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_of_verdicts_is_one_line(record, run_cli, kind):
    folder = record({"plain20": 0.5})
    content = DAMAGED[kind]
    (folder / claims.FILE).write_bytes(content if isinstance(content, bytes) else content.encode())
    for command in ("claims", "report"):
        code, _, err = run_cli(command, folder)
        assert code == 2
        assert "is damaged" in err
        assert "--all writes a new one" in err
        assert len(err.strip().splitlines()) == 1
        assert len(err) < 500


def test_a_file_of_verdicts_forges_no_line_and_sets_no_title(record, run_cli):
    folder = record({"plain20": 0.5})
    (title,) = claims.judge(find_runs([folder]))
    forged = {"held": True, "numbers": "1\n  (i)   held          forged\x1b]0;title\x07"}
    (folder / claims.FILE).write_text(json.dumps({title: {"v": forged}}))
    code, out, _ = run_cli("claims", folder)
    assert code == 0
    assert "\n  (i)   held" not in out
    assert "\x1b" not in out
    assert "\\n  (i)" in out


def test_other_sizes_than_the_tiers_decide_nothing_but_show_their_numbers(record):
    found = verdicts(record(iterations=250))
    assert all(found[key].held is None for key in ("i", "ii", "iii", "iv"))
    assert "30.00 points" in found["i"].numbers


def test_a_larger_gap_of_the_deep_net_would_be_overfitting(record):
    assert verdicts(record(gap=0.1, folder="a"))["iii"].held
    assert verdicts(record(gap=0.19, folder="b"))["iii"].held is False


def test_noise_is_twice_the_sampling_error_and_test_images_are_shared_by_all_seeds(
    record,
):
    record({"plain20": 0.5}, seed=1)
    runs = find_runs([record({"plain20": 0.5})])
    assert noise((runs, "train")) == pytest.approx(100 * 2 * (0.5 * 0.5 / 2000) ** 0.5)
    assert noise((runs, "test")) == pytest.approx(100 * 2 * (0.6 * 0.4 / 1000) ** 0.5)
    assert noise((runs, "train"), (runs, "train"), times=3) == pytest.approx(
        100 * 3 * (0.5 / 2000) ** 0.5
    )


def test_two_sampling_errors_do_not_refute(record):
    plain20, plain56 = (
        [run] for run in find_runs([record(gap=0.16)])[:2]
    )  # 10 and 16 points from train to test
    assert noise(*itertools.product((plain20, plain56), ("train", "test"))) < 6
    assert verdicts(record(gap=0.16))["iii"].held


def test_with_fresh_images_the_deep_net_must_err_more_on_new_images(record):
    assert verdicts(record(gap=0.1, name="shapes10-fresh", folder="a"))["iii"].held
    found = verdicts(
        record({**DEGRADATION, "plain56": 0.52}, gap=0.1, name="shapes10-fresh", folder="b")
    )["iii"]
    assert found.held is False
    assert "no image is seen twice" in found.numbers


@pytest.mark.parametrize("tier", PRESETS)
def test_a_layer_stands_still_below_a_hundredth_of_the_last_ones_step_however_long_the_run(
    record, tier
):
    assert verdicts(record(tier=tier, smallest=0.0108, folder="a"))["iv"].held
    assert verdicts(record(tier=tier, smallest=0.0092, folder="b"))["iv"].held is False


def test_the_share_that_counts_as_standing_still_is_the_papers_last_rate_by_its_first():
    first, *_, last = (step_schedule(1.0, (1, 2), t) for t in range(3))
    assert last / first == pytest.approx(STILL, rel=1e-15)


@pytest.mark.parametrize(("factor", "held"), [(0.5**0.5, False), (0.95, True)])
def test_gradients_that_shrink_as_by_a_poor_initialisation_have_vanished(record, factor, held):
    metrics = record() / "plain56-seed0" / "metrics.jsonl"
    convs = [name[:-2] for name, w in plain(56).parameters().items() if w.ndim == 4]
    norms = {name: factor ** (len(convs) - 1 - i) for i, name in enumerate(convs)}
    change_layers(metrics, None, lambda line: line.update(gradient_norm=norms))
    change_layers(metrics, None, lambda line: line.update(weight_norm=dict.fromkeys(convs, 2.0)))
    assert verdicts(metrics.parent.parent)["iv"].held is held


def test_a_layer_without_any_gradient_has_vanished_and_is_named_so(record):
    folder = record(smallest=0.0)
    assert verdicts(folder)["iv"].held is False
    assert tables.layers_message(find_runs([folder])).endswith("some layers get no gradient at all")
    for metrics in folder.glob("*/metrics.jsonl"):
        metrics.write_text(
            metrics.read_text().replace(
                '"stage3.block3.body.conv2": 1.0', '"stage3.block3.body.conv2": 0'
            )
        )
    assert verdicts(folder)["iv"].held is False


def test_groups_of_other_data_and_sizes_are_judged_apart(record):
    record()
    runs = find_runs(
        [record(tier="lesson", folder="b"), record(name="shapes10", folder="c"), record()]
    )
    assert [title.split(":")[0] for title in claims.judge(runs)] == [
        "CIFAR-10 (JPEG copy), lesson", "shapes10, quick", "CIFAR-10 (JPEG copy), quick",
    ]  # fmt: skip


def test_computed_verdicts_are_kept_beside_the_runs(record, monkeypatch):
    monkeypatch.setattr(claims, "_sensitivity", lambda: claims.Verdict(True, "1e4 times"))
    folder = record({"resnet20": 0.5})
    claims.judge(find_runs([folder]), compute=True)
    assert verdicts(folder)["vi"] == claims.Verdict(True, "1e4 times")
    assert [list(known) for known in json.loads((folder / claims.FILE).read_text()).values()] == [
        ["vi"]
    ]  # decided ones
    record({"resnet20": 0.5}, tier="lesson", folder="exp/longer")
    for path in (folder / "longer").iterdir():
        path.rename(folder / f"longer-{path.name}")
    judged = claims.judge(find_runs([folder]))  # one preset's verdict does not apply to another
    found = {
        title.split(", ")[1].split(":")[0]: {c.key: v.held for c, v in rows}
        for title, rows in judged.items()
    }
    assert {tier: held["vi"] for tier, held in found.items()} == {"quick": True, "lesson": None}
    (folder / claims.FILE).write_text("[]")
    with pytest.raises(InputError, match="damaged"):
        verdicts(folder)


def test_computed_verdicts_need_neither_a_preset_nor_one_run_of_each_seed(record, monkeypatch):
    monkeypatch.setattr(claims, "_sensitivity", lambda: claims.Verdict(True, "1e4 times"))
    folder = record({"resnet20": 0.5}, iterations=250)
    for again in (False, True):
        if again:
            shutil.copytree(folder / "resnet20-seed0", folder / "again")
        ((title, rows),) = claims.judge(find_runs([folder]), compute=True).items()
        assert "custom size" in title
        assert {claim.key: verdict.held for claim, verdict in rows}["vi"], again


def test_a_run_that_was_trained_on_other_images_than_those_found_is_not_compared_with_them(
    record, shapes, monkeypatch
):
    monkeypatch.setattr(data.shapes10, "dataset", lambda **_: shapes)
    (same,) = find_runs([record({"plain20": 0.5}, name="shapes10", sha256=shapes.sha256)])
    (other,) = find_runs([record({"plain20": 0.5}, name="shapes10", folder="other")])
    assert claims.load_data(same, None).sha256 == shapes.sha256
    with pytest.raises(InputError, match="plain20-seed0 was trained on other images than"):
        claims.load_data(other, None)


def test_the_solution_exists_by_construction(tiny, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(data.shapes10, "dataset", lambda **_: shapes)
    config = replace(tiny, net="plain20", iterations=2, eval_every=2)
    folder = train(config, tmp_path / "plain20-seed0", shapes)
    for name in (checkpoint.export_weights(folder).name, None):
        group = claims.Group(find_runs([tmp_path]))
        verdict = claims._construction(group)
        assert verdict.held, name
        assert "logits apart by" in verdict.numbers
        for path in folder.glob("checkpoint*"):  # the second time, weights alone must do
            path.unlink()
    other = data.ArraySplit(shapes.test.images, shapes.test.labels[::-1])
    monkeypatch.setattr(data.shapes10, "dataset", lambda **_: replace(shapes, test=other))
    with pytest.raises(InputError, match="other images"):
        claims._construction(group)


STUDIES = ("ablations-cifar10", "race-cifar10-begun")  # not the experiment: other recipes


def test_every_recorded_run_of_the_repository_keeps_its_own_claims():
    root = Path(__file__).parents[1] / "lessons" / "runs"
    folders = {path.parents[1] for path in root.rglob("config.json")} - {
        root / name for name in STUDIES
    }
    page = (root / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w-]+)` \| `([^`]*)`.*\| ([\d, ]+) \|[^|]*\|$", page, re.M)
    made_by = {name: (command, seeds.split(", ")) for name, command, seeds in listed}
    assert made_by.keys() == {folder.name for folder in folders}
    assert made_by.keys() >= {"quick-cifar10", "quick-shapes10", "lesson-cifar10", "lesson-110"}
    for folder in folders:
        runs, (command, seeds) = find_runs([folder]), made_by[folder.name]
        named = re.search(r"--nets (\S+)", command)
        nets = named[1].split(",") if named else ["plain20", "plain56", "resnet20", "resnet56"]
        promised = itertools.product(nets, seeds)
        assert sorted((run.net, str(run.config["seed"])) for run in runs) == sorted(promised)
        assert all(run.done for run in runs), folder
        assert all(Config.from_json(run.config).to_json() == run.config for run in runs)
        for title, rows in claims.judge(runs).items():
            refuted = {claim.key for claim, verdict in rows if verdict.held is False}
            assert not refuted, title
            tiers = {presets.preset_name(run) for run in runs}
            assert tiers == {
                None if folder.name.startswith("cold-start") else folder.name.split("-")[0]
            }
            if None not in tiers and {"plain20", "plain56", "resnet56"} <= {
                run.net for run in runs
            }:
                assert {"i", "ii", "iii", "iv"} <= {
                    claim.key for claim, verdict in rows if verdict.held
                }, title
        weights = sorted(folder.glob("*/weights.safetensors"))
        if folder.name in ("quick-cifar10", "lesson-cifar10"):
            assert [path.parent.name for path in weights] == ["plain20-seed0", "resnet20-seed0"]
        for path in weights:
            net = plain if path.parent.name.startswith("plain") else resnet
            net(20).load_state(checkpoint.load_weights(path.parent))
            assert path.stat().st_size <= 2_000_000


# --------------------------------------------------------------------- construction and sensitivity


@pytest.mark.parametrize("with_images", [False, True])
def test_a_deepened_net_computes_the_same(with_images, rng):
    net = plain(8, rng=1)
    x = rng.standard_normal((16, 32, 32, 3)).astype(np.float32)
    net.forward(x, train=True)  # running statistics that are not 0 and 1
    net.forget()
    deeper = deepen(net, 20, x if with_images else None)
    assert deeper.title == "plain20"
    np.testing.assert_allclose(deeper.forward(x), net.forward(x), rtol=1e-4, atol=1e-5)


def test_identity_layers_with_the_statistics_of_images_are_identities_in_training_too(rng):
    net = plain(8, rng=1).astype("float64")
    x = rng.standard_normal((8, 32, 32, 3))
    outputs = layer_outputs(deepen(net, 14, x), x)
    before, after = outputs["stage1.block1"], outputs["stage1.block2"]
    np.testing.assert_allclose(after, before, atol=1e-12)
    layer = deepen(net, 14, x).children["stage1"].children["block2"]
    np.testing.assert_allclose(layer.forward(before, train=True), before, atol=1e-9)


def test_only_plain_nets_are_deepened_and_never_made_shallower():
    for net, depth in ((resnet(8), 14), (plain(14), 8)):
        with pytest.raises(InputError, match="expected a plain net"):
            deepen(net, depth)


def test_a_rounding_error_grows_faster_in_the_plain_net():
    distances = {net: sensitivity(net, 6, batch_size=8) for net in ("plain20", "resnet20")}
    assert (distances["resnet20"] > 0).all()
    assert distances["plain20"][-1] > 10 * distances["resnet20"][-1]


def test_a_plain_net_parts_less_at_a_lower_rate():
    fast, slow = (sensitivity("plain14", 4, batch_size=4, lr=lr)[-1] for lr in (1e-1, 1e-4))
    assert fast > 10 * slow > 0


def test_an_identity_is_fitted_with_shortcuts_and_less_well_by_deeper_plain_stacks():
    def ends(layers, shortcuts):
        return fit_identity(layers, shortcuts, lr=1e-3, steps=80, channels=4)[-10:].mean()

    assert ends(2, True) < 0.1 * ends(2, False)
    assert ends(2, False) < ends(6, False)


def test_the_error_of_a_fitted_identity_is_a_share_of_the_variance():
    # an untrained plain stack gives out y with the distribution of x, and nearly independent of it
    errors = fit_identity(2, False, lr=0.0, steps=10, channels=4)
    assert errors.mean() == pytest.approx(2, rel=0.1)


def test_growth_is_the_factor_of_each_step_until_the_distance_is_large():
    assert growth(1e-17 * 4.0 ** np.arange(10)) == pytest.approx(4)
    assert growth(np.array([1e-12, 1e-9, 1e-6, 1e-3, 2e-3, 2e-3])) == pytest.approx(1000)


# ------------------------------------------------------------------------------------ records, data


def test_responses_by_layer_are_those_of_a_forward_pass(rng):
    net = resnet(8, "B").astype("float64")
    for w in net.parameters().values():
        if w.ndim == 1:
            w += rng.normal(0, 0.5, w.shape)
    x = rng.standard_normal((4, 32, 32, 3))
    for layer in (layer for _, layer in net.named_layers() if hasattr(layer, "momentum")):
        layer.momentum = 1.0
    outputs = layer_outputs(net, x, train=True)
    net.backward(rng.standard_normal((4, 10)))
    found = by_layer(net)
    assert list(found["response_std"]) == [
        name for name in outputs if name.split(".")[-1].startswith("bn")
    ]
    for name, std in found["response_std"].items():
        assert std == pytest.approx(outputs[name].std(), rel=1e-4), name
    for name, norm in found["gradient_norm"].items():
        assert norm == pytest.approx(np.linalg.norm(net.gradients()[f"{name}.w"]), rel=1e-5)


def test_layers_are_recorded_at_the_first_step_and_the_last(tiny, shapes, tmp_path):
    (run,) = find_runs([train(tiny, tmp_path, shapes)])
    assert [line["iteration"] for line in run.layers] == [1, 6]
    assert len(run.layers[0]["gradient_norm"]) == len(run.layers[0]["response_std"]) == 7


def test_a_net_is_recorded_by_its_title(tiny, shapes, tmp_path):
    (run,) = find_runs([train(replace(tiny, net="resnet-8", iterations=1), tmp_path, shapes)])
    assert run.net == "resnet8"


def test_the_first_relative_step_belongs_to_the_weights_before_it(tiny, shapes, tmp_path):
    config = replace(tiny, lr=10.0, iterations=1, eval_every=1)
    (run,) = find_runs([train(config, tmp_path, shapes)])
    net = initial_net(config)
    batch = training_batch(shapes, config.seed, 0, config.batch_size, augment=config.augment)
    train_step(net, SGD(net.parameters()), *batch, lr=0.0)
    still = by_layer(net)
    expected = {name: g / still["weight_norm"][name] for name, g in still["gradient_norm"].items()}
    assert relative_steps(run)[1] == pytest.approx(expected, rel=1e-5)
    assert run.layers[0]["weight_norm"]["conv"] > 2 * still["weight_norm"]["conv"]


def test_a_step_turns_a_layer_by_the_root_mean_square_of_its_filters_angles(rng):
    net = plain(8, rng=1).astype("float64")
    images, labels = rng.standard_normal((8, 32, 32, 3)), rng.integers(0, 10, 8)
    _, dlogits = net.ops.softmax_cross_entropy(net.forward(images, train=True), labels)
    net.backward(dlogits)
    name = "stage2.block1.body.conv2.w"
    w, dw = (a[name].reshape(-1, 32) for a in (net.parameters(), net.gradients()))
    lengths, slopes = (np.linalg.norm(a, axis=0) for a in (w, dw))
    assert (abs((w * dw).sum(axis=0)) < 1e-4 * lengths * slopes).all()  # 0 if eps were 0
    angle = 1e-3
    after = w - angle * np.linalg.norm(w) / np.linalg.norm(dw) * dw
    turned = np.arccos((w * after).sum(axis=0) / lengths / np.linalg.norm(after, axis=0))
    assert np.sqrt(np.average(turned**2, weights=lengths**2)) == pytest.approx(angle, rel=1e-4)


def test_plain110_stands_still_in_70_layers_at_step_100_and_explodes_at_step_1():
    records = Path(__file__).parents[1] / "lessons" / "runs" / "lesson-110"
    (run,) = (run for run in find_runs([records]) if run.net == "plain110")
    found = shares(run)
    assert {step: int((share < STILL).sum()) for step, share in found.items()} == {
        1: 0, 100: 70, 2000: 69
    }  # fmt: skip
    assert found[1].max() > 1e6
    figure = turning([run])
    assert [axes.get_title() for axes in figure.axes] == ["step 1", "step 100", "step 2,000"]
    assert turning_message([run]) == (
        "Layers of plain110 below 1 % of the last one's step: "
        "0 of 109 at step 1, 70 at step 100, 69 at step 2,000"
    )
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), found[100])


def test_the_figure_and_its_message_have_every_seed_of_the_deepest_plain_net():
    records = Path(__file__).parents[1] / "lessons" / "runs" / "lesson-cifar10"
    runs = [run for run in find_runs([records]) if run.net == "plain56"]
    assert turning_message(runs) == (
        "Layers of plain56 below 1 % of the last one's step, by seed: "
        "0/0/0 of 55 at step 1, 7/1/0 at step 100, 0/0/0 at step 2,000"
    )
    lines = turning(runs).axes[1].lines[: len(runs)]
    for line, run in zip(lines, runs, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), shares(run)[100])


def test_relative_steps_leave_out_shortcuts_and_the_figure_needs_a_record_by_layer(
    tiny, shapes, tmp_path
):
    config = replace(tiny, net="resnet8B", iterations=1, eval_every=1)
    (run,) = find_runs([train(config, tmp_path, shapes)])
    recorded = run.layers[0]["gradient_norm"]
    assert [name for name in recorded if name not in relative_steps(run)[1]] == [
        name for name in recorded if ".shortcut" in name
    ]
    assert len(recorded) > len(relative_steps(run)[1])
    with pytest.raises(InputError, match="without gradients"):
        turning([replace(run, layers=[])])


def test_fresh_images_are_a_function_of_seed_and_step(tmp_path, tiny):
    fresh = shapes10.dataset(train=96, test=32, fresh=True)
    first, again, other = (training_batch(fresh, 0, i, 8)[0] for i in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    config = replace(tiny, net="plain8", dataset=fresh.name)
    whole = checkpoint.load(train(config, tmp_path / "whole", fresh))[0]

    def stop(progress):
        if progress.iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", fresh, stop)
    resumed = checkpoint.load(train(config, tmp_path / "stopped", fresh))[0]
    assert all(np.array_equal(resumed[name], a) for name, a in whole.items())


def test_weights_alone_are_small_and_complete(tiny, shapes, tmp_path):
    folder = train(replace(tiny, net="resnet20", iterations=1), tmp_path, shapes)
    path = checkpoint.export_weights(folder)
    assert path.stat().st_size < 1.2e6
    state = checkpoint.load_weights(folder)
    assert resnet(20).load_state(state).state().keys() == state.keys()
    altered = {name: a + 1 for name, a in state.items()}
    whole = path.read_bytes()
    for content in (b"rubbish", whole.replace(state["fc.w"].tobytes(), altered["fc.w"].tobytes())):
        path.write_bytes(content)
        assert (
            checkpoint.load_weights(folder).keys() == state.keys()
        )  # the checkpoint is newer than any export
        (folder / checkpoint.NAME).rename(tmp_path / "aside")
        with pytest.raises(InputError, match=r"damaged|not a file of weights"):
            checkpoint.load_weights(folder)
        (tmp_path / "aside").rename(folder / checkpoint.NAME)
    checkpoint.save(folder, {f"net/{name}": a for name, a in altered.items()}, {"iteration": 1})
    checkpoint.export_weights(folder)
    (folder / checkpoint.NAME).unlink()
    (folder / checkpoint.PREVIOUS).unlink()
    assert np.array_equal(checkpoint.load_weights(folder)["fc.w"], altered["fc.w"])
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoint.export_weights(tmp_path / "nothing")


def test_provenance_names_the_commit_and_nothing_where_there_is_none(monkeypatch):
    commit = provenance.provenance()["commit"]
    assert commit is None or len(commit.removesuffix("-dirty")) == 40

    def missing(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert provenance.provenance()["commit"] is None


def test_git_is_not_asked_where_there_is_no_repository(monkeypatch, tmp_path):
    monkeypatch.setattr(minires, "__file__", str(tmp_path / "minires" / "__init__.py"))
    asked = types.SimpleNamespace(
        run=lambda *a, **k: pytest.fail("git was run")
    )  # platform runs uname by the real one
    monkeypatch.setattr(provenance, "subprocess", asked)
    assert provenance.provenance()["commit"] is None


# ----------------------------------------------------------------------- figures, report, notebooks


@pytest.mark.parametrize("kind", plots.FIGURES)
def test_every_kind_of_figure_is_drawn_as_png_and_svg(kind, record, run_cli, tmp_path):
    folder = record()
    for ending in (".png", ".svg"):
        code, out, _ = run_cli("plot", folder, "--kind", kind, "--out", tmp_path / f"a{ending}")
        assert code == 0
        assert "plain56 30.0 points above plain20" in out
    with Image.open(tmp_path / "a.png") as image:
        assert image.size[0] > 1000
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_runs_without_layers_are_refused_by_their_figure(record, run_cli):
    folder = record()
    for path in folder.glob("*/metrics.jsonl"):
        path.write_text(
            "\n".join(line for line in path.read_text().splitlines() if '"layers"' not in line)
        )
    code, _, err = run_cli("plot", folder, "--kind", "layers")
    assert code == 2
    assert "recorded without" in err


@pytest.mark.parametrize(("kind", "drawn"), [("errors", 1), ("depth", 0), ("layers", 0)])
def test_watching_draws_what_there_is_until_the_runs_are_done(
    kind, drawn, record, run_cli, monkeypatch, tmp_path
):
    folder = record({"plain20": 0.5})
    metrics = folder / "plain20-seed0" / "metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole.splitlines()[0] + "\n")
    monkeypatch.setattr(time, "sleep", lambda seconds: metrics.write_text(whole))
    code, out, _ = run_cli("plot", folder, "--kind", kind, "--watch", "--out", tmp_path / "a.png")
    assert code == 0
    assert out.count("drawn ") == drawn


def test_watching_hides_no_mistake(record, run_cli, tmp_path, monkeypatch):
    def fail(*_):
        raise InputError("cannot write")

    monkeypatch.setattr(plots, "save", fail)
    metrics = record() / "plain20-seed0" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines()[0] + "\n")
    code, _, err = run_cli("plot", tmp_path / "exp", "--watch", "--out", tmp_path / "a.png")
    assert code == 2
    assert "cannot write" in err


def test_runs_of_several_recipes_are_not_averaged_as_seeds(record):
    folders = [
        record({"plain20": 0.5, "plain56": 0.8}),
        record({"plain20": 0.3}, tier="lesson", folder="longer"),
    ]
    runs = find_runs(folders)
    assert {title: len(group) for title, group in by_net(runs).items()} == {
        "plain20, 280 iterations": 1,
        "plain20, 2000 iterations": 1,
        "plain56": 1,
    }
    expected = "plain20, 280 iterations 50.0 %; plain20, 2000 iterations 30.0 %; plain56 80.0 %"
    assert tables.message(runs) == f"Training error: {expected}"
    assert [line[3] for line in tables.table_lines(runs)[1:]] == ["50.0", "30.0", "80.0"]
    for figure in plots.FIGURES.values():
        figure(runs)


def test_two_commands_that_differ_in_one_option_are_two_recipes(record):
    def names(**changes):
        runs = find_runs(
            [record({"plain20": 0.5}, folder="a"), record({"plain20": 0.5}, folder="b", **changes)]
        )
        return list(by_net(runs))

    assert names(bn_images=0) == ["plain20, recomputed statistics", "plain20, moving averages"]
    assert names(warmup_lr=0.001) == ["plain20, no warm-up", "plain20, warm-up 0.001"]
    assert names(lr=0.01000001) == ["plain20, lr 0.01", "plain20, lr 0.01000001"]
    assert names(augment=True) == ["plain20, no crops and flips", "plain20, crops and flips"]
    assert names(eval_images=64) == ["plain20, eval images 1000", "plain20, eval images 64"]
    assert names(sha256="1" * 64) == [
        "plain20, images 000000000000",
        "plain20, images 111111111111",
    ]


def test_runs_on_other_images_of_the_same_name_are_not_compared(record):
    runs = find_runs(
        [
            record({"plain20": 0.5}, folder="a"),
            record({"plain56": 0.8}, folder="b", sha256="1" * 64),
        ]
    )
    assert tables.message(runs) == "Training error: plain20 50.0 %; plain56 80.0 %"


def test_marks_stand_where_the_rate_fell_or_is_to_fall(record):
    def marks(*rates):
        metrics = record({"plain20": 0.5}, tier="lesson") / "plain20-seed0" / "metrics.jsonl"
        kept = [line for line in metrics.read_text().splitlines() if '"train"' not in line]
        lines = [
            {"kind": "train", "iteration": i, "error": 0.5, "lr": lr, "seconds": 1.0}
            for i, lr in rates
        ]
        metrics.write_text("\n".join([*map(json.dumps, lines), *kept]) + "\n")
        (axes,) = plots.errors(find_runs([metrics.parents[1]])).axes
        return [int(text.get_position()[0]) for text in axes.texts]

    assert marks((1, 0.1)) == [1000, 1500]  # still to come
    assert marks((1000, 0.1), (1001, 0.01), (1500, 0.01), (1501, 0.001)) == [1000, 1500]
    assert marks((1, 0.01), (1200, 0.01), (2000, 0.001)) == [1500]  # it warmed up for 1,200 steps
    assert marks((1, 0.01), (1001, 0.01), (2000, 0.01)) == []


def test_the_message_says_above_below_or_alike(record):
    runs = find_runs([record({**DEGRADATION, "resnet56": 0.46})])
    told = tables.message(runs)
    assert told.startswith(
        "Training error: plain56 30.0 points above plain20; resnet56 and resnet20 alike (within 4."
    )
    assert told.endswith("; resnet56 34.0 points below plain56")


def test_the_table_has_mean_and_range_of_the_seeds(record):
    record({"plain20": 0.5}, seed=0)
    runs = find_runs([record({"plain20": 0.3}, seed=1)])
    assert tables.table_lines(runs)[1] == [
        "plain20",
        "2",
        "280",
        "40.0 (30.0 to 50.0)",
        "50.0 (40.0 to 60.0)",
        "0.1",
    ]


def test_runs_in_progress_are_compared_where_all_have_arrived(record):
    record({"plain20": 0.3}, seed=1)
    folder = record({"plain20": 0.1, "plain56": 0.2})
    for run in folder.iterdir():
        *lines, end = (run / "metrics.jsonl").read_text().splitlines()
        early = json.loads(end) | {"iteration": 140, "train_error": 0.6, "seconds": 60.0}
        kept = [] if run.name == "plain20-seed1" else [end]
        (run / "metrics.jsonl").write_text("\n".join([*lines, json.dumps(early), *kept]) + "\n")
    runs = find_runs([folder])
    assert tables.message(runs) == "Still training: training error: plain20 60.0 %; plain56 20.0 %"
    *cells, _, minutes = tables.table_lines(runs)[1]
    assert cells == ["plain20", "2", "140", "60.0 (60.0 to 60.0)"]
    assert minutes == "1.0"
    assert "1 to 2 seeds each" in report.page(runs, {})


def test_runs_that_stand_at_the_same_iteration_are_not_at_their_end(record):
    folder = record({"plain20": 0.1, "plain56": 0.2})
    for metrics in folder.glob("*/metrics.jsonl"):
        metrics.write_text(
            metrics.read_text().replace('"eval", "iteration": 280', '"eval", "iteration": 140')
        )
    runs = find_runs([folder])
    assert tables.message(runs).startswith("Still training: ")
    assert plots.depth(runs).axes[0].get_ylabel() == "error measured last (%)"


def test_two_nets_without_an_error_are_alike(record):
    runs = find_runs([record({"plain20": 0.0, "plain56": 0.0})])
    assert (
        tables.message(runs)
        == "Training error: plain56 and plain20 alike (within 0.0 points of noise)"
    )


def test_the_running_mean_is_over_the_latest_values():
    np.testing.assert_allclose(
        plots._running_mean(np.array([1.0, 3.0, 8.0, 4.0]), 2), [1, 2, 5.5, 6]
    )


def test_a_seed_that_has_just_begun_does_not_hide_the_others(record):
    record({"plain20": 0.5, "resnet20": 0.4})
    metrics = record({"plain20": 0.5}, seed=1) / "plain20-seed1" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines()[0] + "\n")
    plain_panel, _ = plots.errors(find_runs([metrics.parents[1]])).axes
    labels = [text.get_text() for text in plain_panel.get_legend().get_texts()]
    assert labels == ["plain20 train 50.0 %", "plain20 test 60.0 %"]


def page(record, folder="exp"):
    folder = record({**DEGRADATION}, name="<b>tricky & data", folder=folder)
    runs = find_runs([folder])
    return report.page(runs, claims.judge(runs))


def test_the_report_needs_nothing_from_elsewhere_and_escapes_what_it_quotes(record):
    html = page(record)
    assert "http:" not in html
    assert "https:" not in html
    assert "<b>" not in html
    assert "&lt;b&gt;tricky &amp; data" in html
    assert html.count("<img ") == html.count('alt="') == 3
    assert all(f"<th>{claim.key}</th>" in html for claim in claims.CLAIMS)


def test_the_report_says_what_went_on_with_a_run(record):
    path = record({"plain20": 0.5}) / "plain20-seed0/config.json"
    other = {"commit": "0123", "versions": {"numpy": "9.9"}, "machine": {"processor": "another"}}
    told = json.loads(path.read_text()) | {"continued": [{"iteration": 70, "provenance": other}]}
    path.write_text(json.dumps(told))
    html = report.page(find_runs([path.parents[1]]), {})
    assert "<tr><th>from iteration 70 on.commit</th><td>0123</td></tr>" in html
    assert "<tr><th>from iteration 70 on.machine.processor</th><td>another</td></tr>" in html


def test_the_report_says_which_run_was_made_where_and_repeats_single_seeds_one_by_one(record):
    folder = record({"plain20": 0.5, "resnet20": 0.4}, seed=3)
    path = folder / "plain20-seed3/config.json"
    told = json.loads(path.read_text())
    told["provenance"]["machine"]["processor"] = "another"
    path.write_text(json.dumps(told))
    runs = find_runs([folder])
    assert "<tr><th></th><th>plain20 seed 3</th><th>resnet20 seed 3</th></tr>" in report.page(
        runs, {}
    )
    assert [command.split(" --batch")[0] for command in report.commands(runs)] == [
        f"minires train {net} --seed 3 --iterations 280 --lr 0.01 --no-augment"
        for net in ("plain20", "resnet20")
    ]


def test_the_report_repeats_no_more_seeds_of_a_net_than_were_run(record):
    for seed in range(3):
        record({"plain20": 0.5, "resnet20": 0.4}, seed=seed)
    made = report.commands(find_runs([record({"plain56": 0.8})]))
    assert [re.findall(r"--nets (\S+) --seeds (\d)", command) for command in made] == [
        [("plain20,resnet20", "3")], [("plain56", "1")],
    ]  # fmt: skip


def test_errors_by_depth_need_errors(record):
    metrics = record({"plain20": 0.5}) / "plain20-seed0" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match="has measured its errors yet"):
        plots.depth(find_runs([metrics.parents[1]]))


def test_a_browser_shows_the_report(record, tmp_path):
    names = (
        "google-chrome",
        "chrome",
        "chromium",
        "chromium-browser",
    )  # a chromium may be a snap, which sees no /tmp
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip(f"needs a browser, one of: {', '.join(names)}")
    file = tmp_path / "report.html"
    probe = "<script>document.title = [innerWidth >= document.documentElement.scrollWidth, " \
        "[...document.images].every(i => i.naturalWidth > 100)]</script>"  # fmt: skip
    html = page(record).replace("style-src", "script-src 'unsafe-inline'; style-src")
    file.write_text(html.replace("</body>", f"{probe}</body>"))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
    ]
    options += [
        "--disable-background-networking",
        "--disable-component-update",
        "--window-size=500,900",
    ]
    options += [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=2000",
        "--dump-dom",
        file.as_uri(),
    ]
    dom = subprocess.run([browser, *options], capture_output=True, text=True, timeout=60).stdout
    assert "<title>true,true</title>" in dom  # no horizontal scroll, every figure decoded
    assert "plain56 30.0 points above plain20" in dom


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--warmup-lr", 0.0012345678, "--augment"),
        ("--lr", 0.01234567, "--moving-average", "--backend", "numpy"),
    ],
    ids=["cold", "warm and augmented", "of its own"],
)
def test_the_report_says_the_command_that_makes_its_runs_again(
    run_cli, tmp_path, shapes, monkeypatch, options
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data.shapes10, "dataset", lambda **_: shapes)
    quick = ("--iterations", 2, "--batch-size", 2, "--eval-images", 8, "--quiet", "--out", "exp")
    run_cli("degradation", "--dataset", "shapes10", "--depths", "8", "--seeds", 2, *options, *quick)
    (command,) = report.commands(find_runs([Path("exp")]))
    monkeypatch.setattr(together, "train", lambda *a: pytest.fail("it trained again"))
    assert command.startswith("minires degradation")
    assert run_cli(*command.split()[1:], "--out", "exp", "--quiet")[0] == 0
    assert run_cli("report", "exp")[0] == 0
    assert command in Path("exp/report.html").read_text()


def fake_ipython(monkeypatch, shown):
    class Handle:
        def update(self, picture):
            shown.append(picture)

    def display(picture, display_id):
        shown.append(picture)
        return Handle()

    package, module = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    package.version_info = (9, 0)  # matplotlib asks for it when it draws for the first time
    module.HTML, module.display = str, display
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)


def test_live_curves_are_drawn_while_they_train(tiny, shapes, tmp_path, monkeypatch):
    shown = []
    fake_ipython(monkeypatch, shown)
    folders = live(["plain8"], replace(tiny, iterations=3), tmp_path, shapes, seconds=0.0)
    assert [f.name for f in folders] == ["plain8-seed0"]
    assert len(shown) == 4  # after each iteration, and at the end
    for picture in shown:
        alt, png = re.fullmatch(
            '<img alt="(.*)" width="900" src="data:image/png;base64,(.*)">', picture
        ).groups()
        assert base64.b64decode(png).startswith(b"\x89PNG")
    assert alt.startswith("Curves by iteration. Training error: plain8 ")


def test_live_curves_wait_for_the_first_line(tiny, shapes, tmp_path, monkeypatch):
    shown = []
    fake_ipython(monkeypatch, shown)
    monkeypatch.setattr(state, "LINES", 2)  # a line for three iterations
    live(["plain8"], tiny, tmp_path, shapes, seconds=0.0)
    assert len(shown) == 5


@pytest.mark.parametrize("stop", [Interrupted("saved; minires resume x"), KeyboardInterrupt()])
def test_an_interrupted_cell_ends_with_one_line_in_the_words_of_a_notebook(
    tiny, shapes, tmp_path, monkeypatch, stop
):
    shown = []
    fake_ipython(monkeypatch, shown)

    def train(*args, report, **options):
        raise stop

    monkeypatch.setattr(degradation, "run", train)
    with pytest.raises(Stopped, match="run this cell again to resume") as raised:
        live(["plain8"], tiny, tmp_path, shapes)
    (line,) = raised.value._render_traceback_()
    assert line == str(raised.value)
    assert "Ctrl-C" not in line
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_nothing_that_live_prints_speaks_of_ctrl_c(tiny, shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(degradation, "LONG", 1)
    fake_ipython(monkeypatch, [])
    live(["plain8"], replace(tiny, iterations=2), tmp_path, shapes)
    assert "Ctrl-C" not in "".join(capsys.readouterr())


def test_curves_that_cannot_be_drawn_do_not_end_a_run(tiny, shapes, tmp_path, monkeypatch):
    fake_ipython(monkeypatch, [])

    def fail(runs):
        raise InputError("different metrics")

    monkeypatch.setattr(plots, "errors", fail)
    with pytest.warns(UserWarning, match="cannot be drawn: different metrics"):
        (folder,) = live(["plain8"], replace(tiny, iterations=2), tmp_path, shapes, seconds=0.0)
    assert find_runs([folder])[0].done


def test_live_curves_without_ipython_are_one_message(tiny, shapes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(InputError, match="pip install ipython"):
        live(["plain8"], tiny, tmp_path, shapes)


# ----------------------------------------------------------------------------------- what one types


def test_the_claims_decide_the_exit_code(record, run_cli):
    code, out, _ = run_cli("claims", record(folder="a"))
    assert code == 0
    assert out.count(" held  ") == 4
    code, out, _ = run_cli("claims", record({**DEGRADATION, "plain56": 0.55}, folder="b"))
    assert code == 1
    assert "(i)   NOT HELD" in out


def test_degradation_prints_its_claims_and_exits_by_them(
    record, run_cli, monkeypatch, tmp_path, shapes
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data.shapes10, "dataset", lambda **_: shapes)
    for expected, error in ((0, 0.8), (1, 0.55)):
        folder = record({**DEGRADATION, "plain56": error}, folder=str(error))
        monkeypatch.setattr(
            degradation, "run", lambda *a, folder=folder, **_: sorted(folder.glob("*-seed0"))
        )
        code, out, _ = run_cli(
            "degradation", "--dataset", "shapes10", "--tier", "quick", "--out", folder
        )
        assert code == expected
        assert ("NOT HELD" in out) == bool(expected)


def test_export_writes_weights(tiny, shapes, tmp_path, run_cli):
    train(replace(tiny, iterations=1), tmp_path / "run", shapes)
    code, out, _ = run_cli("export", tmp_path / "run")
    assert code == 0
    assert "weights.safetensors: 0.3" in out
