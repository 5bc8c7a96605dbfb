"""Users add an op, a layer, a family, a data set and a task: everything works with them.

`toys.py` is such a user's file; no file of minires/ names what is in it.
"""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys

from minires import InputError, data, gradcheck, ops
from minires.lab import plots, presets, report, tables
from minires.lab.recorded import find_runs
from minires.nets import audit, registry
from minires.runs import checkpoint
from minires.train import task
from minires.train.loop import train

HERE = Path(__file__).parent
FILE = HERE / "toys.py"
TRAIN = ("train", "pocket-tiny", "--dataset", "bars", "--task", "regression", "--lr", "0.01")
TRAIN += ("--batch-size", "8", "--eval-images", "16", "--no-augment", "--backend", "numpy")


@pytest.fixture(autouse=True)
def registered():
    toys.register()
    yield
    toys.unregister()


def minires(folder, *words, check=True):
    """Type a command in a process of its own, which knows the toys by --plugin only."""
    command = [sys.executable, "-m", "minires", "--plugin", str(FILE), *map(str, words)]
    setting = os.environ | {"PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        command, cwd=folder, env=setting, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def test_no_file_of_the_package_names_the_toys():
    words = re.compile(r"soft.?shrink|pocket|[\"']bars[\"']|rmse", re.I)
    for path in sorted((HERE.parent / "minires").rglob("*.py")):
        assert not words.search(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("backend", ops.BACKENDS)
def test_a_registered_op_is_in_both_backends_and_its_gradient_is_checked(backend):
    backend_ops = ops.get_ops(backend)
    x = np.random.default_rng(0).standard_normal((3, 4, 4, 2))
    gradcheck.check_op(backend_ops.soft_shrink_forward, backend_ops.soft_shrink_backward, x, 0.5)
    gradcheck.check_layer(toys.SoftShrink(0.5).use(backend), x)


def test_a_registered_network_is_audited_with_its_own_layer():
    net = registry.by_name("pocket-tiny")
    rows = {row.name: row for row in audit.audit(net)}
    assert rows["conv"].shape == (10, 10, 4)
    assert rows["conv"].macs == 10 * 10 * 3 * 3 * 4
    assert audit.macs(net) == 10 * 10 * 3 * 3 * 4 + 4 * 3
    assert "pocket-tiny: 2 weighted layers" in audit.table(net)


def test_what_a_registered_layer_draws_depends_on_seed_and_iteration_alone():
    net = registry.by_name("pocket-tiny", rng=1)
    x = np.random.default_rng(0).standard_normal((2, 20, 20, 1)).astype(np.float32)

    def output(seed):
        net.reseed(np.random.SeedSequence(seed))
        return net.forward(x, train=True)

    np.testing.assert_array_equal(output(5), output(5))
    assert not np.array_equal(output(5), output(6))


def last_metrics(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    evals = [line for line in map(json.loads, lines) if line["kind"] == "eval"]
    return {k: v for k, v in evals[-1].items() if k != "seconds"}


def test_a_run_of_toys_is_killed_and_resumed_by_a_process_that_knows_the_plugin(tmp_path):
    minires(tmp_path, *TRAIN, "--iterations", 60, "--out", "whole", "--quiet")
    killer = tmp_path / "killer.py"
    killer.write_text(
        f"import os, runpy\nfrom minires.train import state\n"
        f"state.CHECKPOINT_SECONDS = -1.0\nrunpy.run_path({str(FILE)!r}, "
        "run_name='minires_plugin_toys')\nsave = state.TrainingRun.save\n"
        "def dying(run):\n    save(run)\n    if run.iteration == 23: os._exit(9)\n"
        "state.TrainingRun.save = dying\nimport sys\n"
        f"sys.argv = ['minires', *{[*TRAIN, '--iterations', '60', '--out', 'killed', '--quiet']!r}]"
        "\nfrom minires import cli\ncli.main()\n"
    )
    setting = os.environ | {"PYTHONPATH": str(HERE.parent)}
    died = subprocess.run([sys.executable, str(killer)], cwd=tmp_path, env=setting, check=False)
    assert died.returncode == 9
    assert checkpoint.position(tmp_path / "killed") == 23

    without = [sys.executable, "-m", "minires", "resume", "killed"]
    refused = subprocess.run(
        without, cwd=tmp_path, env=setting, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "bars" in refused.stderr

    minires(tmp_path, "resume", "killed", "--quiet")
    (arrays, _), (expected, _) = (checkpoint.load(tmp_path / n) for n in ("killed", "whole"))
    assert {k: a.tobytes() for k, a in arrays.items()} == {
        k: a.tobytes() for k, a in expected.items()
    }
    assert last_metrics(tmp_path / "killed") == last_metrics(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="signals to another process are POSIX's")
def test_the_message_after_ctrl_c_names_the_plugin(tmp_path):
    command = [sys.executable, "-m", "minires", "--plugin", str(FILE), *TRAIN]
    command += ["--iterations", "100000", "--eval-every", "100000", "--out", "run", "--quiet"]
    setting = os.environ | {"PYTHONPATH": str(HERE.parent)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=setting, stderr=subprocess.PIPE, text=True
    ) as process:
        metrics = tmp_path / "run" / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        message = process.stderr.read()
    assert process.returncode == 130
    assert f"minires --plugin {FILE} resume run" in message


def test_recorded_toys_are_drawn_tabled_and_reported_without_the_plugin(tmp_path, run_cli):
    for seed in (0, 1):
        out = f"exp/pocket-seed{seed}"
        minires(tmp_path, *TRAIN, "--iterations", 20, "--seed", seed, "--out", out, "--quiet")
    toys.unregister()
    try:
        runs = find_runs([tmp_path / "exp"])
        assert {(run.family, run.depth, run.facts.classes) for run in runs} == {("pocket", 2, 3)}
        assert run_cli("plot", tmp_path / "exp", "--out", tmp_path / "a.png")[0] == 0
        table = tables.table(runs)
        page = report.page(runs, {})
        figure = plots.errors(runs)
    finally:
        toys.register()
    assert "train rmse" in table
    assert "test rmse" in table
    assert "%" not in table.splitlines()[0]
    labels = [axes.get_ylabel() for axes in figure.axes]
    titles = [axes.get_title(loc) for axes in figure.axes for loc in ("left", "center")]
    assert any("rmse" in label for label in labels)
    assert not any("residual" in title for title in titles)
    assert any("pocket" in title for title in titles)
    assert "pocket-tiny" in page
    assert "--plugin toys.py" in page


def test_a_report_repeats_a_run_of_toys_by_a_command_that_gives_the_same_bits(tmp_path):
    minires(tmp_path, *TRAIN, "--iterations", 20, "--momentum", 0.5, "--out", "a", "--quiet")
    minires(tmp_path, "report", "a")
    page = (tmp_path / "a" / "report.html").read_text()
    command = re.search(r"minires --plugin toys\.py (degradation [^<\n]*)", page)[1].split()
    assert command[command.index("--momentum") + 1] == "0.5"
    assert command[command.index("--task") + 1] == "regression"
    minires(tmp_path, *command, "--out", "again", "--quiet")
    again = tmp_path / "again" / "pocket-tiny-seed0"
    (arrays, _), (expected, _) = (checkpoint.load(n) for n in (again, tmp_path / "a"))
    assert {k: a.tobytes() for k, a in arrays.items()} == {
        k: a.tobytes() for k, a in expected.items()
    }


def test_registered_networks_are_benchmarked(tmp_path):
    done = minires(
        tmp_path, "bench", "--nets", "pocket-tiny", "--backend", "numpy", "--rounds", 1,
        "--batch-size", 4, "--out", "bench.json",
    )  # fmt: skip
    record = json.loads((tmp_path / "bench.json").read_text())
    assert [t["net"] for t in record["timings"]] == ["pocket-tiny"]
    assert "SoftShrink forward" in record["timings"][0]["kinds"]
    assert "pocket-tiny" in done.stdout


def test_a_network_that_was_fitted_to_other_data_has_their_shape_and_classes():
    found = registry.fit(registry.facts("resnet8"), (20, 20, 1), 3)
    net = registry.make(found, rng=0)
    logits = net.forward(np.zeros((2, 20, 20, 1), np.float32))
    assert logits.shape == (2, 3)
    assert net.parameters()["conv.w"].shape == (3, 3, 1, 16)


# -------------------------------------------------------------- what is built in is registered so


@pytest.mark.parametrize("family", ["plain", "resnet", "imagenet-resnet"])
def test_our_networks_are_registered_like_the_toys(family, monkeypatch):
    monkeypatch.setattr(registry, "FAMILIES", dict(registry.FAMILIES))
    name = f"{family}18" if "imagenet" in family else f"{family}20"
    assert registry.facts(name).family == family
    registry.unregister(family)
    with pytest.raises(InputError, match="unknown network"):
        registry.facts(name)


@pytest.mark.parametrize("name", ["cifar10", "shapes10", "shapes10-fresh"])
def test_our_data_sets_are_registered_like_the_toys(name, monkeypatch):
    monkeypatch.setattr(data.sources, "SOURCES", dict(data.sources.SOURCES))
    assert name in data.sources.SOURCES
    data.unregister(name)
    with pytest.raises(InputError, match=f"expected a data set named .*, but got '{name}'"):
        data.load(name)


def test_classification_is_registered_like_the_toys(monkeypatch):
    monkeypatch.setattr(task, "TASKS", dict(task.TASKS))
    assert isinstance(task.get_task("classification"), task.Classification)
    task.unregister("classification")
    with pytest.raises(InputError, match="unknown task 'classification'"):
        task.get_task("classification")


@pytest.mark.parametrize(
    "again",
    [
        lambda: registry.register("pocket", toys.parse, toys.make),
        lambda: data.register("bars", toys.bars),
        lambda: task.register("regression", toys.Regression()),
    ],
    ids=["family", "data set", "task"],
)
def test_a_name_is_registered_once(again):
    with pytest.raises(InputError, match="registered already"):
        again()


# ------------------------------------------------------------------------------------ the plugin


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "expected a Python file, found none"), ("1 +", "SyntaxError"), ("1 / 0", "ZeroDiv")],
    ids=["missing", "no Python", "raises"],
)
def test_a_plugin_that_cannot_be_imported_is_one_line_and_exit_code_2(text, message, tmp_path):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    command = [sys.executable, "-m", "minires", "--plugin", str(file), "info"]
    setting = os.environ | {"PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, env=setting, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_options_of_a_task_without_warm_up_are_refused(tmp_path):
    done = minires(
        tmp_path, *TRAIN, "--iterations", 4, "--warmup-lr", 0.001, "--out", "a", check=False
    )
    assert done.returncode == 2
    assert "no warm-up" in done.stderr


def test_a_deep_net_gets_no_warm_up_from_a_task_without_one(tiny):
    config = replace(tiny, net="resnet110", task="regression")
    assert presets.with_warmup(config, registry.facts("resnet110")).warmup_lr is None
    config = replace(config, task="classification")
    assert presets.with_warmup(config, registry.facts("resnet110")).warmup_lr == 0.01


def test_classification_of_data_without_classes_is_refused(tiny, tmp_path):
    nameless = replace(toys.bars(), classes=())
    with pytest.raises(InputError, match="names of the classes"):
        train(replace(tiny, net="pocket-tiny", dataset="bars"), tmp_path, nameless)
