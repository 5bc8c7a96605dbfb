"""The command line: tables, figures, exit codes, one line for a mistake."""

import ast
import ctypes
import inspect
import io
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
import tomllib
import types
import warnings
from dataclasses import replace
from pathlib import Path

import lowest_versions
import numpy as np
import pytest
import typer
from PIL import Image

import minires
from minires import data, ops, resnet, text
from minires.bench import nets as bench_nets
from minires.cli import names, options, streams, timing
from minires.cli import train as train_commands
from minires.cli.main import STOPPED
from minires.errors import InputError, quoted
from minires.exchange import weights
from minires.lab import plots, presets
from minires.runs import checkpoint
from minires.runs.run import read_run
from minires.runs.run_folder import RunFolder
from minires.train import progress, state, step, together

ROOT = Path(__file__).parents[1]
COMMAND_LINE = sys.modules["minires.cli.main"]
QUICK = ("--iterations", 2, "--batch-size", 2, "--eval-images", 8, "--quiet")


@pytest.fixture(autouse=True)
def small_shapes(shapes, monkeypatch, tmp_path):
    """Commands run in an empty folder, on a small shapes10."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIRES_DATA", raising=False)
    monkeypatch.setattr(data.cifar10, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(data.shapes10, "dataset", lambda *a, **k: shapes)


def size(path):
    with Image.open(path) as image:
        return image.size


def test_degradation_draws_a_figure_a_table_and_says_how_to_get_cifar10(run_cli, tmp_path):
    code, out, _ = run_cli("degradation", "--nets", "plain8,resnet8", *QUICK)
    assert code == 0
    assert "minires data cifar10" in out
    assert all(word in out for word in ("train error %", "plain8", "resnet8", "degradation.png"))
    folder = tmp_path / "runs" / "degradation-shapes10-2"
    assert size(folder / "degradation.png")[0] > 1000
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == [
        "plain8-seed0",
        "resnet8-seed0",
    ]


def test_the_second_call_trains_nothing(run_cli, tmp_path, monkeypatch):
    words = ("degradation", "--nets", "plain8", "--seeds", 2, *QUICK)
    _, first, _ = run_cli(*words)
    monkeypatch.setattr(together, "train", lambda *a: pytest.fail("it trained again"))
    code, second, _ = run_cli(*words)
    assert code == 0
    assert first.splitlines()[-3:] == second.splitlines()[-3:]
    assert "  2  " in second  # seeds


def press_ctrl_c(monkeypatch, times):
    """Press Ctrl-C this number of times after each step."""
    real = progress.follower

    def press(*args):
        follow = real(*args)

        def pressing(position):
            follow(position)
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

        return pressing

    monkeypatch.setattr(progress, "follower", press)


def test_train_stopped_and_resumed_ends_as_one_that_was_not(run_cli, tmp_path, monkeypatch):
    run_cli("train", "resnet8", *QUICK, "--out", "whole")
    real = progress.follower
    press_ctrl_c(monkeypatch, times=1)
    code, _, err = run_cli("train", "resnet8", *QUICK, "--out", "stopped")
    assert code == 130
    assert "minires resume stopped" in err
    monkeypatch.setattr(progress, "follower", real)
    code, out, _ = run_cli("resume", "stopped", "--quiet")
    assert code == 0
    assert "stopped/errors.png" in out.replace("\\", "/")
    a, b = (checkpoint.load(Path(name))[0] for name in ("whole", "stopped"))
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_plot_writes_png_and_svg(run_cli, tmp_path):
    run_cli("degradation", "--nets", "plain8,resnet8", "--seeds", 2, "--out", "exp", *QUICK)
    for name in ("a.png", "b.svg", "c.pdf"):
        code, out, _ = run_cli("plot", "exp", "--out", name)
        assert code == 0
        assert name in out
        assert (tmp_path / name).stat().st_size > 5000
    assert "<svg" in (tmp_path / "b.svg").read_text()


def test_a_figure_is_drawn_again_bit_for_bit(run_cli, tmp_path):
    run_cli("degradation", "--nets", "plain8", "--out", "exp", *QUICK)
    for name in ("a.svg", "b.svg"):
        run_cli("plot", "exp", "--out", name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_info_audits_a_network(run_cli):
    code, out, _ = run_cli("info", "resnet56")
    assert code == 0
    assert "853,018 parameters" in out
    assert "125,485,696 multiply-adds" in out


def test_info_does_all_that_it_is_asked(run_cli, monkeypatch):
    monkeypatch.setattr(options, "prepare", lambda *_: None)
    _, out, _ = run_cli("info", "resnet56", "--warmup")
    assert "backend: ready" in out
    assert "853,018 parameters" in out


def test_info_says_what_is_here(run_cli):
    code, out, _ = run_cli("info")
    assert "numba" not in ops.usable_backends() or "threads of the compiled backend: " in out
    assert code == 0
    assert all(word in out for word in ("numpy", "cores", "CIFAR-10: not found"))


def test_the_contact_sheet_is_drawn(run_cli, tmp_path):
    code, _, _ = run_cli("data", "shapes10", "--out", "sheet.png")
    assert code == 0
    assert size(tmp_path / "sheet.png")[0] > 300


COMMANDS = ("degradation", "train", "resume", "claims", "plot", "report", "export", "info", "data")


def make_cifar10(folder, label=3, records=10_000):
    """Sparse files in the binary layout: every image black, every label 0 but the first."""
    layout = folder / "cifar-10-batches-bin"
    layout.mkdir(parents=True)
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        with open(layout / name, "wb") as f:
            f.write(bytes([label]))
            f.truncate(records * 3073)
    return layout


MISTAKES = {
    "an unknown net": (("train", "lenet5"), "unknown network 'lenet5'"),
    "an odd depth": (("train", "resnet21"), "6n + 2"),
    "an unknown tier": (("degradation", "--tier", "huge"), "quick, lesson, quarter, paper"),
    "a depth that is not a number": (
        ("degradation", "--depths", "20,deep"),
        "must be numbers such as 20,56, got 20,deep",
    ),
    "an unknown shortcut": (("degradation", "--shortcut", "D"), "must be A, B or C, got 'D'"),
    "an unknown kind of figure": (("plot", ".", "--kind", "pie"), "errors, depth, layers"),
    "weights of nothing": (("export", "."), "no run in"),
    "an odd depth in a list": (("degradation", "--nets", "plain20,plain33"), "6n + 2"),
    "no seeds": (
        ("degradation", "--seeds", "0"),
        "--seeds must be an integer of at least 1, got 0",
    ),
    "no seeds of a sweep": (("sweep", "--seeds", "0"), "--seeds must be an integer of at least 1"),
    "ranks of no number": (("train", "resnet8", "--ranks", "x"), "--ranks must be an integer"),
    "negative ranks": (("resume", ".", "--ranks", "-1"), "of at least 1, got -1; see"),
    "ranks of a sweep": (("sweep", "--ranks", "2"), "start the same command in more terminals"),
    "no nets": (("degradation", "--nets", ","), "at least one net"),
    "no iterations": (
        ("degradation", "--iterations", "0"),
        "iterations must be an integer of at least 1",
    ),
    "a negative rate": (("train", "resnet8", "--lr", "-1"), "lr must be a positive number"),
    "an unknown backend": (("train", "resnet8", "--backend", "tpu"), "backend must be one of"),
    "an unknown data set": (("train", "resnet8", "--dataset", "mnist"), "mnist"),
    "no CIFAR-10": (("train", "resnet8", "--dataset", "cifar10"), "minires data cifar10"),
    "an empty data folder": (("train", "resnet8", "--data", "."), "found neither"),
    "a folder that is not a run": (("resume", "."), "no config.json"),
    "a file that is not a run": (("resume", __file__), "no config.json"),
    "nothing to plot": (("plot", "."), "no run in"),
    "a figure of unknown kind": (("plot", ".", "--out", "a.gif"), ".png, .svg, .pdf"),
    "a file that is not there": (("data", "cifar10", "--from", "nothing.tar.gz"), "nothing.tar.gz"),
    "an unknown option": (("train", "resnet8", "--colour", "blue"), "--colour"),
    "text for a number": (
        ("degradation", "--iterations", "many"),
        "--iterations must be an integer, got many",
    ),
    "an unknown network to audit": (("info", "resnet5"), "6n + 2"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_2(mistake, run_cli):
    words, part = MISTAKES[mistake]
    code, _, err = run_cli(*words)
    assert code == 2
    assert part in err


def test_damaged_cifar10_is_one_message_and_exit_code_2(run_cli, tmp_path):
    make_cifar10(tmp_path / "label", label=10)
    code, _, err = run_cli("train", "resnet8", "--data", tmp_path / "label", *QUICK)
    assert code == 2
    assert "label" in err
    (make_cifar10(tmp_path / "missing") / "data_batch_3.bin").unlink()
    code, _, err = run_cli("train", "resnet8", "--data", tmp_path / "missing", *QUICK)
    assert code == 2
    assert "data_batch_3.bin" in err
    make_cifar10(tmp_path / "short", records=9_999)
    code, _, err = run_cli("train", "resnet8", "--data", tmp_path / "short", *QUICK)
    assert code == 2
    assert str(10_000 * 3073) in err.replace(",", "")


def test_a_locked_run_is_one_message_and_exit_code_2(run_cli):
    run_cli("train", "resnet8", *QUICK, "--out", "run")
    with RunFolder(Path("run")).locked():
        code, _, err = run_cli("train", "resnet8", *QUICK, "--out", "run")
    assert code == 2
    assert "in use by process" in err


def test_the_same_folder_for_another_recipe_is_one_message_and_exit_code_2(run_cli):
    run_cli("train", "resnet8", *QUICK, "--out", "run")
    code, _, err = run_cli("train", "resnet8", *QUICK, "--out", "run", "--lr", 0.3)
    assert code == 2
    assert "lr 0.1 there, 0.3 asked for" in err


def test_divergence_is_one_message_and_exit_code_2(run_cli):
    code, _, err = run_cli("train", "resnet8", *QUICK, "--lr", 1e30)
    assert code == 2
    assert "diverged" in err
    assert "(it was 1e+30; --lr), or warm up (--warmup-lr 0.01)" in err
    _, _, err = run_cli("train", "resnet8", *QUICK, "--warmup-lr", 1e30, "--out", "warm")
    assert "Lower the learning rate of the warm-up (it was 1e+30; --warmup-lr)" in err


def test_the_command_is_installed_and_the_package_runs_as_a_module():
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    places = [Path(sysconfig.get_path("scripts", scheme)) for scheme in schemes]
    command = next(filter(None, (shutil.which("minires", path=place) for place in places)))
    for words in ([sys.executable, "-m", "minires"], [command]):
        done = subprocess.run([*words, "--help"], capture_output=True, text=True, check=True)
        assert "degradation" in done.stdout


@pytest.mark.cifar10
def test_degradation_runs_on_cifar10(run_cli, cifar10_folder, tmp_path, monkeypatch):
    code, out, _ = run_cli(
        "degradation", "--data", cifar10_folder, "--nets", "plain8,resnet8", *QUICK
    )
    assert code == 0
    assert "Data: CIFAR-10" in out
    record = json.loads(
        (tmp_path / "runs/degradation-cifar-10-2/resnet8-seed0/config.json").read_text()
    )
    assert record["data"]["name"].startswith("CIFAR-10")


@pytest.fixture
def trained(run_cli, tmp_path_factory):
    """Folder of a finished run; a copy, as training takes a second."""
    finished = tmp_path_factory.getbasetemp() / "finished"
    if not finished.exists():
        assert run_cli("train", "resnet8", *QUICK, "--out", finished)[0] == 0
    return Path(shutil.copytree(finished, "run"))


ODD_LINES = [
    "5",
    "null",
    '{"iteration": 3}',
    '{"kind": "eval", "iteration": 3}',
    "{",
    '{"kind": "eval", "iteration": 2, "train_error": null, "test_error": 0.5, "seconds": 1.0}',
    '{"kind": "layers", "iteration": 2, "gradient_norm": 1, "weight_norm": {}, "response_std": {}}',
    '{"kind": "layers", "iteration": 2, "gradient_norm": {"conv": "x"}, "weight_norm": {}, '
    '"response_std": {}}',
    "[" * 100_000,
    '{"kind": "train", "iteration": 1, "error": %s, "lr": 1, "seconds": 1}' % ("9" * 6000),
    '{"kind": "train", "iteration": 1, "error": %s, "lr": 1, "seconds": 1}' % ("9" * 400),
    '{"kind": "train", "iteration": true, "error": 0.5, "lr": 1, "seconds": 1}',
    '{"kind": ["train"], "iteration": 1, "error": 0.5, "lr": 1, "seconds": 1}',
    '{"kind": "train", "iteration": 1, "error": "0.5", "lr": 1, "seconds": 1}',
]


@pytest.mark.parametrize("line", ODD_LINES, ids=lambda line: line[:40])
def test_an_odd_line_among_the_metrics_is_passed_over(trained, line):
    whole = read_run(trained)
    with open(trained / "metrics.jsonl", "a") as f:
        f.write(line + "\n")
    with pytest.warns(UserWarning, match="1 damaged line passed over"):
        assert read_run(trained) == whole


def test_odd_lines_among_the_metrics_change_no_figure(run_cli, trained):
    table = run_cli("plot", trained)[1]
    with open(trained / "metrics.jsonl", "a") as f:
        f.writelines(line + "\n" for line in ODD_LINES)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, out, err = run_cli("plot", trained)
        assert (code, out) == (0, table)
        assert f"{len(ODD_LINES)} damaged lines passed over" in err
        assert run_cli("plot", trained, "--kind", "layers")[0] == 0


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("config.net", "foo"),
        ("config.milestones", "x"),
        ("config.task", ["a"]),
        ("config.milestones", [2.5]),
        ("network.depth", 7),
        ("network.family", "plain"),
        ("network.input_shape", []),
        ("network.classes", True),
        ("network", {}),
        ("metrics", [{"name": 5}]),
        ("metrics", [{"name": "error", "scale": 0}]),
        ("config.net", None),
        ("config.momentum", "x"),
        ("config.lr", None),
        ("config.iterations", 2.0),
        ("data.sha256", None),
        ("data.name", None),
        ("provenance", "x"),
    ],
)
def test_a_damaged_config_is_one_line_that_names_the_file(run_cli, trained, where, value):
    record = json.loads((trained / "config.json").read_text())
    *outer, last = where.split(".")
    (record[outer[0]] if outer else record)[last] = value
    (trained / "config.json").write_text(json.dumps(record))
    for command in ("plot", "report", "resume"):
        code, _, err = run_cli(command, trained)
        assert code == 2
        assert str(trained / "config.json") in err


def test_a_run_without_provenance_stays_whole_when_another_machine_goes_on_with_it(
    run_cli, trained
):
    record = json.loads((trained / "config.json").read_text())
    del record["provenance"]
    (trained / "config.json").write_text(json.dumps(record))
    RunFolder(trained).note_who_trains(1)
    assert run_cli("plot", trained)[0] == 0
    assert json.loads((trained / "config.json").read_text())["continued"][0]["iteration"] == 1


def test_weights_in_the_place_of_a_checkpoint_are_refused_and_kept(run_cli, trained):
    assert run_cli("export", trained)[0] == 0
    weights = (trained / "weights.safetensors").read_bytes()
    (trained / "checkpoint.safetensors").write_bytes(weights)
    for path in trained.glob("*previous*"):
        path.unlink()
    for command in ("export", "resume"):
        code, _, err = run_cli(command, trained)
        assert code == 2
        assert "not a whole checkpoint" in err
    assert (trained / "weights.safetensors").read_bytes() == weights


def test_a_run_that_waits_does_not_keep_others_from_being_exported(run_cli, trained):
    waiting = Path("exp/waiting")
    shutil.copytree(trained, "exp/done")
    waiting.mkdir()
    shutil.copy(trained / "config.json", waiting)
    assert run_cli("export", "exp")[0] == 0
    assert "has no checkpoint" in run_cli("export", waiting)[2]


def test_weights_are_exported_without_metrics(run_cli, trained):
    (trained / "metrics.jsonl").unlink()
    assert run_cli("export", trained)[0] == 0
    assert "metrics.jsonl is missing" in run_cli("plot", trained)[2]


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("--nets", "plain8", "--depths", "8"), "either --nets or --depths"),
        (("--depths", "plain8"), "numbers such as"),
        (("--shortcut", "D"), "A, B or C"),
        (("--nets", "imagenet-resnet18"), "is here to be read"),
        (("--warmup-lr", 0), "the paper's is 0.01"),
    ],
)
def test_options_that_contradict_or_do_not_exist_are_refused(run_cli, words, advice):
    code, _, err = run_cli("degradation", *words, *QUICK)
    assert code == 2
    assert advice in err


def test_depths_may_have_spaces_and_a_comma_at_the_end(run_cli):
    assert run_cli("degradation", "--depths", "8, ", *QUICK)[0] == 0


def test_commands_that_are_printed_name_the_images_where_they_are_not_found_without(
    shapes, tmp_path, monkeypatch
):
    folder = tmp_path / "my data" / data.cifar10.BINARY
    monkeypatch.setattr(data.cifar10, "cache_folder", lambda: tmp_path / "cache")
    make_cifar10(folder.parent, records=1)
    found = replace(shapes, name="CIFAR-10", source=str(folder))
    assert data.option(shapes) == ""
    assert data.option(found) == f" --data {quoted(folder)}"
    monkeypatch.setenv("MINIRES_DATA", str(folder.parent))
    assert data.option(found) == ""
    monkeypatch.setenv("MINIRES_DATA", str(tmp_path / "nothing"))
    assert data.option(found) == f" --data {quoted(folder)}"


def test_commands_that_are_printed_quote_a_folder_with_a_space(run_cli):
    printed = run_cli("exercise", "start", "relu_forward", "my dir")[1]
    assert f"minires exercise check {quoted(Path('my dir') / 'relu_forward.py')}" in printed


def readme():
    return (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def python_in_the_readme():
    return "\n".join(re.findall(r"```python\n(.*?)```", readme(), re.S))


def python_in_the_page_of_the_step():
    program = step.__doc__.split("without run folders:")[1]
    return textwrap.dedent(program)


@pytest.mark.parametrize("program", [python_in_the_readme, python_in_the_page_of_the_step])
def test_the_programs_that_we_show_run_as_they_stand(program, capsys):
    text = program().replace("range(100)", "range(2)").replace("resnet(20", "resnet(8")
    exec(compile(text, "shown", "exec"), {})
    loss, error = ast.literal_eval(capsys.readouterr().out.splitlines()[-1])
    assert loss > 0
    assert 0 <= error <= 1


# ------------------------------------------------------------------- words, help and what it costs


LEAVES = [
    *((name,) for name in (*COMMANDS[:-1], "bench", "race")),
    *(("data", name) for name in ("cifar10", "shapes10", "scenes")),
    ("classify",),
    ("sweep",),
    *(("evaluate",), ("weights", "inspect"), ("weights", "convert")),
    *(("exercise", name) for name in ("list", "start", "hint", "check", "hunt", "quiz")),
    ("lessons", "copy"),
]


GROUPS = [(), ("data",), ("exercise",), ("lessons",)]


@pytest.mark.parametrize("command", [*GROUPS, *LEAVES], ids=" ".join)
def test_every_help_fits_80_columns_and_40_lines_and_cuts_no_word(run_cli, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run_cli(*command, "--help")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert "..." not in "".join(lines[1:])  # the first may say that an argument can be repeated
    assert f"Example: minires {' '.join(command)}".strip() in out


def test_options_that_the_readme_types_are_listed_by_help_of_their_command(run_cli):
    checked = set()
    for line in re.findall(r"(?:^|`)minires ([^`\n]*)", readme(), re.M):
        words = tuple(line.split())
        command = next((leaf for leaf in LEAVES if words[: len(leaf)] == leaf), ())
        for option in re.findall(r"--[a-z-]+", line):
            assert option in run_cli(*command, "--help")[1], line
            checked.add(option)
    assert {"--head", "--freeze", "--weights", "--shards", "--ranks"} <= checked


def test_a_mistake_in_a_rare_option_names_the_help_that_lists_it(run_cli):
    assert run_cli("train", "resnet8", "--image-size", "x")[2].endswith("--help-all\n")
    assert run_cli("train", "resnet8", "--image-sizes", "8")[2].endswith("--help-all\n")
    assert run_cli("train", "resnet8", "--batch-size", "x")[2].endswith("train --help\n")


def test_the_names_that_help_lists_are_those_that_exist():
    assert names.TIERS == tuple(presets.PRESETS)
    assert names.FIGURES == tuple(plots.FIGURES)
    for net in names.NETS:
        assert names.network(net).name == net


LIGHT = """
import sys
from minires.cli import main
for words in (["--help"], ["train", "--help"], ["bench", "-h"], ["--version"], ["trian"]):
    sys.argv = ["minires", *words]
    try:
        main()
    except SystemExit:
        pass
heavy = {"matplotlib", "numba", "llvmlite", "hypothesis", "PIL", "tqdm", "torch", "scipy"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_help_and_version_import_no_large_library(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"minires {minires.__version__}" in done.stdout


def test_the_version_stands_in_one_place(run_cli):
    assert run_cli("--version") == (0, f"minires {minires.__version__}\n", "")
    assert minires.__version__ not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


NEAR = {
    ("train", "resnt20"): "did you mean resnet20",
    ("train", "ResNet-20"): "did you mean resnet20",
    ("train", "resnet20b"): "did you mean resnet20B",
    ("info", "resnet18"): "did you mean imagenet-resnet18",
    ("bench", "--nets", "resnet20,palin20"): "did you mean plain20",
    ("degradation", "--nets", "plain20,reset56"): "did you mean resnet56",
    ("degradation", "--tier", "Lessn"): "did you mean lesson",
    ("train", "resnet8", "--dataset", "cifar-10"): "did you mean cifar10",
    ("train", "resnet8", "--dataset", "Shapes"): "did you mean shapes10",
    ("train", "resnet8", "--init", "norml"): "did you mean normal",
    ("plot", ".", "--kind", "layer"): "did you mean layers",
    ("bench", "--backend", "nunpy"): "did you mean numpy",
    ("--plugin", str(Path(__file__).with_name("toy.py")), "info"): "did you mean toys.py",
    ("trian", "resnet8"): "Did you mean 'train'",
    ("train", "resnet8", "--iteration", "5"): "--iterations",
}


@pytest.mark.parametrize("words", NEAR, ids=" ".join)
def test_a_name_that_is_nearly_right_is_suggested_in_one_line(run_cli, words):
    code, out, err = run_cli(*words)
    assert (code, out) == (2, "")
    assert NEAR[words] in err
    assert len(err.splitlines()) == 1


def test_nothing_is_suggested_for_a_name_like_no_other(run_cli):
    assert "did you mean" not in run_cli("train", "vgg16")[2]
    assert text.nearest("conv2d", ["relu_forward", "conv2d_forward", "conv2d_backward"]) == [
        "conv2d_forward",
        "conv2d_backward",
    ]
    assert text.nearest("", ["a", "b"]) == []


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("minires tr", "train"),
        ("minires train resnet3", "resnet32"),
        ("minires degradation --tier q", "quarter"),
        ("minires train resnet8 --dataset sh", "shapes10-fresh"),
    ],
)
def test_the_shell_completes_commands_and_names(run_cli, monkeypatch, typed, completed):
    monkeypatch.setenv("_MINIRES_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    code, out, _ = run_cli()
    assert code == 0
    assert completed in out.split()


# ---------------------------------------------------------------------- checks come before the work


SENSELESS = {
    ("train", "resnet8", "--lr", "nan"): "lr must be a positive number",
    ("train", "resnet8", "--batch-size", "1"): "batch_size must be an integer of at least 2",
    ("train", "resnet8", "--momentum", "1"): "momentum",
    ("train", "resnet8", "--milestones", "5,3"): "milestones must rise",
    ("train", "resnet8", "--backend", "tpu"): "backend",
    ("train", "resnet8", "--task", "poetry"): "task",
    ("train", "resnet8", "--seed", "-1"): "--seed",
    ("train", "imagenet-resnet18"): "is here to be read",
    ("train", "resnet8", "--out", ""): "got an empty text",
    ("degradation", "--depths", ""): "at least one net",
    ("degradation", "--shortcut", ""): "must be A, B or C",
    ("degradation", "--nets", ""): "at least one net",
    ("degradation", "--depths", "20,21"): "6n + 2",
    ("degradation", "--warmup-lr", "0"): "warmup_lr",
    ("info", "resnet21", "--warmup"): "6n + 2",
    ("bench", "--nets", "resnet21", "--out", "new/bench.json"): "6n + 2",
    ("bench", "--rounds", "0", "--out", "new/bench.json"): "--rounds",
    ("bench", "--batch-size", "0", "--out", "new/bench.json"): "one image",
    ("bench", "--nets", ","): "--nets expects at least one name",
    ("plot", ".", "--out", "figure.gif"): ".png, .svg, .pdf",
    ("data", "shapes10", "--out", "sheet.gif"): ".png, .svg, .pdf",
}


@pytest.mark.parametrize("words", SENSELESS, ids=" ".join)
def test_options_are_checked_before_anything_is_loaded_compiled_or_made(
    run_cli, words, monkeypatch, tmp_path
):
    for module, work in ((data, "load"), (options, "prepare"), (data.shapes10, "sheet")):
        monkeypatch.setattr(module, work, lambda *a, **k: pytest.fail("work before the check"))
    code, out, err = run_cli(*words)
    assert (code, out) == (2, "")
    assert SENSELESS[words] in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def writing_commands():
    """Every command that writes one file: its words, as minires lists them."""
    group = typer.main.get_command(COMMAND_LINE.app)
    found = []
    for name, command in group.commands.items():
        below = {(name, sub): c for sub, c in getattr(command, "commands", {}).items()}
        for words, leaf in {(name,): command, **below}.items():
            if any(p.name == "out" and p.metavar == "FILE" for p in leaf.params):
                found.append(words)
    return found


@pytest.mark.parametrize("words", writing_commands(), ids=" ".join)
def test_a_folder_or_a_device_in_place_of_a_file_to_write_is_refused(run_cli, words, tmp_path):
    device = Path(os.devnull).stat()
    refused = {".": "got the folder .;", "/": "got the folder /;", "..": "got the folder ..;"}
    refused |= {os.devnull: "is a device or a pipe"} if os.name == "posix" else {}
    refused |= {} if words == ("bench",) else {"no/x": "there is no folder no for x; make it first"}
    for out, message in refused.items():
        code, _, err = run_cli(*words, "--out", out)
        assert code == 2
        assert message in err
        assert len(err.splitlines()) == 1
    assert Path(os.devnull).stat() == device
    assert list(tmp_path.iterdir()) == []


def test_every_command_that_writes_one_file_is_among_them():
    expected = {("bench",), ("data", "shapes10"), ("evaluate",), ("plot",), ("report",)}
    assert set(writing_commands()) >= {*expected, ("weights", "convert")}


def test_a_run_folder_of_another_recipe_is_refused_before_compiling(run_cli, monkeypatch):
    assert run_cli("train", "resnet8", *QUICK, "--out", "run")[0] == 0
    monkeypatch.setattr(options, "prepare", lambda *_: pytest.fail("compiled"))
    assert run_cli("train", "resnet8", *QUICK, "--out", "run", "--lr", 0.3)[0] == 2


# ------------------------------------------------------------------------------------ paths, quotes


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(folder))
    return folder


def test_a_tilde_is_the_home_folder_in_every_path(run_cli, home):
    assert run_cli("train", "resnet8", *QUICK, "--out=~/run")[0] == 0
    for words in (
        ("resume", "~/run", "--quiet"),
        ("plot", "~/run", "--out=~/p.svg"),
        ("report", "~/run", "--out=~/r.html"),
        ("claims", "~/run"),
        ("export", "~/run"),
        ("data", "shapes10", "--out=~/s.png"),
    ):
        assert run_cli(*words)[0] == 0, words
    assert {"run", "p.svg", "r.html", "s.png"} <= {path.name for path in home.iterdir()}
    assert not Path("~").exists()
    for words in (
        ("train", "resnet8", "--data=~/none"),
        ("data", "cifar10", "--from=~/none"),
        ("bench", "--against=~/none"),
        ("--plugin=~/none.py", "info"),
    ):
        assert str(home / "none") in run_cli(*words)[2], words


def test_every_path_that_is_typed_is_expanded():
    """A new option cannot forget it."""
    commands = [command for command, _ in COMMAND_LINE.commands.values()]
    for app in (COMMAND_LINE.data.data_app, COMMAND_LINE.lessons.app):
        commands += [c.callback for c in app.registered_commands]
    found = []
    for command in [*commands, COMMAND_LINE.before_all]:
        for kind in inspect.get_annotations(command, eval_str=True).values():
            if "Path" in str(getattr(kind, "__origin__", kind)):
                found.append(kind.__metadata__[0].parser)
    assert len(found) > 15
    assert set(found) == {options.expanded, options.new_file, options.new_file_here}


def test_a_file_in_the_place_of_the_data_folder_is_to_be_installed(run_cli):
    Path("my cifar.tar.gz").write_bytes(b"x")
    code, _, err = run_cli("train", "resnet8", "--data", "my cifar.tar.gz")
    assert code == 2
    assert f"minires data cifar10 --from {quoted('my cifar.tar.gz')}" in err


NAMES = ["plain", "a b", "a&b", "try(1)/x.py", "$HOME/x", "-dash/x", "it's", 'say "a"', "~/x", "é"]


@pytest.mark.skipif(sys.platform == "win32", reason="the shell of POSIX")
@pytest.mark.parametrize("name", [*NAMES, "a\nb", "\x1b[31m", "a`id`", "*", "#x", "a;b", "!x"])
def test_a_printed_path_can_be_pasted(name):
    shell = ["bash", "-c", f"printf %s {quoted(Path(name))}"]
    done = subprocess.run(shell, capture_output=True, check=True)
    printed = done.stdout.decode()
    assert Path(printed) == Path(name)
    assert not printed.startswith(("-", "~"))
    assert quoted(Path(name)).isprintable()


@pytest.mark.parametrize("name", ["a b", "a&b", "try(1).py", "a^b", "a,b", "a;b", "it's", "a@b"])
def test_a_printed_path_has_quotes_on_windows(monkeypatch, name):
    monkeypatch.setattr(sys, "platform", "win32")
    assert quoted(name) == f'"{name}"'
    assert quoted("C:\\runs\\a-b_1.2") == "C:\\runs\\a-b_1.2"
    assert quoted("$x") == "'$x'"


# ------------------------------------------------------------------------------- JSON, and streams


def test_json_is_the_only_thing_on_standard_output_of_every_command(run_cli):
    found = {}
    for words in (
        ("train", "resnet8", *QUICK, "--out", "one"),
        ("resume", "one"),
        ("degradation", "--nets", "plain8,resnet8", *QUICK, "--out", "exp"),
        ("claims", "exp"),
        ("plot", "exp"),
        ("report", "exp"),
        ("export", "exp"),
        ("info",),
        ("info", "resnet20", "--dataset", "shapes10"),
        ("data", "shapes10"),
    ):
        code, printed, _ = run_cli(*words, "--json")
        assert code == 0, words
        found[words[0]] = json.loads(printed)
    (resnet,) = found["train"]["runs"]
    assert resnet["done"]
    assert 0 <= resnet["last_evaluation"]["test_error"] <= 1
    assert [run["net"] for run in found["degradation"]["runs"]] == ["plain8", "resnet8"]
    assert Path(found["plot"]["figure"]).exists()
    assert Path(found["report"]["report"]).exists()
    assert Path(found["export"][0]["weights"]).exists()
    (verdicts,) = found["claims"]["claims"].values()
    assert verdicts["i"]["held"] is None
    assert found["info"]["parameters"] == 269_722
    assert found["info"]["dataset"]["train"] == 96


def test_info_audits_a_net_for_the_images_of_a_data_set(run_cli):
    code, out, _ = run_cli("info", "--dataset", "shapes10")
    assert code == 0
    assert "96 training and 32 test images, 32x32x3, 10 classes" in out


def test_bench_without_numba_times_numpy(run_cli, monkeypatch):
    timed = []
    monkeypatch.setattr(timing, "default_backend", lambda: "numpy")
    monkeypatch.setattr(bench_nets, "matrix_product_gflops", lambda: 1.0)

    def stop(nets, contenders, *rest):
        timed.append(contenders)
        raise InputError("enough")

    monkeypatch.setattr(bench_nets, "bench", stop)
    assert "only NumPy is timed" in run_cli("bench")[1]
    assert timed == [["numpy"]]


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of POSIX")
@pytest.mark.parametrize(
    "end", [">&- 2>&- <&-", ">/dev/full 2>/dev/full", "| true", "2>&1 >run模型/log"]
)
def test_no_stream_ends_a_training_or_changes_its_exit_code(tmp_path, end):
    words = "train pocket-tiny --dataset bars --task regression --lr 0.01 --batch-size 8"
    words += " --eval-images 16 --no-augment --backend numpy --iterations 2 --out run模型"
    program = f"{quoted(sys.executable)} -m minires --plugin {quoted(ROOT / 'tests/toys.py')}"
    (tmp_path / "run模型").mkdir()
    setting = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252"}
    shell = ["bash", "-o", "pipefail", "-c", f"{program} {words} {end}"]
    done = subprocess.run(shell, cwd=tmp_path, env=setting, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run模型/errors.png").stat().st_size > 5000
    assert "Traceback" not in done.stdout + done.stderr


def test_output_that_is_lost_is_said_on_standard_error(monkeypatch, tmp_path):
    class Full(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Full()), "utf-8"))
    streams.prepare()
    print("lost")
    assert streams.lost(sys.stdout) == "No space left on device"
    print("not an error")
    sys.stdout.flush()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a folder that is in use")
def test_a_working_folder_that_was_deleted_is_named_as_the_cause(run_cli, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    code, _, err = run_cli("train", "resnet8", *QUICK)
    assert code == 2
    assert "current folder does not exist any more" in err
    assert run_cli("info", "resnet8")[0] == 0


def test_too_many_open_files_and_an_early_end_of_input_are_named(run_cli, monkeypatch):
    for error, words in (
        (OSError(24, "Too many open files"), "ulimit -n"),
        (EOFError("kernel.nbi"), "ended too early: kernel.nbi"),
        (MemoryError(), "smaller --batch-size"),
    ):
        monkeypatch.setattr(options, "prepare", lambda *_, error=error: raising(error))
        code, _, err = run_cli("train", "resnet8", *QUICK, "--out", "new")
        assert code == 2
        assert words in err


def raising(error):
    raise error


def test_ctrl_c_before_the_training_is_exit_code_130_without_a_traceback(run_cli, monkeypatch):
    monkeypatch.setattr(options, "prepare", lambda *_: raising(KeyboardInterrupt()))
    code, _, err = run_cli("train", "resnet8", *QUICK)
    assert code == 130
    assert err.strip() == (
        "stopped before a step was saved; nothing is lost: the same command starts the run"
    )
    code, _, err = run_cli("degradation", "--nets", "plain8", *QUICK)
    assert (code, err.strip().splitlines()[-1]) == (130, STOPPED)


def press_ctrl_c_where_python_drops_it():
    """Ctrl-C arrives in a callback from C, as it does while LLVM compiles a kernel."""
    ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))()


@pytest.mark.parametrize("command", ["train", "degradation", "evaluate"])
def test_a_ctrl_c_that_python_drops_while_kernels_are_compiled_ends_the_command(
    run_cli, monkeypatch, tmp_path, command
):
    def compiling(backend, report):
        press_ctrl_c_where_python_drops_it()
        report("kernel", 1, 2)
        pytest.fail("the next kernel was compiled")

    monkeypatch.setattr(options, "prepare", compiling)
    words = {
        "train": ("train", "resnet8", *QUICK),
        "degradation": ("degradation", "--nets", "plain8", *QUICK),
        "evaluate": ("evaluate", "resnet8", "--weights", "net", "--dataset", "shapes10"),
    }[command]
    (tmp_path / "net").write_bytes(weights.to_bytes(resnet(8)))
    code, _, err = run_cli(*words)
    assert code == 130
    assert "nothing" in err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_ctrl_c_that_python_drops_before_the_first_step_ends_the_run(run_cli, monkeypatch):
    def last_kernel(backend, report):
        press_ctrl_c_where_python_drops_it()

    monkeypatch.setattr(train_commands, "compile_kernels", last_kernel)
    code, _, err = run_cli("train", "resnet8", *QUICK)
    assert code == 130
    assert "stopped before a step was saved" in err


def test_a_second_ctrl_c_that_left_no_time_to_save_names_the_last_checkpoint(run_cli, monkeypatch):
    press_ctrl_c(monkeypatch, times=2)
    monkeypatch.setattr(state, "CHECKPOINT_SECONDS", 0.0)
    code, _, err = run_cli("train", "resnet8", *QUICK, "--out", "run")
    assert code == 130
    assert "run is saved at iteration 1: the same command resumes the run" in err


# -------------------------------------------------------------------------------------- the package


def test_the_page_of_the_package_index_has_no_link_that_breaks(monkeypatch):
    builder = types.ModuleType("hatchling.metadata.plugin.interface")
    builder.MetadataHookInterface = object  # the builder need not be installed here
    monkeypatch.setitem(sys.modules, builder.__name__, builder)
    page = runpy.run_path(str(ROOT / ".github" / "package_page.py"))["standalone"](
        (ROOT / "README.md").read_text(encoding="utf-8")
    )
    targets = re.findall(r"\]\(([^)]*)\)", page) + re.findall(r'src="([^"]*)"', page)
    assert targets
    assert [t for t in targets if not t.startswith("https://")] == []
    assert "numpy_ops.py" in page


def test_the_package_says_who_made_it_and_that_it_is_typed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["authors"] == [{"name": "The minires authors"}]
    assert "Typing :: Typed" in project["classifiers"]
    assert (ROOT / "minires/py.typed").exists()


def test_every_dependency_has_a_lowest_version_that_can_be_installed_for_a_test():
    requirements = list(lowest_versions.lowest())
    assert len(requirements) >= 12
    assert all(re.fullmatch(r"[\w-]+==\d+\.\d+\.\d+", line) for line in requirements)


# ------------------------------------------------------------------------------- a copy of lessons


def test_a_copy_of_the_lessons_has_the_notebooks_and_all_they_read(run_cli, tmp_path):
    code, out, _ = run_cli("lessons", "copy", "my lessons")
    assert code == 0
    assert quoted(Path("my lessons")) in out
    copied = {str(p.relative_to("my lessons")) for p in Path("my lessons").rglob("*")}
    notebooks = {p.name for p in (ROOT / "lessons").glob("*.ipynb")}
    assert notebooks | {"style.py", "weak.py", "README.md", "bench.json"} <= copied
    assert {p.name for p in (ROOT / "lessons/runs").iterdir()} <= {
        p.name for p in Path("my lessons/runs").iterdir()
    }
    assert not [name for name in copied if re.match(r"\d", name) and name.endswith(".py")]


def test_a_copy_of_the_lessons_never_overwrites_a_students_work(run_cli, tmp_path):
    mine = tmp_path / "mine" / "01_convolution.ipynb"
    mine.parent.mkdir()
    mine.write_text("my answers")
    code, _, err = run_cli("lessons", "copy", "mine")
    assert code == 2
    assert "expected a new or empty folder" in err
    assert [p.read_text() for p in mine.parent.iterdir()] == ["my answers"]


def test_lessons_that_were_not_installed_are_named_with_their_source(run_cli, monkeypatch):
    monkeypatch.setattr(COMMAND_LINE.lessons, "CHECKOUT", Path("nowhere"))
    code, _, err = run_cli("lessons", "copy", "mine")
    assert code == 2
    assert "repository of minires" in err


@pytest.mark.parametrize(("version", "packed"), [("standard", True), ("editable", False)])
def test_a_wheel_brings_the_lessons(monkeypatch, version, packed):
    builder = types.ModuleType("hatchling.builders.hooks.plugin.interface")
    builder.BuildHookInterface = object  # the builder need not be installed here
    monkeypatch.setitem(sys.modules, builder.__name__, builder)
    hook = runpy.run_path(str(ROOT / ".github" / "package_lessons.py"))["PackageLessons"]()
    found = {"force_include": {}}
    hook.initialize(version, found)
    target = {"lessons": f"minires/{COMMAND_LINE.lessons.INSTALLED.name}"}
    assert found["force_include"] == (target if packed else {})
