"""A run that trains until its error is low enough: it ends there, is recorded and resumes so."""

import threading
from dataclasses import replace

import pytest

from minires import InputError
from minires.lab import commands
from minires.lab.recorded import by_net, find_runs
from minires.runs import checkpoint
from minires.runs.config import Config
from minires.runs.metric import ERROR, Metric
from minires.runs.run import read_run
from minires.runs.run_folder import RunFolder
from minires.train import state as run_state
from minires.train.loop import Interrupted, train
from minires.train.progress import bar, follower


@pytest.fixture(scope="module")
def recipe():
    """A short run of a network that draws masks, on few images."""
    return Config(
        "alexnet-cifar-dropout",
        "shapes10",
        16,
        batch_size=8,
        lr=0.05,
        augment=False,
        eval_every=2,
        eval_images=12,
        bn_images=0,
    )


@pytest.fixture(scope="module")
def whole(recipe, shapes, tmp_path_factory):
    """The same run without a target."""
    return read_run(train(recipe, tmp_path_factory.mktemp("whole"), shapes))


@pytest.fixture(scope="module")
def target(whole):
    """An error that is reached in the middle: neither at the first nor at the last evaluation."""
    errors = [line["train_error"] for line in whole.evals]
    middle = min(errors[1:-1])
    assert errors[0] > middle
    return middle


def expected_end(whole, target):
    return next(line["iteration"] for line in whole.evals if line["train_error"] <= target)


def same_without_seconds(lines):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def assert_ended_early(run, whole, target):
    end = expected_end(whole, target)
    assert run.done
    assert run.reached == end < whole.config["iterations"]
    before = [line for line in whole.evals if line["iteration"] <= end]
    assert same_without_seconds(run.evals) == same_without_seconds(before)
    assert run.layers[-1]["iteration"] == end
    folder = RunFolder(run.folder)
    assert folder.position() == end
    assert folder.left() == 0


def test_a_run_ends_at_the_first_evaluation_that_reaches_the_target(
    recipe, shapes, whole, target, tmp_path
):
    folder = train(replace(recipe, until=target), tmp_path, shapes)
    assert_ended_early(read_run(folder), whole, target)
    files = {f.name: f.read_bytes() for f in folder.iterdir() if not f.name.startswith(".")}
    train(replace(recipe, until=target), tmp_path, shapes)  # it is finished, and is left as it is
    assert files == {f.name: f.read_bytes() for f in folder.iterdir() if f.name in files}


def test_killed_at_each_iteration_and_resumed_it_ends_with_the_same_bits(
    recipe, shapes, whole, target, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_state, "CHECKPOINT_SECONDS", -1)  # a checkpoint at every iteration
    config = replace(recipe, until=target)
    expected = checkpoint.load_weights(train(config, tmp_path / "unstopped", shapes))
    asked = threading.Event()
    asked.set()
    folder, stops = tmp_path / "stopped", 0
    while True:
        try:
            train(config, folder, shapes, stop=asked)
            break
        except Interrupted:
            stops += 1
    end = expected_end(whole, target)
    assert stops == end  # the last one after the run has ended
    assert_ended_early(read_run(folder), whole, target)
    found = checkpoint.load_weights(folder)
    assert {k: a.tobytes() for k, a in found.items()} == {
        k: a.tobytes() for k, a in expected.items()
    }


def test_the_message_of_a_stop_at_the_end_says_that_the_run_is_finished(
    recipe, shapes, whole, target, tmp_path
):
    stop = threading.Event()
    end = expected_end(whole, target)

    def report(p):
        assert p.ended == (p.iteration == end)
        if p.ended:
            stop.set()

    with pytest.raises(Interrupted, match=f"is finished: all {end} iterations are saved"):
        train(replace(recipe, until=target), tmp_path, shapes, report, stop)


def test_a_target_that_is_not_reached_changes_nothing(recipe, shapes, whole, tmp_path):
    run = read_run(train(replace(recipe, until=0.0), tmp_path, shapes))
    assert run.done
    assert run.reached is None or run.evals[-1]["train_error"] == 0
    if run.reached is None:
        assert same_without_seconds(run.evals) == same_without_seconds(whole.evals)


def test_another_target_is_another_run(recipe, shapes, target, tmp_path):
    train(replace(recipe, until=target), tmp_path / "a", shapes)
    with pytest.raises(InputError, match="another run: until"):
        train(replace(recipe, until=target / 2), tmp_path / "a", shapes)
    train(replace(recipe, until=1.0), tmp_path / "b", shapes)
    runs = find_runs([tmp_path])
    names = " ".join(by_net(runs))
    assert f"until {target:g}" in names
    assert "until 1" in names
    assert f"--until {target}" in " ".join(commands.commands(runs))


@pytest.mark.parametrize("until", ["0.25", True, (0.25,)])
def test_a_target_that_is_no_number_is_refused(recipe, until):
    with pytest.raises(InputError, match="until must be a number"):
        replace(recipe, until=until)


def test_a_metric_knows_which_side_of_a_target_is_better():
    accuracy = Metric("accuracy", lower_is_better=False)
    assert [ERROR.reaches(v, 0.25) for v in (0.2, 0.25, 0.3)] == [True, True, False]
    assert [accuracy.reaches(v, 0.25) for v in (0.2, 0.25, 0.3)] == [False, True, True]
    assert not ERROR.reaches(0.0, None)


def test_a_bar_moves_to_the_end_when_a_run_ends_early(recipe, shapes, target, tmp_path, capsys):
    with bar(recipe.iterations) as progress:
        train(replace(recipe, until=target), tmp_path, shapes, follower(progress, "net", 1))
        assert progress.n == recipe.iterations


def test_tqdms_monitor_thread_finds_nothing_to_write_in_a_log(capsys):
    """It writes for bars whose `miniters` has grown above 1."""
    with bar(100_000) as progress:
        start = progress.start_t
        for second in range(100):
            progress._time = lambda second=second: start + second
            progress.update(1000)
            assert progress.miniters <= 1
    assert 6 <= capsys.readouterr().err.count("\n") <= 8  # a line for every 15 seconds
