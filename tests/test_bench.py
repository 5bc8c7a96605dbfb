"""The benchmark runs, counts correctly, and refuses what it does not know; no speed is asserted."""

import importlib
import json
import os
import types
from pathlib import Path

import numpy as np
import pytest

from minires import InputError, plugins
from minires.bench import against as checkouts
from minires.bench import checkout_worker, nets, ops, profile, scaling, shapes, workers
from minires.layers.core import Conv2d, GlobalAvgPool, Linear
from minires.nets import registry
from minires.nets.audit import macs
from minires.nets.network import Facts, Network
from minires.nets.resnet import resnet
from minires.ops import get_ops, numba_ops
from minires.ops.compiled import jit


@pytest.fixture(scope="module")
def timings():
    return nets.bench(["resnet8"], ["numpy", "numba"], 2, 4, lambda line: None)


def test_every_contender_is_timed_in_every_round(timings):
    assert [(t.net, t.contender) for t in timings] == [("resnet8", "numpy"), ("resnet8", "numba")]
    for t in timings:
        assert len(t.train) == len(t.inference) == 2
        assert min(t.train + t.inference) > 0
        assert t.kinds["Conv2d backward"] < t.kinds["whole step"]


def test_the_table_counts_three_convolutions_for_a_training_step(timings):
    t = timings[0]
    t = nets.Timing(t.net, t.contender, 10, 0.0, train=[0.5], inference=[0.1])
    gflops = (
        3 * 2 * macs(resnet(8)) * 20 / 1e9
    )  # forward, dx and dw, a multiply and an add, 20 images a second
    line = nets.table([t], 2 * gflops).splitlines()[1].split()
    assert line[2] == "20.0"
    assert line[4] == f"{gflops:.0f}"
    assert line[5:7] == ["50", "%"]


def test_the_record_is_json_with_machine_and_versions(timings):
    record = json.loads(json.dumps(nets.record(timings, 1.0)))
    assert record["provenance"]["versions"]["numpy"] == np.__version__
    assert len(record["timings"]) == 2


@pytest.mark.parametrize(
    ("backends", "peers"), [(["tpu"], []), (["numpy"], ["tensorflow"])], ids=["backend", "peer"]
)
def test_an_unknown_contender_is_refused_with_the_known_ones(backends, peers):
    with pytest.raises(InputError, match="must be one of"):
        nets.contenders(backends, peers)


def test_an_unknown_net_is_refused_before_anything_starts(run_cli):
    code, _, err = run_cli("bench", "--nets", "resnet9", "--backend", "numpy", "--rounds", 1)
    assert code == 2
    assert "6n + 2" in err


def test_a_worker_that_cannot_start_says_why():
    with (
        workers.worker(nets._net_steps, Facts("x1", "x", 1), None, "numpy", 2) as pipe,
        pytest.raises(InputError, match="not registered here"),
    ):
        workers.ask(pipe, "start")


def test_the_default_batch_is_smaller_for_large_images():
    assert nets.default_batch(registry.facts("resnet20")) == 128
    assert nets.default_batch(registry.facts("imagenet-resnet18")) == 8


def test_with_one_image_only_inference_is_timed():
    (timing,) = nets.bench(["resnet8"], ["numpy"], 1, 1, lambda line: None)
    assert timing.train == []
    assert len(timing.inference) == 1
    cells = nets.table([timing], 1.0).splitlines()[1].split()
    assert cells[2:6] == ["-"] * 4
    assert float(cells[6]) > 0


def test_inference_is_timed_with_a_folded_network(monkeypatch):
    folded = []
    monkeypatch.setattr(nets, "fold", lambda net: folded.append(net) or net)
    nets._net_steps(registry.facts("resnet8"), None, "numpy", 1)["inference"]()
    assert len(folded) == 1


def test_the_profile_is_the_share_of_a_step_inside_kernels():
    (timing,) = nets.bench(["resnet8"], ["numba"], 1, 4, lambda line: None, profile=True)
    assert 0.2 < timing.in_kernels < 1
    timing.in_kernels = 0.875
    assert "12.5 % of a training step is outside kernels" in nets.kinds_table([timing])


def test_kernels_are_themselves_again_after_a_profile():
    get_ops("numba")
    before = numba_ops._relu, jit.KERNELS[:]
    with profile.timed_kernels() as spent:
        numba_ops.relu_forward(np.ones((2, 3), np.float32))
        assert len(spent) == 1
    assert (numba_ops._relu, jit.KERNELS) == before


def test_efficiency_is_the_speed_of_each_thread_against_that_of_the_first(run_cli, monkeypatch):
    times = {1: [0.8], 2: [0.4], 4: [0.4]}
    found = {
        n: [nets.Timing("resnet8", "numba", 8, 0.0, train=s, inference=s)] for n, s in times.items()
    }
    lines = [line.split() for line in scaling.table(found).splitlines()[1:]]
    assert [line[2] for line in lines] == ["1", "2", "4"]
    assert [line[4] for line in lines] == ["100", "100", "50"]
    assert [line[3] for line in lines] == ["10.0", "20.0", "20.0"]


def test_numbers_of_threads_reach_the_processes_and_the_environment_stays(monkeypatch):
    seen = []
    monkeypatch.setattr(
        nets, "bench", lambda *a: seen.append([os.environ[name] for name in scaling.VARIABLES])
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = dict(os.environ)
    scaling.bench(["resnet8"], ["numba"], [1, 3], 1, 2, lambda line: None)
    assert seen == [["1"] * 4, ["3"] * 4]
    assert dict(os.environ) == before


@pytest.mark.parametrize("wrong", ["0", "two", "1,,2", "-1", "5000"])
def test_a_number_of_threads_that_cannot_be_is_refused(run_cli, wrong):
    code, _, err = run_cli("bench", "--nets", "resnet8", "--threads", wrong)
    assert code == 2
    assert "expected numbers from 1 to 1024" in err


def test_threads_are_compared_and_written_as_json(run_cli, tmp_path):
    words = ("--nets", "resnet8", "--backend", "numba", "--rounds", 1, "--batch-size", 2)
    code, out, _ = run_cli("bench", *words, "--threads", "1,2", "--out", tmp_path / "t.json")
    assert code == 0
    assert "efficiency" in out
    record = json.loads((tmp_path / "t.json").read_text())
    assert set(record["threads"]) == {"1", "2"}
    assert record["provenance"]["machine"]["processor"]


def test_kinds_of_timing_are_not_mixed(run_cli):
    code, _, err = run_cli("bench", "--ops", "--shapes", "resnet20")
    assert code == 2
    assert "expected one of --ops, --shapes" in err


def test_distinct_convolutions_of_a_network_are_counted():
    found = shapes.convolutions(resnet(20))
    assert len(found) == 6
    assert sum(found.values()) == 19
    first, *others = found
    assert first.is_first
    assert not any(problem.is_first for problem in others)
    assert str(first) == "32x32x3 -> 16, 3x3 stride 1"


def test_the_table_of_shapes_adds_up_all_convolutions():
    found = shapes.convolutions(resnet(20))
    times = dict(zip(shapes.CONTENDERS, ([2e-3], [5e-3], [4e-3]), strict=True))
    seconds = {f"{p} {way}": times for p in found for way in ("forward", "backward")}
    *_, last = lines = shapes.table("resnet20", seconds).splitlines()
    assert all(line.endswith("2.00x") for line in lines[1:-1])
    assert last == "resnet20: all convolutions 76 ms, PyTorch 152 ms"


@pytest.mark.peers
def test_each_convolution_is_timed_with_each_contender(run_cli, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    words = ("bench", "--shapes", "resnet8", "--rounds", 1, "--batch-size", 1)
    code, _, _ = run_cli(*words, "--out", tmp_path / "s.json")
    assert code == 0
    record = json.loads((tmp_path / "s.json").read_text())
    assert len(record["seconds"]) == 2 * len(record["convolutions"])


@pytest.mark.peers
def test_inference_is_timed_in_onnxruntime(run_cli):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    words = ("--nets", "resnet8", "--backend", "numba", "--rounds", 1, "--batch-size", 2)
    code, out, _ = run_cli("bench", *words, "--peer", "onnxruntime")
    assert code == 0
    line = next(line.split() for line in out.splitlines() if "onnxruntime" in line)
    assert line[2] == "-"
    assert float(line[6]) > 0


def test_training_and_inference_are_timed_in_jax(run_cli):
    pytest.importorskip("jax", reason="JAX is not installed")
    words = ("--nets", "resnet8", "--backend", "numba", "--rounds", 1, "--batch-size", 2)
    code, out, _ = run_cli("bench", *words, "--peer", "jax")
    assert code == 0
    line = next(line.split() for line in out.splitlines() if " jax " in line)
    assert float(line[2]) > 0
    assert float(line[7]) > 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors cannot be chosen")
def test_jax_gets_as_many_processors_as_threads_are_asked_for(monkeypatch):
    pytest.importorskip("jax", reason="JAX is not installed")
    given, facts = [], registry.facts("resnet8")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, chosen: given.append(len(chosen)))
    nets._net_steps(facts, None, "jax", 1)
    assert given == [1]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--batch-size", 1, "--profile"), "need two images or more; got --batch-size 1"),
        (("--batch-size", 99_999_999_999), "give fewer images with --batch-size"),
    ],
)
def test_a_batch_that_cannot_be_timed_is_refused_in_a_line(words, reason, run_cli):
    code, _, err = run_cli("bench", "--nets", "resnet8", "--backend", "numpy", *words, "--quiet")
    assert (code, reason in err, "Traceback" in err) == (2, True, False), err


def test_what_a_worker_said_before_it_ended_is_heard():
    class Pipe:
        def send(self, question):
            raise BrokenPipeError

        def recv(self):
            return "PyTorch is not installed"

    with pytest.raises(InputError, match="PyTorch is not installed"):
        workers.ask(Pipe(), "start")


def test_bench_prints_its_table_and_writes_json(run_cli, tmp_path):
    words = ("--nets", "resnet8", "--backend", "numpy", "--rounds", 1, "--batch-size", 2, "--out")
    code, out, _ = run_cli("bench", *words, tmp_path / "a new folder" / "b.json")
    assert code == 0
    assert "train images/s" in out
    assert "Conv2d backward" in out
    assert (
        json.loads((tmp_path / "a new folder" / "b.json").read_text())["timings"][0]["net"]
        == "resnet8"
    )


@pytest.mark.parametrize(
    ("images", "text"), [(1325.4, "1325"), (99.94, "99.9"), (13.96, "14.0"), (4.347, "4.35")]
)
def test_few_images_per_second_are_written_with_three_digits(images, text):
    assert nets.rate(images) == text
    timing = nets.Timing("resnet8", "numba", 1, 0.1, inference=[1 / images])
    assert f" {text} " in nets.table([timing], 100.0)
    assert f" {text} " in scaling.table({1: [timing]})


def test_the_table_of_ops_compares_with_the_better_pytorch():
    numba, channels_last, contiguous = ops.CONTENDERS
    times = {
        numba: [1e-3, 3e-3, 2e-3],
        channels_last: [8e-3, 8e-3, 8e-3],
        contiguous: [5e-3, 5e-3, 9e-3],
    }
    line = ops.table({"conv dx 16@32x32": times}).splitlines()[1]
    assert "2.00 (1.00-3.00)" in line
    assert line.endswith("2.50x")


@pytest.mark.peers
def test_every_pass_of_every_op_is_timed_with_every_contender(run_cli, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    words = ("bench", "--ops", "--rounds", 1, "--batch-size", 1, "--out", tmp_path / "ops.json")
    code, out, _ = run_cli(*words)
    assert code == 0
    seconds = json.loads((tmp_path / "ops.json").read_text())["seconds"]
    assert len(seconds) == 21
    assert all(
        len(rounds) == 1 and rounds[0] > 0
        for times in seconds.values()
        for rounds in times.values()
    )
    assert len(out.strip().splitlines()) == 2 + len(seconds)


# ------------------------------------------------------------------------- users' own families


def toy_network(facts, rng):
    rng = np.random.default_rng(rng)
    C = facts.input_shape[2]
    return Network(
        facts, conv=Conv2d(C, 4, 3, rng=rng), pool=GlobalAvgPool(), fc=Linear(4, 5, rng=rng)
    )


@pytest.fixture
def toy_family():
    """Register a family for images of 12x8 with one channel and five classes."""

    def register(make):
        facts = Facts("toy2", "toy", 2, input_shape=(12, 8, 1), classes=5)
        registry.register("toy", lambda name: facts if name == "toy2" else None, make)

    yield register
    registry.unregister("toy")


def test_any_family_is_timed_on_images_of_its_own_shape(toy_family):
    toy_family(toy_network)
    (timing,) = nets.bench(["toy2"], ["numpy"], 1, 2, lambda line: None)
    assert {"Conv2d forward", "Linear backward"} <= timing.kinds.keys()
    assert nets.table([timing], 1.0).splitlines()[1].startswith("toy2")


def test_batches_have_the_shape_and_classes_of_the_network():
    facts = Facts("toy2", "toy", 2, input_shape=(12, 8, 1), classes=5)
    x, labels = nets.batch(facts, 64)
    assert x.shape == (64, 12, 8, 1)
    assert set(labels) == set(range(5))


def test_a_family_that_no_other_process_can_build_is_refused(toy_family):
    toy_family(lambda facts, rng: toy_network(facts, rng))
    with pytest.raises(InputError, match="at the top level of a module"):
        nets.bench(["toy2"], ["numpy"], 1, 2, lambda line: None)


def test_workers_know_what_plugins_register(tmp_path, monkeypatch):
    file = tmp_path / "small.py"
    file.write_text(
        "from minires.nets import registry\n"
        "from minires.nets.resnet import build_cifar, plain_facts\n"
        "registry.register('small', lambda name: plain_facts(8) if name == 'small8' else None,\n"
        "                  lambda facts, rng: build_cifar(facts, rng))\n"
    )
    monkeypatch.setattr(plugins, "LOADED", [file])
    with (
        workers.worker(plugin_steps) as pipe,
        pytest.raises(InputError, match="the plugin is loaded"),
    ):
        workers.ask(pipe, "start")


def plugin_steps():
    raise InputError("the plugin is loaded" if "small" in registry.FAMILIES else "it is not")


# --------------------------------------------------------------------------- against a checkout


ROOT = Path(__file__).parents[1]


def against(run_cli, folder, *words):
    words = ("--nets", "resnet8", "--backend", "numpy", "--batch-size", 2, *words)
    return run_cli("bench", "--against", folder, *words)


def test_two_checkouts_are_timed_in_every_round(run_cli, tmp_path):
    code, out, _ = against(run_cli, ROOT, "--rounds", 2, "--out", tmp_path / "a.json")
    assert code == 0
    assert str(ROOT) in out
    lines = [line.split() for line in out.splitlines() if line.startswith("resnet8")]
    assert [line[1] for line in lines] == ["train", "inference"]
    record = json.loads((tmp_path / "a.json").read_text())
    (found,) = record["comparisons"]
    for side in ("this", "other"):
        assert all(len(found[side][step]) == 2 for step in ("train", "inference"))
        assert min(found[side]["train"] + found[side]["inference"]) > 0
    assert record["rounds"] == 2
    assert record["this"]["commit"] == record["other"]["commit"]


def test_ratios_are_those_of_the_same_round_and_memory_is_this_over_other():
    found = checkouts.Comparison("resnet8", peak_megabytes={"this": 50.0, "other": 100.0})
    found.this = {"train": [0.1, 0.2, 0.1], "inference": [0.1, 0.1, 0.1]}
    found.other = {"train": [0.1, 0.1, 0.3], "inference": [0.2, 0.2, 0.2]}
    train, inference = (line.split() for line in checkouts.table([found]).splitlines()[1:])
    assert train == ["resnet8", "train", "100.0", "100.0", "1.00", "0.50-3.00", "0.50"]
    assert inference == ["resnet8", "inference", "100.0", "200.0", "2.00", "2.00-2.00"]


def test_the_checkout_that_begins_changes_from_round_to_round(monkeypatch):
    asked = []

    class Worker:
        def __init__(self, side, arguments):
            self.side = side

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def seconds(self, step, repeats):
            asked.append((self.side, step))
            return 1.0

        def megabytes(self):
            return 1.0

    monkeypatch.setattr(checkouts, "_worker", Worker)
    sides = {"this": "this", "other": "other"}
    checkouts._compare_net("resnet8", sides, {}, 2, lambda line: None)
    trained = [side for side, step in asked if step == "train"]
    assert trained == ["this", "other", "this", "other", "other", "this"]


def test_a_folder_without_minires_is_refused(run_cli, tmp_path):
    code, _, err = against(run_cli, tmp_path)
    assert code == 2
    assert f"expected a checkout of minires, got {tmp_path}" in err


def test_a_network_that_the_other_checkout_does_not_know_is_named(run_cli, tmp_path):
    package = tmp_path / "minires"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "optim.py").write_text("SGD = None\n")
    (package / "resnet.py").write_text(
        "def by_name(name, rng):\n    raise ValueError(f'unknown network {name!r}')\n"
    )
    code, _, err = against(run_cli, tmp_path)
    assert code == 2
    assert f"{tmp_path} (commit unknown): unknown network 'resnet8'" in err


def test_the_worker_takes_networks_of_version_1_fused_if_it_can(monkeypatch):
    def missing(name, real=importlib.import_module):
        if name == "minires.nets.registry":
            raise ModuleNotFoundError(name=name)
        return old if name == "minires.resnet" else real(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    old = types.SimpleNamespace(by_name="by_name", fuse="fuse")
    assert checkout_worker.network_tools() == ("by_name", "fuse")
    old = types.SimpleNamespace(by_name="by_name")  # before fuse
    by_name, fuse = checkout_worker.network_tools()
    assert by_name == "by_name"
    assert fuse("net") == "net"


def test_a_process_that_ends_says_its_last_words(tmp_path):
    package = tmp_path / "minires"
    package.mkdir()
    (package / "__init__.py").write_text("import os, sys\nprint('gone', file=sys.stderr)\n"
                                         "sys.stderr.flush()\nos._exit(1)\n")  # fmt: skip
    with pytest.raises(InputError, match="ended: gone"):
        checkouts.compare(
            checkouts.checkout(tmp_path), ["resnet8"], "numpy", 1, 2, lambda line: None
        )


def test_against_excludes_other_contenders_and_takes_one_backend(run_cli):
    for words in (("--ops",), ("--peer", "torch"), ("--backend", "numpy,numba")):
        code, _, err = against(run_cli, ROOT, *words)
        assert code == 2
        assert "--against" in err
