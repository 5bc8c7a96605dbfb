"""The benchmark runs, counts what it says, and refuses what it does not know; no speed is asserted here."""

import json

import numpy as np
import pytest

from minires import InputError
from minires.bench import nets, ops, workers
from minires.nets.audit import macs
from minires.nets.resnet import resnet


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
    assert line[2] == "20"
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
        workers.worker(nets._net_steps, "resnet9", "numpy", 2) as pipe,
        pytest.raises(InputError, match=r"6n \+ 2"),
    ):
        workers.ask(pipe, "start")


def test_networks_for_other_images_are_not_timed():
    with pytest.raises(InputError, match="32x32"):
        nets.bench(["imagenet-resnet18"], ["numpy"], 1, 2, lambda _: None)


def test_what_a_worker_said_before_it_ended_is_heard():
    class Pipe:
        def send(self, question):
            raise BrokenPipeError

        def recv(self):
            return "PyTorch is not installed"

    with pytest.raises(InputError, match="PyTorch is not installed"):
        workers.ask(Pipe(), "start")


def test_bench_prints_its_table_and_writes_json(run_cli, tmp_path):
    words = ("--nets", "resnet8", "--backend", "numpy", "--rounds", 1, "--batch-size", 2, "--json")
    code, out, _ = run_cli("bench", *words, tmp_path / "a new folder" / "b.json")
    assert code == 0
    assert "train images/s" in out
    assert "Conv2d backward" in out
    assert (
        json.loads((tmp_path / "a new folder" / "b.json").read_text())["timings"][0]["net"]
        == "resnet8"
    )


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
    words = ("bench", "--ops", "--rounds", 1, "--batch-size", 1, "--json", tmp_path / "ops.json")
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
