"""Ranks: whoever computes the parts of a batch, a run ends with the same bits."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
from forks import Forks
from speck_runs import SPECKS, ended, environment

from minires import InputError, resnet
from minires.cli.teams import together
from minires.data import seeds
from minires.optim import SGD
from minires.runs import checkpoint
from minires.runs.config import Config
from minires.runs.record import read_record
from minires.train import patience, ranks, shards, state, task
from minires.train.loop import DivergenceError, Interrupted, train
from minires.train.parallel import how_ended
from minires.train.patience import Patience
from minires.train.ranks import OtherRankError, Ranks
from minires.train.task import Classification
from minires.train.transport import DismissedError, LostRankError, Mpi, Pipes, SilentRankError

pytestmark = pytest.mark.usefixtures("speck")


def teams(size):
    """The ranks of one team, which talk over pipes."""
    pairs = [Pipe() for _ in range(1, size)]
    yield Ranks(Pipes(0, size, [mine for mine, _ in pairs]))
    for rank, (_, theirs) in enumerate(pairs, start=1):
        yield Ranks(Pipes(rank, size, [theirs]))


def with_ranks(size, work):
    """Call `work(team)` for every rank, in threads; return what each returned or raised."""

    def call(team):
        with team.joined():
            return work(team)

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(call, team) for team in teams(size)]
    return [future.exception() or future.result() for future in futures]


RECIPE = Config(
    "speck",
    "bars",
    50,
    batch_size=8,
    shards=4,
    eval_every=20,
    eval_images=16,
    bn_images=0,
    augment=False,
    plateau=1,
)


@pytest.fixture(scope="module")
def sharded():
    return RECIPE


@pytest.fixture(scope="module")
def by_one_rank(speck, sharded, bars, tmp_path_factory):
    return train(sharded, tmp_path_factory.mktemp("one") / "run", bars)


# ------------------------------------------------------------------------------------------- bits


@pytest.mark.parametrize("size", [2, 3, 4])
def test_any_number_of_ranks_ends_with_the_same_bits_after_50_steps(
    size, sharded, by_one_rank, bars, tmp_path
):
    found = with_ranks(size, lambda team: train(sharded, tmp_path, bars, ranks=team))
    assert found == [tmp_path] * size
    assert ended(tmp_path) == ended(by_one_rank)  # gradients by layer, too
    names = checkpoint.load(tmp_path)[0]
    assert any(name.startswith("velocity/") for name in names)
    assert any(name.endswith("running_var") for name in names)


def test_a_run_that_met_its_target_has_ended_for_every_rank(sharded, bars, tmp_path):
    recipe = replace(sharded, until=0.99)
    for _ in range(2):  # the second time nothing is left
        found = with_ranks(2, lambda team: train(recipe, tmp_path, bars, ranks=team))
        assert found == [tmp_path] * 2
        assert checkpoint.load(tmp_path)[1]["iteration"] == recipe.eval_every


def test_one_shard_is_training_in_a_single_process(sharded, bars, tmp_path, monkeypatch):
    single = replace(sharded, shards=1, iterations=6, plateau=None)
    train(single, tmp_path / "single", bars)

    def in_one_shard(run, lr):
        seed = seeds(run.config.seed, "layers", run.iteration)
        work = (run.task, run.net, run.optimizer, run._batch(), lr)
        return shards.sharded_step(*work, 1, seed)

    monkeypatch.setattr(state.TrainingRun, "_train", in_one_shard)
    train(single, tmp_path / "sharded", bars)
    assert ended(tmp_path / "sharded")[0] == ended(tmp_path / "single")[0]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_each_rank_computes_its_own_shards_and_no_others(size):
    x = np.random.default_rng(0).standard_normal((8, 8, 8, 3)).astype(np.float32)
    labels = np.arange(8) % 10
    seen = {}

    class Counting(Classification):
        def __init__(self, rank):
            self.rank = rank

        def step(self, net, optimizer, batch, lr):
            shard = next(k for k in range(4) if np.array_equal(batch[0], x[2 * k : 2 * k + 2]))
            seen.setdefault(self.rank, []).append(shard)
            return super().step(net, optimizer, batch, lr)

    def work(team):
        net = resnet(8, rng=0)
        sgd = SGD(net.parameters())
        batch = (x, labels)
        return shards.sharded_step(
            Counting(team.rank), net, sgd, batch, 0.1, 4, seeds(0, "layers", 0), team
        )

    found = with_ranks(size, work)
    assert seen == {rank: list(range(rank, 4, size)) for rank in range(size)}
    assert found == [found[0]] * size


def test_the_gradient_of_four_shards_is_the_mean_of_four_quarter_batches():
    rng = np.random.default_rng(3)
    x, labels = rng.standard_normal((8, 8, 8, 3)), rng.integers(0, 10, 8)

    class Seen:
        def step(self, gradients, lr):
            self.gradients = {name: g.copy() for name, g in gradients.items()}

    def work(team):
        net, optimizer = resnet(8, rng=0).astype("float64"), Seen()
        seed = seeds(0, "layers", 0)
        shards.sharded_step(Classification(), net, optimizer, (x, labels), 0.1, 4, seed, team)
        return optimizer.gradients

    quarters = []
    for start in (0, 2, 4, 6):
        one = Seen()
        part = (x[start : start + 2], labels[start : start + 2])
        Classification().step(resnet(8, rng=0).astype("float64"), one, part, 0.1)
        quarters.append(one.gradients)
    for gradients in with_ranks(2, work):
        for name, g in gradients.items():
            mean = np.mean([quarter[name] for quarter in quarters], axis=0)
            assert np.abs(g - mean).max() <= 1e-12 * max(1, np.abs(mean).max()), name


# ---------------------------------------------------------------------------------------- failures


def test_more_ranks_than_shards_are_refused(sharded, bars, tmp_path):
    two = replace(sharded, shards=2)
    found = with_ranks(3, lambda team: train(two, tmp_path, bars, ranks=team))
    assert all(isinstance(e, InputError) and "--shards 3" in str(e) for e in found)
    assert not tmp_path.joinpath("config.json").exists()


def test_a_rank_with_another_version_recipe_or_data_is_refused_and_both_are_named(
    sharded, bars, tmp_path, monkeypatch
):
    here = threading.local()
    versions = {"minires": "1", "numpy": "2.3.1"}

    def other_versions():
        return versions | ({"numpy": "2.4.0"} if here.rank else {})

    monkeypatch.setattr(ranks, "versions", other_versions)

    def work(team):
        here.rank = team.rank
        return train(sharded, tmp_path / "a", bars, ranks=team)

    assert all("numpy 2.3.1 and 2.4.0" in str(e) for e in with_ranks(2, work))
    monkeypatch.undo()

    def another_rate(team):
        return train(replace(sharded, lr=0.1 + team.rank), tmp_path / "b", bars, ranks=team)

    assert all("lr 0.1 and 1.1" in str(e) for e in with_ranks(2, another_rate))

    def other_data(team):
        data = replace(bars, fingerprint="f" * 64) if team.rank else bars
        return train(sharded, tmp_path / "c", data, ranks=team)

    assert all("data with SHA-256" in str(e) for e in with_ranks(2, other_data))


def test_a_rank_whose_recipe_has_one_more_option_is_refused():
    found = with_ranks(2, lambda team: team.agree({"a": 1} | ({"b": 2} if team.rank else {}), ""))
    assert all(isinstance(e, InputError) and "b None and 2" in str(e) for e in found)


def test_an_error_of_one_rank_ends_all_and_the_others_name_it(sharded, bars, tmp_path):
    def work(team):
        def report(progress):
            if (team.rank, progress.iteration) == (1, 3):
                raise InputError("no disk")

        return train(sharded, tmp_path, bars, report, ranks=team)

    first, second, third = with_ranks(3, work)
    assert isinstance(first, OtherRankError)
    assert str(first) == str(third) == "rank 1 of 3: no disk"
    assert str(second) == "no disk"


def test_a_divergence_on_one_rank_is_one_on_all(sharded, bars, tmp_path, monkeypatch):
    real = task.Classification.step

    def step(self, net, optimizer, batch, lr):
        if threading.current_thread() is failing.get("thread"):
            raise FloatingPointError
        return real(self, net, optimizer, batch, lr)

    failing = {}
    monkeypatch.setattr(task.Classification, "step", step)

    def work(team):
        if team.rank == 1:
            failing["thread"] = threading.current_thread()
        return train(sharded, tmp_path, bars, ranks=team)

    found = with_ranks(2, work)
    assert all(isinstance(e, DivergenceError) for e in found)


class SlowClock:
    """A monotonic clock that a test moves."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


def test_a_rank_waits_five_minutes_or_ten_times_as_long_as_it_has_computed_itself():
    clock = SlowClock()
    first, other = Patience(0, clock), Patience(1, clock)
    assert (first.seconds, other.seconds) == (300, 600)
    with first.exchange():
        clock.time += 1000  # it waits
    assert first.seconds == 300
    clock.time += 60  # it computes
    with first.exchange():
        pass
    assert first.seconds == 600


def test_the_time_in_which_the_waiting_process_itself_is_stopped_does_not_count():
    clock = SlowClock()
    looks = []

    def arrived(seconds):
        looks.append(seconds)
        clock.time += seconds
        return len(looks) == 200

    waiting = Patience(0, clock)
    assert waiting.lasts(lambda: arrived(10_000))
    looks.clear()
    assert waiting.lasts(lambda: arrived(1))
    looks.append(0)
    assert not waiting.lasts(lambda: arrived(1))
    assert len(looks) == 200 + 1 + 300


@pytest.mark.parametrize("bytes_sent", [None, 10, 10**6])
def test_a_rank_that_hangs_is_named_and_the_others_end(bytes_sent, monkeypatch):
    monkeypatch.setattr(patience, "LEAST_SECONDS", 0.2)
    first, second, hanging = teams(3)
    ended = []

    def follow():
        try:
            second.share("here")
        except DismissedError as e:
            ended.append(e)

    thread = threading.Thread(target=follow)
    thread.start()
    end = hanging._transport._connections[0]
    if bytes_sent:  # a message that stands still
        os.write(end.fileno(), struct.pack("!i", 2 * 10**6) + bytes(bytes_sent // 10))
    with pytest.raises(SilentRankError, match="rank 2 of 3 has been silent for 0 s"):
        first.share("here")
    thread.join()
    assert len(ended) == 1


def test_a_rank_that_hangs_while_others_send_to_it_is_named(monkeypatch):
    monkeypatch.setattr(patience, "LEAST_SECONDS", 0.2)
    first, hanging = teams(2)
    hanging._transport._send(0, ranks.pack({"shared": 1}, {}))
    with pytest.raises(SilentRankError, match="rank 1 of 2 has been silent"):
        first.share("much", {"a": np.zeros(10**6)})


def test_ctrl_c_on_any_rank_saves_and_another_number_of_ranks_resumes_to_the_same_bits(
    sharded, by_one_rank, bars, tmp_path
):
    stops = {rank: threading.Event() for rank in range(2)}

    def work(team):
        def press(progress):
            if (team.rank, progress.iteration) == (1, 20):
                stops[1].set()

        return train(sharded, tmp_path, bars, press, stops[team.rank], ranks=team)

    assert all(isinstance(e, Interrupted) for e in with_ranks(2, work))
    assert checkpoint.load(tmp_path)[1]["iteration"] == 20
    with_ranks(4, lambda team: train(sharded, tmp_path, bars, ranks=team))
    assert ended(tmp_path) == ended(by_one_rank)


def test_ranks_on_the_same_processors_share_the_kernel_threads(monkeypatch):
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.setattr(ranks, "threads_to_share", lambda backend: 4)
    given = []
    monkeypatch.setattr(ranks, "use_threads", lambda backend, number: given.append(number))

    def work(team):
        with team.threads("numba"):
            pass

    with_ranks(2, work)
    assert sorted(given) == [2, 2, 4, 4]
    own = threading.local()
    monkeypatch.setattr(ranks, "processors_allowed", lambda: [own.rank])
    given.clear()

    def bound(team):
        own.rank = team.rank
        work(team)

    with_ranks(2, bound)
    assert given == [4, 4, 4, 4]
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    given.clear()
    with_ranks(2, work)
    assert given == []


# --------------------------------------------------------------------------------------- processes

TEAMS = """
import sys
from multiprocessing import Pipe
from pathlib import Path
import specks, test_parallel, toys
from minires.train import patience, state
from minires.train.loop import train
from minires.train.ranks import Ranks
from minires.train.transport import Pipes
specks.register()
data = toys.bars()
state.CHECKPOINT_SECONDS = 0.02
patience.LEAST_SECONDS = float(sys.argv[1])
ends = []


def start(words):
    size, _, out = words.partition(" ")
    size = int(size)
    pairs = [Pipe() for _ in range(1, size)]
    ends.extend(end for pair in pairs for end in pair)

    def rank(number):
        mine = [pair[0] for pair in pairs] if number == 0 else [pairs[number - 1][1]]

        def work():
            for end in ends:
                if end not in mine:
                    end.close()
            team = Ranks(Pipes(number, size, mine))
            with team.joined():
                train(test_parallel.RECIPE, Path(out), data, ranks=team)

        return work

    return [rank(number) for number in range(size)]


def started():
    for end in ends:
        end.close()
    ends.clear()
"""


def test_killed_at_random_ranks_a_run_ends_at_once_and_resumes_to_the_same_bits(
    by_one_rank, tmp_path
):
    if not hasattr(os, "fork"):
        pytest.skip("starts ranks by fork")
    rng, kills, runs, forks = np.random.default_rng(0), 0, [tmp_path / "0"], Forks(TEAMS, 300)
    with forks.process:
        while kills < 12:
            team = forks.start(f"{rng.integers(2, 5)} {runs[-1]}")
            threading.Event().wait(rng.uniform(0, 0.15))
            victim = team.pop(int(rng.integers(len(team))))
            if forks.kill(victim) == 0:
                runs.append(tmp_path / str(len(runs)))  # it had come to its end: kill another one
            else:
                kills += 1
            for pid in team:
                forks.wait(pid)  # all of them end
        for run in runs:
            for pid in forks.start(f"2 {run}"):
                assert forks.wait(pid) == 0
    for run in runs:
        assert ended(run) == ended(by_one_rank)


def test_rank_0_stopped_for_too_long_ends_the_others_and_the_run_resumes(by_one_rank, tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("starts ranks by fork")
    forks = Forks(TEAMS, 0.5)
    with forks.process:
        stopped, *others = forks.start(f"3 {tmp_path}")
        while not (tmp_path / checkpoint.NAME).exists():
            threading.Event().wait(0.002)
        os.kill(stopped, signal.SIGSTOP)
        assert {forks.wait(pid) for pid in others} == {1}
        assert checkpoint.position(tmp_path) < RECIPE.iterations
        os.kill(stopped, signal.SIGCONT)
        assert forks.wait(stopped) == 1  # it learns that it is alone
        for pid in forks.start(f"2 {tmp_path}"):
            assert forks.wait(pid) == 0
    assert ended(tmp_path) == ended(by_one_rank)


TRAIN = "train speck --dataset bars --batch-size 8 --shards 4 --no-augment --lr 0.01"
TRAIN += " --eval-images 16 --backend numpy"
# long runs that save often
RANKS = """
import os, signal
from minires import cli
from minires.train import state

real = state.TrainingRun.step
state.CHECKPOINT_SECONDS = 0 if "PRESSED" in os.environ else 0.05  # 0: after every step

def step(run):
    run.ranks._transport._patience._least = 1.0
    if run.iteration == 5 and f"rank {run.ranks.rank}" == os.environ.get("STOPPED"):
        os.kill(os.getpid(), signal.SIGSTOP)
    pressed = int(os.environ.get("PRESSED", "0")) if run.iteration >= 5 else 0
    if pressed:
        os.killpg(0, signal.SIGINT)  # a terminal sends it to every process
    progress = real(run)  # the other ranks have it, too
    if pressed > 1:
        os.killpg(0, signal.SIGINT)
    return progress

state.TrainingRun.step = step
cli.main()
"""


def children(process):
    """Numbers of the ranks that a process has started."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    words = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in found}
    return [pid for pid, command in words.items() if b"spawn_main" in command]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("lost", "how", "words"),
    [
        (0, "SIGKILL", "has ended without a word, so"),
        (2, "SIGKILL", "was killed (signal 9), so"),
        (2, "SIGSTOP", "has been silent"),
    ],
)
def test_a_lost_rank_of_the_command_is_named_once_and_one_process_resumes(
    lost, how, words, bars, tmp_path
):
    command = [sys.executable, "-c", RANKS, "--plugin", str(SPECKS), *TRAIN.split()]
    command += ["--iterations", "2000", "--out", str(tmp_path), "--ranks", "3", "--quiet"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(), **pipes) as process:
        while not (tmp_path / checkpoint.NAME).exists():
            assert process.poll() is None, process.stderr.read()
            threading.Event().wait(0.02)
        os.kill([process.pid, *children(process)][lost], getattr(signal, how))
        _, err = process.communicate(timeout=60)  # until the last process has closed it
    assert err.count("error:") == 1
    assert f"error: rank {lost} of 3 {words}" in err
    assert "Traceback" not in err
    config = read_record(tmp_path).config
    before = checkpoint.position(tmp_path)
    assert 0 < before < 2000

    def stop(progress):
        raise InputError("resumed")

    with pytest.raises(InputError, match="resumed"):
        train(config, tmp_path, bars, stop)


def started_ranks(folder, *words, program=("-m", "minires"), **variables):
    """The command with two ranks, in a group of processes of its own."""
    command = [sys.executable, *program, "--plugin", str(SPECKS), *TRAIN.split()]
    command += ["--iterations", "2000", "--out", str(folder), "--ranks", "2", "--quiet", *words]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    variables = environment(**variables)
    return subprocess.Popen(command, env=variables, start_new_session=True, **pipes)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="a system without groups of processes")
@pytest.mark.parametrize(("pressed", "words"), [(1, "stopped and saved"), (2, "is saved at")])
def test_ctrl_c_at_all_ranks_is_one_message(pressed, words, tmp_path):
    program = ("-c", RANKS)
    with started_ranks(tmp_path / "run", program=program, PRESSED=str(pressed)) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(err.strip().splitlines()) == 1, err
    assert words in err


HANGING = """
import os, signal, sys, threading
if "--multiprocessing-fork" in sys.orig_argv:  # a rank
    with open(os.environ["HANGS"] + ".part", "w") as file:
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []), file=file)
    os.replace(file.name, os.environ["HANGS"])
    threading.Event().wait()
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="a system without groups of processes")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_while_ranks_start_ends_all_of_them_with_one_message(number, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HANGING)  # every Python imports it first
    paths = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    hangs = tmp_path / "hangs"
    with started_ranks(tmp_path / "run", PYTHONPATH=paths, HANGS=str(hangs)) as process:
        while not hangs.exists():
            assert process.poll() is None, process.stderr.read()
            threading.Event().wait(0.02)
        if number == "SIGINT":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)  # until the last process has closed it
    assert process.returncode == 130
    assert len(err.strip().splitlines()) == 1, err
    assert "stopped before a step was saved" in err
    assert "SIGINT" in hangs.read_text()  # blocked in a rank, even while it imports


def test_a_rank_lost_before_any_checkpoint_is_not_promised_one(sharded, bars, tmp_path):
    def lose(progress):
        raise LostRankError(1, 2)

    with pytest.raises(LostRankError, match="no checkpoint yet: the same command starts"):
        train(RECIPE, tmp_path, bars, lose)
    saved = LostRankError(1, 2)
    saved.how = how_ended(3)
    assert str(saved).startswith("rank 1 of 2 has ended without a word (exit code 3), so training")
    assert "resume from the last checkpoint" in str(saved)


def test_the_command_after_ctrl_c_starts_as_many_ranks_in_the_same_way():
    words = "minires resume run"
    assert Ranks().command(words) == words
    assert Ranks(Pipes(0, 3, [])).command(words) == f"{words} --ranks 3"
    mpi = Mpi.__new__(Mpi)
    mpi.rank, mpi.size = 0, 2
    assert Ranks(mpi).command(words) == f"mpiexec -n 2 {words}"


def test_the_number_of_shards_that_is_advised_divides_the_batch():
    with pytest.raises(
        InputError,
        match=r"3 ranks need --shards 3 .* start 2 ranks or fewer, or begin a run with --shards 4",
    ):
        shards.check_number(2, 3, 128)
    with pytest.raises(InputError, match=r"of a batch of 8; start one rank"):
        shards.check_number(1, 9, 8)


# ------------------------------------------------------------------------------------------- MPI


def mpiexec(size, folder, *words, program=("-m", "minires"), **variables):
    """Run `minires train` in processes that mpiexec starts."""
    pytest.importorskip("mpi4py", reason="extra mpi")
    launcher = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    command = [launcher, "-n", str(size), sys.executable, *program]
    command += ["--plugin", str(SPECKS), *TRAIN.split(), "--iterations", "50"]
    command += ["--out", str(folder), *map(str, words)]
    options = {"env": environment(**variables), "capture_output": True, "text": True}
    return subprocess.run(command, timeout=120, **options)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_of_mpiexec_end_with_the_bits_of_pipes_and_only_rank_0_speaks(size, bars, tmp_path):
    done = mpiexec(size, tmp_path / "mpi")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Training error") == 1
    recipe = read_record(tmp_path / "mpi").config
    assert (recipe.shards, recipe.iterations) == (4, 50)
    with_ranks(2, lambda team: train(recipe, tmp_path / "pipes", bars, ranks=team))
    assert ended(tmp_path / "mpi") == ended(tmp_path / "pipes")


def test_a_mistake_under_mpiexec_is_one_message_and_exit_code_2(tmp_path):
    done = mpiexec(2, tmp_path / "run", "--shards", 1)
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert (
        "2 ranks need --shards 2 or more, got --shards 1, of a batch of 8; start one rank, or "
        "begin a run with --shards 2" in done.stderr
    )


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a system without SIGSTOP")
def test_a_rank_of_mpiexec_that_hangs_ends_all_of_them(tmp_path):
    done = mpiexec(2, tmp_path, program=("-c", RANKS), STOPPED="rank 1")
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "one rank of 2 has been silent for" in done.stderr


@pytest.mark.parametrize("name", ["PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"])
def test_without_mpi4py_only_rank_0_speaks(name, run_cli, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv(name, rank)
        said.append(run_cli("train", "resnet8")[1:])
    assert ["need mpi4py" in err for _, err in said] == [True, False]
    assert said[1] == ("", "")


def test_ranks_beside_mpiexec_are_refused_by_name():
    mpi = Ranks(Pipes(0, 2, []))
    with pytest.raises(InputError, match="drop --ranks"):
        together(mpi, 2)


def test_without_mpi4py_the_error_says_how_to_install_it(run_cli, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    code, _, err = run_cli("train", "resnet8")
    assert code == 2
    assert 'pip install "minires[mpi]"' in err
