"""Two runs train at a time: the same bits, one Ctrl-C, one bar, and no failure is lost."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from minires.lab import degradation
from minires.runs import checkpoint
from minires.runs.record import read_record
from minires.runs.run_folder import RunFolder
from minires.train import loop, together
from minires.train.loop import train
from minires.train.progress import Progress, bar, follower


def test_two_nets_train_at_a_time_and_end_with_the_bits_that_they_have_alone(
    tiny, shapes, tmp_path
):
    base = replace(tiny, backend="numba")
    folders = degradation.run(
        ["plain8", "resnet8", "resnet14"], 1, base, tmp_path / "together", shapes, quiet=True
    )
    for folder in folders:
        net = read_record(folder).config.net
        train(replace(base, net=net), tmp_path / net, shapes)
        (ours, meta), (alone, expected) = checkpoint.load(folder), checkpoint.load(tmp_path / net)
        assert all(np.array_equal(ours[name], a) for name, a in alone.items())
        assert (meta["iteration"], meta["window"]) == (expected["iteration"], expected["window"])


@pytest.fixture
def given(monkeypatch):
    """Record the number of threads of each run; there are four threads to share."""
    threads = []
    monkeypatch.setattr(together, "threads_to_share", lambda backend: 4)
    monkeypatch.setattr(together, "use_threads", lambda backend, number: threads.append(number))
    return threads


def test_the_longest_runs_are_paired_first_and_share_the_threads(
    given, tiny, shapes, tmp_path, monkeypatch
):
    barrier, met = threading.Barrier(2), []

    def stand_in(config, *_):
        barrier.wait(timeout=60)  # returns only if two threads call it at the same time
        met.append(config.net)

    monkeypatch.setattr(together, "train", stand_in)
    degradation.run(
        ["plain8", "resnet8", "plain14", "resnet14"], 1, tiny, tmp_path, shapes, quiet=True
    )
    assert set(met[:2]) == {"plain14", "resnet14"}
    assert 2 in given
    assert set(given) <= {2, 4}


def test_of_equal_depths_the_residual_net_whose_step_takes_longer_comes_first(
    tiny, shapes, tmp_path, monkeypatch
):
    came = []
    monkeypatch.setattr(
        degradation, "train_together", lambda todo, *_: came.extend(c.net for c, _ in todo)
    )
    degradation.run(
        ["plain8", "plain14", "resnet8", "resnet14"], 1, tiny, tmp_path, shapes, quiet=True
    )
    assert came == ["resnet14", "plain14", "resnet8", "plain8"]


def test_a_run_that_is_alone_takes_all_threads(given, tiny, shapes, tmp_path):
    degradation.run(["plain8"], 1, tiny, tmp_path, shapes, quiet=True)
    assert given == [4] * (1 + tiny.iterations)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_where_threads_cannot_be_shared_nets_train_one_by_one(
    backend, tiny, shapes, tmp_path, monkeypatch
):
    trained, workers = [], []

    def pool(number):
        workers.append(number)
        return ThreadPoolExecutor(number)

    monkeypatch.setattr(together, "ThreadPoolExecutor", pool)
    monkeypatch.setattr(together, "train", lambda config, *_: trained.append(config.net))
    monkeypatch.setattr("minires.ops.compiled.threads.threads_to_share", lambda: 0)
    monkeypatch.setattr(
        "numba.set_num_threads", lambda n: pytest.fail("the number of threads was changed")
    )
    degradation.run(
        ["plain8", "resnet8"], 1, replace(tiny, backend=backend), tmp_path, shapes, quiet=True
    )
    assert workers == [1]
    assert sorted(trained) == ["plain8", "resnet8"]


def test_ctrl_c_saves_what_is_going_and_the_same_call_goes_on(tiny, shapes, tmp_path):
    base = replace(tiny, backend="numba", iterations=40)
    pressed = []

    def press(progress):
        if not pressed:
            pressed.append(progress)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(loop.Interrupted, match="stopped"):
        degradation.run(["plain8", "resnet8"], 1, base, tmp_path, shapes, quiet=True, report=press)
    assert any(
        0 < RunFolder(tmp_path / f"{net}-seed0").position() < 40 for net in ("plain8", "resnet8")
    )
    folders = degradation.run(["plain8", "resnet8"], 1, base, tmp_path, shapes, quiet=True)
    assert [RunFolder(folder).position() for folder in folders] == [40, 40]


def test_a_run_that_diverges_asks_the_one_beside_it_to_save_and_stop(
    tiny, shapes, tmp_path, monkeypatch
):
    started = threading.Barrier(2)

    def stand_in(config, folder, data, report, stop):
        started.wait(timeout=60)
        if config.net == "plain14":  # one of the first two
            raise loop.DivergenceError("plain14 diverged")
        assert stop.wait(timeout=60)
        raise loop.Interrupted("saved")

    monkeypatch.setattr(together, "train", stand_in)
    monkeypatch.setattr(together, "threads_to_share", lambda backend: 2)
    with pytest.raises(loop.DivergenceError, match="plain14 diverged"):
        degradation.run(["plain8", "resnet8", "plain14"], 1, tiny, tmp_path, shapes, quiet=True)


def test_an_error_of_the_report_stops_all_runs(tiny, shapes, tmp_path):
    def report(progress):
        raise ValueError("of the report")

    with pytest.raises(ValueError, match="of the report"):
        degradation.run(
            ["plain8", "resnet8"],
            1,
            replace(tiny, iterations=40),
            tmp_path,
            shapes,
            True,
            report=report,
        )
    assert RunFolder(tmp_path / "resnet8-seed0").position() < 40


def test_the_bar_says_where_both_runs_are():
    with bar(100) as progress:
        shown = {}
        plain, residual = (follower(progress, net, 1, shown=shown) for net in ("plain8", "resnet8"))
        plain(Progress(1, 2, 2.0, 0.9, 0.1))
        assert progress.postfix == "plain8 1/2 error 90 %, loss 2.00, lr 0.1"
        residual(Progress(1, 2, 1.0, 0.8, 0.1))
        assert progress.postfix == "plain8 1/2 error 90 %, resnet8 1/2 error 80 %"
        plain(Progress(2, 2, 2.0, 0.7, 0.1))
        residual(Progress(2, 2, 1.0, 0.6, 0.1))
        assert progress.postfix == "resnet8 2/2 error 60 %, loss 1.00, lr 0.1"
    assert progress.n == 4
