"""Sweeps: workers share runs on a folder, and whatever becomes of them, the bits are the same."""

import errno
import json
import os
import re
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forks import Forks, host, why_no_hosts
from speck_runs import ended

from minires import InputError
from minires.lab import figure, status
from minires.lab.sweep_bar import SweepBar, total
from minires.nets import registry
from minires.runs import checkpoint, files, sweep_record
from minires.runs.config import Config
from minires.runs.lease import Lease, Leases, LostLeaseError, seen
from minires.runs.leased_folder import LeasedFolder
from minires.runs.run import read_run
from minires.runs.run_folder import RunFolder
from minires.train import sweep
from minires.train.loop import DivergenceError, Interrupted, train
from minires.train.sweep import Clock, Reports, Worker, plan, waiting

pytestmark = pytest.mark.usefixtures("speck")
ITERATIONS = 60  # of runs whose workers are killed


BASE = Config(
    "speck",
    "bars",
    12,
    batch_size=8,
    eval_every=5,
    eval_images=16,
    bn_images=16,
    augment=False,
)


def planned(out, seeds=2, **changes):
    facts = [registry.facts(name) for name in ("speck", "pocket-tiny")]
    return plan(facts, seeds, replace(BASE, **changes), out)


class FakeClock(Clock):
    """Time that passes only while a worker waits, and at once."""

    def __init__(self):
        self.time = 0.0
        self.waits = []

    def now(self):
        return self.time

    def wait(self, event, seconds):
        if threading.current_thread().name == "lease":  # no beats, unless a test asks for them
            return event.wait()
        self.waits.append(seconds)
        self.time += seconds
        return event.is_set()


def worker(jobs, data, clock=None, seconds=90.0, **reports):
    stop = threading.Event()
    return Worker(jobs, data, stop, seconds, clock or FakeClock(), Reports(**reports))


@pytest.fixture(scope="module")
def alone(speck, bars, tmp_path_factory):
    """Every run, trained on its own: its end by the name of its folder."""
    out = tmp_path_factory.mktemp("alone")
    ends = {}
    for job in planned(out):
        train(job.config, job.folder, bars)
        ends[job.folder.name] = ended(job.folder)
    return ends


def assert_ends_as(alone, jobs):
    for job in jobs:
        assert sweep.is_finished(job.folder)
        assert ended(job.folder) == alone[job.folder.name]


# ------------------------------------------------------------------------------------------ leases


def test_of_two_workers_one_gets_a_lease_and_a_released_one_is_free(tmp_path):
    clock = FakeClock()
    ours, theirs = Leases(90, clock.now), Leases(90, clock.now)
    taken = ours.take(tmp_path)
    assert taken.generation == 1
    assert theirs.take(tmp_path) is None
    assert not Lease(tmp_path, 1, 90).create()  # at the same instant
    taken.release()
    assert theirs.take(tmp_path).generation == 2
    with pytest.raises(LostLeaseError, match="was taken over by"):
        taken.beat(1)


def test_a_lease_is_stale_after_90_seconds_of_the_observers_clock_without_a_move(tmp_path):
    clock = FakeClock()
    taken, watching = Leases(90, clock.now).take(tmp_path), Leases(90, clock.now)
    assert watching.take(tmp_path) is None
    clock.time += 89
    assert watching.take(tmp_path) is None
    taken.beat(7)
    clock.time += 89
    assert watching.take(tmp_path) is None  # it moved
    clock.time += 89
    assert watching.take(tmp_path) is None
    clock.time += 2
    assert watching.take(tmp_path).generation == 2


def test_clocks_that_differ_by_five_minutes_do_not_matter(tmp_path, monkeypatch):
    clock = FakeClock()
    Leases(90, clock.now).take(tmp_path)
    for shift in (-300, 300):
        os.utime(tmp_path / "lease-1.json", (time.time() + shift,) * 2)
        monkeypatch.setattr(time, "time", lambda shift=shift: shift)
        ahead = Leases(90, lambda shift=shift: clock.time + shift)
        assert ahead.take(tmp_path) is None
        clock.time += 80
        assert ahead.take(tmp_path) is None


def test_where_there_are_no_hard_links_one_of_two_creates_a_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert files.create(tmp_path / "a", b"first")
    assert not files.create(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_a_file_is_ours_even_if_the_servers_answer_was_lost(tmp_path, monkeypatch):
    real = os.link

    def answer_twice(source, target):
        real(source, target)
        raise FileExistsError  # to the request that was sent again

    monkeypatch.setattr(os, "link", answer_twice)
    assert files.create(tmp_path / "a", b"first")
    assert not files.create(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_a_lease_that_somebody_has_written_by_hand_is_not_ours(tmp_path):
    taken = Leases(90, FakeClock().now).take(tmp_path)
    (tmp_path / "lease-1.json").write_text('{"token": "another", "host": "elsewhere"}')
    with pytest.raises(LostLeaseError, match="taken over by elsewhere"):
        taken.check()


def test_giving_a_run_back_leaves_the_lease_and_the_files_of_the_next_worker(tmp_path, monkeypatch):
    first = Leases(90, FakeClock().now).take(tmp_path)
    first.state.mkdir()
    real, taken = Lease.release, []

    def release(lease):
        real(lease)
        taken.append(Leases(90, FakeClock().now).take(tmp_path))  # at once
        taken[0].state.mkdir()

    monkeypatch.setattr(Lease, "release", release)
    first.publish()
    taken[0].beat(1)
    assert taken[0].state.is_dir()
    assert not first.state.exists()


@pytest.mark.parametrize("text", ["", "[1]", '{"seconds": "x", "host": "\\u001b[31m"}', "{"])
def test_a_damaged_lease_is_held_until_it_is_stale(text, tmp_path):
    (tmp_path / "lease-3.json").write_text(text)
    clock = FakeClock()
    leases = Leases(90, clock.now)
    assert leases.take(tmp_path) is None
    assert "\x1b" not in seen(tmp_path).holder
    clock.time += 91
    assert leases.take(tmp_path).generation == 4


# ----------------------------------------------------------------------------------------- workers


def test_a_worker_trains_every_run_to_the_bits_that_it_has_alone(alone, bars, tmp_path):
    jobs = planned(tmp_path)
    worker(jobs, bars).work()
    assert_ends_as(alone, jobs)
    for job in jobs:
        left = {path.name for path in job.folder.iterdir() if not path.name.startswith(".")}
        names = {"config.json", "metrics.jsonl", "checkpoint.safetensors", "lease-1.json"}
        assert left <= names | {checkpoint.PREVIOUS}


def test_workers_at_the_same_time_train_each_run_once(alone, bars, tmp_path):
    jobs, steps = planned(tmp_path), []
    crew = [worker(jobs, bars, Clock(), follow=lambda job, p: steps.append(job)) for _ in range(3)]
    sweep_poll = threading.Event()
    threads = [threading.Thread(target=w.work) for w in crew]
    for w in crew:
        w.clock.wait = lambda event, seconds: event.wait(min(seconds, 0.02))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not sweep_poll.is_set()
    assert_ends_as(alone, jobs)
    assert len(steps) == sum(job.config.iterations for job in jobs)


def test_a_worker_that_joins_late_takes_what_is_left(alone, bars, tmp_path):
    jobs, late = planned(tmp_path), []

    def join(job, progress):
        if progress.iteration == 3 and not late:
            late.append(worker(jobs[2:], bars))  # it knows of other runs only
            late[0].work()

    worker(jobs, bars, follow=join).work()
    assert late
    assert_ends_as(alone, jobs)


def test_ctrl_c_gives_the_run_back_and_another_worker_resumes_it(alone, bars, tmp_path):
    jobs = planned(tmp_path, seeds=1)

    def press(job, progress):
        if progress.iteration == 4:
            first.stop.set()

    first = worker(jobs, bars, follow=press)
    with pytest.raises(Interrupted):
        first.work()
    held = [job for job in jobs if (job.folder / "config.json").exists()]
    assert RunFolder(held[0].folder).position() == 4
    assert seen(held[0].folder).free
    started = []
    worker(jobs, bars, follow=lambda job, p: started.append((job.folder, p.iteration))).work()
    assert started[0] == (held[0].folder, 5)
    assert_ends_as(alone, jobs)


def test_workers_that_end_at_the_same_time_draw_the_same_figure(tmp_path, monkeypatch):
    real, drawn, path = files.move, [], tmp_path / "sweep.png"

    def move(source, target):
        if not drawn:
            drawn.append(target)
            figure.save(figure.Figure(), path)  # by another worker
        real(source, target)

    monkeypatch.setattr(files, "move", move)
    figure.save(figure.Figure(), path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_divergence_is_raised_and_the_run_stays_as_it_is(bars, tmp_path):
    jobs = planned(tmp_path, seeds=1, lr=1e30)
    with pytest.raises(DivergenceError):
        worker(jobs[:1], bars).work()


def test_every_run_that_cannot_go_on_is_named_at_the_end(bars, tmp_path):
    jobs = planned(tmp_path)
    for job in jobs[:2]:
        job.folder.mkdir()
        (job.folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"^2 runs cannot go on: ") as caught:
        worker(jobs, bars).work()
    assert all(f"{job.folder.name}/config.json is damaged" in str(caught.value) for job in jobs[:2])


def test_a_run_that_diverges_does_not_stop_the_others(alone, bars, tmp_path):
    jobs, said = planned(tmp_path), []
    jobs[1] = replace(jobs[1], config=replace(jobs[1].config, lr=1e30))
    with pytest.raises(DivergenceError, match="pocket-tiny diverged"):
        worker(jobs, bars, say=said.append).work()
    assert "goes on with the other runs" in said[0]
    assert_ends_as(alone, [jobs[0], *jobs[2:]])


def test_a_run_that_a_sweep_has_begun_goes_on_without_one(alone, bars, tmp_path):
    (job, _) = planned(tmp_path, seeds=1)

    def press(job, progress):
        if progress.iteration == 6:
            first.stop.set()

    first = worker([job], bars, follow=press)
    with pytest.raises(Interrupted):
        first.work()
    assert checkpoint.position(job.folder) is None  # no run is published before it is finished
    assert read_run(job.folder).train[-1]["iteration"] == 6
    weights = checkpoint.load_weights(job.folder)
    assert weights
    steps = []
    train(job.config, job.folder, bars, lambda p: steps.append(p.iteration))
    assert steps[0] == 7
    assert_ends_as(alone, [job])
    assert not list(job.folder.glob("generation-*"))


# ---------------------------------------------------------------------------------------- failures


class Killed(BaseException):
    """Stands for kill -9: nothing is saved, and the lease is not given back."""


def kill_at(iteration):
    def kill(job, progress):
        if progress.iteration == iteration:
            raise Killed

    return kill


def test_a_run_whose_worker_was_killed_goes_on_from_its_checkpoint_elsewhere(
    alone, bars, tmp_path, monkeypatch
):
    monkeypatch.setattr("minires.train.state.CHECKPOINT_SECONDS", -1.0)
    jobs = planned(tmp_path, seeds=1)
    with pytest.raises(Killed):
        worker(jobs, bars, follow=kill_at(6)).work()
    steps, said, clock = [], [], FakeClock()
    other = worker(
        jobs, bars, clock, follow=lambda job, p: steps.append(p.iteration), say=said.append
    )
    other.work()
    assert steps.count(6) == 1  # by the other worker
    assert said == [waiting([jobs[0]], 90)]  # once, however long it waits
    assert sum(clock.waits) >= 90
    assert_ends_as(alone, jobs)


def test_a_worker_that_was_paused_and_comes_back_overwrites_nothing(
    alone, bars, tmp_path, monkeypatch
):
    monkeypatch.setattr("minires.train.state.CHECKPOINT_SECONDS", -1.0)
    jobs, said, paused = planned(tmp_path, seeds=1), [], []

    def pause(job, progress):
        if progress.iteration == 6 and not paused:  # meanwhile, another worker does everything
            paused.append(job)
            worker(jobs, bars).work()
            paused.append(ended(job.folder))

    worker(jobs, bars, follow=pause, say=said.append).work()
    assert "was taken over by" in said[0]
    assert ended(paused[0].folder) == paused[1]
    assert_ends_as(alone, jobs)


def test_a_worker_that_was_paused_while_it_published_a_run_does_no_harm(
    alone, bars, tmp_path, monkeypatch
):
    jobs, paused, real = planned(tmp_path, seeds=1), [], Lease.publish

    def publish(lease):
        if not paused:
            paused.append(lease)
            whole = {path: path.read_bytes() for path in lease.state.iterdir()}
            worker(jobs, bars).work()  # another worker takes the run over, and publishes it
            monkeypatch.setattr(lease, "check", lambda: None)  # it had passed
            lease.state.mkdir()
            for path, content in whole.items():  # it had been read
                path.write_bytes(content)
        real(lease)

    monkeypatch.setattr(Lease, "publish", publish)
    worker(jobs, bars).work()
    assert_ends_as(alone, jobs)


def test_a_paused_worker_cannot_write_where_its_successor_writes(bars, tmp_path):
    clock = FakeClock()
    job = planned(tmp_path, seeds=1)[0]
    first = Leases(90, clock.now).take(job.folder)
    watching = Leases(90, clock.now)
    watching.take(job.folder)
    clock.time += 91
    second = watching.take(job.folder)
    arrays, meta = {"w": np.zeros(3, np.float32)}, {"iteration": 1}
    for holder, iteration in ((first, 1), (second, 2)):
        holder.state.mkdir()
        checkpoint.save(holder.state, arrays, meta | {"iteration": iteration})  # past all checks
    assert first.state != second.state
    for write in (
        lambda: LeasedFolder(first).append({"kind": "train"}),
        lambda: LeasedFolder(first).save(arrays, meta),
        lambda: LeasedFolder(first)._write(None),
        first.release,
        first.publish,
    ):
        with pytest.raises(LostLeaseError):
            write()
    taken = Lease(job.folder, 3, 90)
    taken.create()
    third = LeasedFolder(taken)
    with third.locked():
        assert third.load()[1]["iteration"] == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("failing", range(2, 12, 3))
def test_a_folder_that_is_full_or_read_only_for_a_while_costs_only_time(
    number, failing, alone, bars, tmp_path, monkeypatch
):
    jobs, said, real, calls = planned(tmp_path, seeds=1), [], os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if failing <= len(calls) < failing + 3:
            raise OSError(number, os.strerror(number))
        return real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    clock = FakeClock()
    worker(jobs, bars, clock, say=said.append).work()
    assert any("tries again every 30 s" in sentence for sentence in said)
    assert 30.0 in clock.waits
    assert_ends_as(alone, jobs)


@pytest.mark.parametrize("failing", [1, 4, 9])
def test_a_folder_that_cannot_be_listed_for_a_while_costs_only_time(
    failing, alone, bars, tmp_path, monkeypatch
):
    jobs, real, calls = planned(tmp_path, seeds=1), os.listdir, []

    def listdir(folder):
        calls.append(folder)
        if failing <= len(calls) < failing + 3:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(folder)

    monkeypatch.setattr(os, "listdir", listdir)
    worker(jobs, bars).work()
    assert len(calls) > failing + 3
    assert_ends_as(alone, jobs)


def test_a_checkpoint_that_cannot_be_read_for_a_while_is_waited_for(
    alone, bars, tmp_path, monkeypatch
):
    monkeypatch.setattr("minires.train.state.CHECKPOINT_SECONDS", -1.0)
    (job, _) = planned(tmp_path, seeds=1)
    with pytest.raises(Killed):
        worker([job], bars, follow=kill_at(6)).work()
    real, failures, steps = Path.open, [], []

    def opened(path, *arguments, **options):
        if path.name == checkpoint.NAME and len(failures) < 2:
            failures.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)
    worker([job], bars, follow=lambda job, p: steps.append(p.iteration)).work()
    assert len(failures) == 2
    assert steps[0] == 7  # the next one
    assert_ends_as(alone, [job])


def test_a_lease_without_a_disk_for_its_beats_is_kept_if_it_lasts_only_a_while(tmp_path):
    taken = Leases(90, FakeClock().now).take(tmp_path)
    clock, stop = FakeClock(), threading.Event()
    beats = iter([False, False, True])
    clock.wait = lambda event, seconds: next(beats)
    calls = []

    def beat(iteration):
        calls.append(iteration)
        if len(calls) == 1:
            raise InputError("full")
        Lease.beat(taken, iteration)

    taken.beat = beat
    with Worker([], None, stop, 90, clock)._beating(taken, stop, [5]):
        pass
    assert calls == [5, 5]
    assert seen(tmp_path).content["counter"] == 1


def test_two_sweeps_with_different_recipes_in_one_folder_are_refused(bars, tmp_path):
    sweep_record.claim(tmp_path, BASE, "a" * 64)
    sweep_record.claim(tmp_path, replace(BASE, net="pocket-tiny", seed=3), "a" * 64)
    with pytest.raises(InputError, match=r"another recipe: --lr 0\.1, not --lr 0\.2"):
        sweep_record.claim(tmp_path, replace(BASE, lr=0.2), "a" * 64)
    with pytest.raises(InputError, match="other data, SHA-256 aaaaaaaaaaaa, not bbbbbbbbbbbb"):
        sweep_record.claim(tmp_path, BASE, "b" * 64)


def test_a_worker_with_another_version_is_refused_and_both_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_record, "versions", lambda: {"minires": "1.0", "numpy": "2.3.1"})
    sweep_record.claim(tmp_path, BASE, "a" * 64)
    monkeypatch.setattr(sweep_record, "versions", lambda: {"minires": "1.1", "numpy": "2.4.0"})
    with pytest.raises(InputError, match=r"minires 1\.0 and 1\.1; numpy 2\.3\.1 and 2\.4\.0"):
        sweep_record.claim(tmp_path, BASE, "a" * 64)


def test_another_processor_gives_a_note(tmp_path, monkeypatch):
    sweep_record.claim(tmp_path, BASE, "a" * 64)
    monkeypatch.setattr(sweep_record, "processor", lambda: "abacus")
    with pytest.warns(UserWarning, match="here is abacus"):
        sweep_record.claim(tmp_path, BASE, "a" * 64)


@pytest.mark.parametrize("text", ["", "{}", '{"recipe": 1, "versions": {}}'])
def test_a_damaged_record_of_a_sweep_is_refused(text, tmp_path):
    (tmp_path / sweep_record.NAME).write_text(text)
    with pytest.raises(InputError, match=r"sweep\.json is damaged"):
        sweep_record.claim(tmp_path, BASE, "a" * 64)


def test_a_leased_run_is_refused_to_train_and_readers_see_the_holders_metrics(bars, tmp_path):
    jobs = planned(tmp_path, seeds=1)
    with pytest.raises(Killed):
        worker(jobs, bars, follow=kill_at(6)).work()
    (held,) = [job for job in jobs if not seen(job.folder).free]
    with pytest.raises(InputError, match="is leased to"):
        train(held.config, held.folder, bars)
    assert read_run(held.folder).train[-1]["iteration"] == 6
    found = status.status(jobs)
    assert sorted((s.state, s.iteration) for s in found) == [("running", 6), ("waiting", 0)]
    assert "1 is running" in status.text(found)
    assert 0 < status.seconds_left(found) < 600


def test_a_worker_gives_back_a_run_that_cannot_go_on_before_it_ends(alone, bars, tmp_path):
    jobs = planned(tmp_path, seeds=1)
    jobs[0].folder.mkdir()
    (jobs[0].folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        worker(jobs, bars).work()
    assert all(seen(job.folder).free for job in jobs)
    found = status.status(jobs)
    assert [s.state for s in found] == ["damaged", "finished"]
    shown = status.text(found)
    assert f"delete {jobs[0].folder} to train this run again" in shown
    assert "Error" not in shown


def test_a_finished_run_with_a_damaged_checkpoint_is_shown_as_damaged_and_says_why(bars, tmp_path):
    jobs = planned(tmp_path, seeds=1)
    worker(jobs, bars).work()
    for path in jobs[0].folder.glob("checkpoint*.safetensors"):
        path.write_bytes(b"")
    found = status.status(jobs)
    assert [s.state for s in found] == ["damaged", "finished"]
    assert f"checkpoint.safetensors is damaged; delete {jobs[0].folder}" in status.text(found)


def test_a_damaged_lease_is_named_and_a_finished_run_stays_finished(bars, tmp_path):
    jobs = planned(tmp_path, seeds=1)
    worker(jobs[:1], bars).work()
    for job in jobs:
        job.folder.mkdir(exist_ok=True)
        (job.folder / "lease-7.json").write_text("garbage")
    found = status.status(jobs)
    assert [(s.state, s.worker) for s in found] == [
        ("finished", ""),
        ("running", "unknown (damaged lease)"),
    ]
    assert sweep.is_finished(jobs[0].folder)


def test_the_status_says_how_long_a_worker_is_silent_and_who_works(bars, tmp_path):
    jobs = planned(tmp_path, seeds=1)
    with pytest.raises(Killed):
        worker(jobs, bars, follow=kill_at(6)).work()
    (held,) = [job for job in jobs if not seen(job.folder).free]
    assert "Time left: < 1 min" in status.text(status.status(jobs))
    assert "silent" not in status.text(status.status(jobs))
    os.utime(held.folder / "lease-1.json", (time.time() - 60,) * 2)
    (late,) = [s for s in status.status(jobs) if s.job is held]
    assert late.state == "running"
    assert re.search("silent for 6[0-9] s", late.worker)
    os.utime(held.folder / "lease-1.json", (time.time() - 300,) * 2)
    found = status.text(status.status(jobs))
    assert "silent for 5 min" in found
    assert "0 are running. Time left: unknown." in found


@pytest.mark.parametrize(
    ("seconds", "words"), [(45.9, "45 s"), (119, "119 s"), (179, "2 min"), (3 * 3600, "3 h")]
)
def test_an_age_is_rounded_down(seconds, words):
    assert status.age(seconds) == words


class Counter:
    """Stands for a bar: `speed` is the work that counts as speed."""

    disable, initial, last_print_n, format_dict = False, 0, 0, {"ncols": None}

    def __init__(self):
        self.n = 0

    def update(self, more):
        self.n += more

    def set_postfix_str(self, *_, **__):
        pass

    @property
    def speed(self):
        return self.n - self.initial


def test_the_bar_of_a_worker_counts_what_others_have_done_and_are_doing(bars, tmp_path):
    jobs, counter = planned(tmp_path, seeds=2), Counter()
    worker(jobs[:1], bars).work()  # before
    bar = SweepBar(counter, jobs)
    before = sum(job.cost * job.config.iterations for job in jobs[:1])
    assert (counter.n, counter.speed) == (before, 0)
    worker(jobs[1:2], bars).work()  # by another worker, meanwhile
    worker(jobs, bars, follow=bar.follow).work()
    bar.look()
    assert counter.n == total(jobs)
    assert counter.speed == total(jobs) - before


# --------------------------------------------------------------------------------------- processes

WORKERS = """
import sys, threading
from pathlib import Path
import specks, test_sweep, toys
from minires.train import state
from minires.train.sweep import Clock, Worker
specks.register()
data = toys.bars()
state.CHECKPOINT_SECONDS = 0.02


class Hurry(Clock):
    def wait(self, event, seconds):
        return event.wait(min(seconds, 0.03))


def start(out):
    jobs = test_sweep.planned(Path(out), iterations=int(sys.argv[1]))
    return [Worker(jobs, data, threading.Event(), 0.25, Hurry()).work]


def started():
    pass
"""


@pytest.fixture
def forks():
    if not hasattr(os, "fork"):
        pytest.skip("starts workers by fork")
    made = Forks(WORKERS, ITERATIONS)
    with made.process:
        yield made


@pytest.fixture(scope="module")
def ended_alone(speck, bars, tmp_path_factory):
    """The end of every longer run, trained on its own."""
    out = tmp_path_factory.mktemp("longer")
    ends = {}
    for job in planned(out, iterations=ITERATIONS):
        train(job.config, job.folder, bars)
        ends[job.folder.name] = ended(job.folder)
    return ends


def test_after_twenty_random_kills_of_workers_every_run_ends_with_the_same_bits(
    forks, ended_alone, tmp_path
):
    rng = np.random.default_rng(5)
    sweeps, kills, pause = [tmp_path / "sweep 0"], 0, threading.Event()
    team = [pid for _ in range(2) for pid in forks.start(sweeps[-1])]
    while kills < 20:
        pause.wait(rng.uniform(0, 0.15))
        victim = team.pop(int(rng.integers(2)))
        if forks.kill(victim) == 0:  # it had come to its end: kill those of another sweep
            sweeps.append(tmp_path / f"sweep {len(sweeps)}")
        else:
            kills += 1
        team += forks.start(sweeps[-1])
    for out in sweeps:
        team += forks.start(out)
    assert {forks.wait(pid) for pid in team} == {0}
    for out in sweeps:
        assert_ends_as(ended_alone, planned(out, iterations=ITERATIONS))


def test_a_worker_stopped_for_longer_than_its_lease_goes_on_without_harm(
    forks, ended_alone, tmp_path
):
    rng = np.random.default_rng(6)
    out = tmp_path / "sweep"
    (stopped,) = forks.start(out)
    threading.Event().wait(rng.uniform(0.05, 0.2))
    os.kill(stopped, signal.SIGSTOP)
    (other,) = forks.start(out)
    assert forks.wait(other) == 0  # it has taken over the run, and ended all of them
    jobs = planned(out, iterations=ITERATIONS)
    assert_ends_as(ended_alone, jobs)
    os.kill(stopped, signal.SIGCONT)
    assert forks.wait(stopped) == 0
    assert_ends_as(ended_alone, jobs)


def test_hosts_that_share_only_a_folder_finish_a_sweep_with_one_of_them_killed(
    ended_alone, tmp_path
):
    if reason := why_no_hosts():
        pytest.skip(reason)
    jobs = planned(tmp_path, iterations=ITERATIONS)
    hosts = [host("alpha", 0), host("beta", 300)]  # clocks five minutes apart
    first, second = (Forks(WORKERS, ITERATIONS, prefix=words) for words in hosts)
    with first.process, second.process:
        (victim,) = first.start(tmp_path)
        while not (held := [job for job in jobs if holder(job) == "alpha"]):
            threading.Event().wait(0.002)
        assert first.kill(victim) == -signal.SIGKILL
        team = [*((forks, forks.start(tmp_path)[0]) for forks in (second, first))]
        assert {forks.wait(pid) for forks, pid in team} == {0}
    assert {holder(job) for job in jobs} <= {"alpha", "beta"}
    assert max(seen(job.folder).generation for job in held) > 1
    assert_ends_as(ended_alone, jobs)


def holder(job):
    """Name of the host that has, or had, the lease of a run."""
    return seen(job.folder).content.get("host")


def test_the_command_trains_shows_where_it_stands_and_refuses_another_recipe(run_cli, tmp_path):
    words = ["sweep", "--nets", "speck,pocket-tiny", "--seeds", 2, "--dataset", "bars"]
    words += ["--batch-size", 8, "--no-augment", "--eval-images", 16, "--backend", "numpy"]
    words += ["--out", tmp_path, "--lr", 0.01]
    few = [*words, "--iterations", 12]
    assert run_cli(*few, "--quiet")[0] == 0
    code, out, _ = run_cli(*few, "--status", "--json")
    assert {row["state"] for row in json.loads(out)["runs"]} == {"finished"}
    again = run_cli(*few, "--quiet")
    assert "All runs of this sweep are finished already." in again[1]
    assert "Ctrl-C" not in again[1]
    code, _, err = run_cli(*words, "--iterations", 13)
    assert code == 2
    assert "holds a sweep with another recipe: --iterations 12, not --iterations 13" in err


SWEEP = ["sweep", "--nets", "speck", "--seeds", 2, "--dataset", "bars", "--iterations", 4]
SWEEP += ["--batch-size", 8, "--no-augment", "--eval-images", 16, "--backend", "numpy"]


@pytest.fixture
def swept(run_cli, tmp_path):
    """The folder of a sweep of two runs that are finished."""
    assert run_cli(*SWEEP, "--out", tmp_path / "sweep", "--quiet")[0] == 0
    return tmp_path / "sweep"


def test_status_needs_the_folder_only_and_shows_the_sweep_in_it(run_cli, swept):
    (swept / "pocket-tiny-seed0").mkdir()  # another worker has announced a run
    code, out, err = run_cli("sweep", "--status", "--out", swept)
    assert code == 0, err
    assert "2 of 3 runs are finished" in out
    assert [line.split()[:4] for line in out.splitlines()[1:4]] == [
        ["pocket-tiny", "seed", "0", "waiting"],
        ["speck", "seed", "0", "finished"],
        ["speck", "seed", "1", "finished"],
    ]
    few = run_cli("sweep", "--status", "--out", swept, "--nets", "speck", "--seeds", 1)
    assert "1 of 1 runs" in few[1]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--iterations", 5], "another recipe: --iterations 4, not --iterations 5; leave"),
        (
            ["--tier", "lesson", "--dataset", "bars"],
            "another recipe: --iterations 4, not --iterations 2000",
        ),
        (["--dataset", "shapes10"], "holds a sweep on bars, not on shapes10; leave out --dataset"),
        (["--nets", "resnet8"], "no runs of resnet8; its nets: speck"),
        (["--nets", "foo"], "no runs of foo; its nets: speck"),
        (["--seeds", 5], "no runs of seeds 2, 3, 4; its seeds: 0, 1"),
    ],
)
def test_status_refuses_options_of_another_sweep(words, reason, run_cli, swept):
    code, _, err = run_cli("sweep", "--status", "--out", swept, *words)
    assert (code, reason in err) == (2, True), err


def test_status_refuses_a_folder_without_a_sweep_and_makes_none(run_cli, swept, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "none", tmp_path / "file", tmp_path / "empty", swept / "speck-seed0"):
        code, _, err = run_cli("sweep", "--status", "--out", out)
        assert (code, "holds no sweep" in err) == (2, True), err
    assert not (tmp_path / "none").exists()
    for text in ("{", '{"recipe": {}, "data": "", "versions": {}, "processor": ""}'):
        (swept / "sweep.json").write_text(text)
        code, _, err = run_cli("sweep", "--status", "--out", swept)
        assert (code, "sweep.json is damaged" in err) == (2, True), err


def test_a_sweep_into_the_folder_of_a_single_run_is_refused(run_cli, swept):
    code, _, err = run_cli(*SWEEP, "--out", swept / "speck-seed0")
    assert (code, "is the folder of a single run" in err) == (2, True), err
    assert not (swept / "speck-seed0" / "sweep.json").exists()
    code, _, err = run_cli(*SWEEP, "--out", swept / "sweep.json")
    assert (code, "sweep.json is not a folder" in err) == (2, True), err
