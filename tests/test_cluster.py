"""A sweep on dask.distributed: lost workers and schedulers cost time, and no bits."""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from speck_runs import SPECKS, ended, environment
from test_sweep import BASE, SWEEP, assert_ends_as, planned

from minires import InputError
from minires.cli.main import STOPPED
from minires.runs.lease import seen
from minires.train import cluster, cluster_start
from minires.train.cluster import Task
from minires.train.loop import train
from minires.train.stopping import Interrupted

if importlib.util.find_spec("distributed") is None:
    pytest.skip(
        "an optional extra is missing: pip install -e '.[cluster]'", allow_module_level=True
    )

pytestmark = [
    pytest.mark.usefixtures("speck"),
    pytest.mark.filterwarnings("default"),  # those of dask are not ours
]
SECONDS = 1.5  # of leases


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.2)


@pytest.fixture(scope="module")
def alone(speck, bars, tmp_path_factory):
    ends = {}
    for job in planned(tmp_path_factory.mktemp("alone"), seeds=3, iterations=100):
        train(job.config, job.folder, bars)
        ends[job.folder.name] = ended(job.folder)
    return ends


@pytest.fixture(scope="module")
def client():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        with cluster_start.client("local:2") as found:
            yield found


def task(out, hosts=None):
    jobs = tuple(planned(out, seeds=3, iterations=100))
    return Task(jobs, BASE, out, None, (str(SPECKS),), SECONDS, hosts or {})


def test_two_workers_finish_a_sweep_with_one_of_them_killed_midway(alone, client, tmp_path):
    work, killed = task(tmp_path, cluster.check_workers(client)), []

    def kill():
        held = [lease for job in work.jobs if not (lease := seen(job.folder)).free]
        if held and not killed:
            killed.append(held[0].content["pid"])
            os.kill(killed[0], signal.SIGKILL)

    cluster.sweep_on(client, work, threading.Event(), kill)
    assert killed
    assert_ends_as(alone, work.jobs)


def test_a_request_to_stop_saves_the_runs_at_hand_and_the_same_workers_resume(
    alone, client, tmp_path
):
    work, stop = task(tmp_path), threading.Event()

    def look():
        if any(not seen(job.folder).free for job in work.jobs):
            stop.set()

    with pytest.raises(Interrupted, match="stopped and saved"):
        cluster.sweep_on(client, work, stop, look)
    assert all(seen(job.folder).free for job in work.jobs)
    cluster.sweep_on(client, task(tmp_path), threading.Event())  # the same command again
    assert_ends_as(alone, work.jobs)


def test_a_run_that_cannot_go_on_does_not_stop_the_others(alone, client, tmp_path):
    work = task(tmp_path)
    first = replace(work.jobs[0], config=replace(work.jobs[0].config, lr=1e30))
    with pytest.raises(InputError, match="speck diverged"):
        cluster.sweep_on(client, replace(work, jobs=(first, *work.jobs[1:])), threading.Event())
    assert_ends_as(alone, work.jobs[1:])


def test_a_host_divides_its_threads_by_the_tasks_of_all_its_workers(client, monkeypatch):
    workers = {"a": {"host": "here", "nthreads": 4}, "b": {"host": "here", "nthreads": 1}}
    monkeypatch.setattr(client, "scheduler_info", lambda n_workers: {"workers": workers})
    assert cluster.check_workers(client) == {"here": 5}


def test_workers_with_other_versions_are_refused_and_both_are_named(client, monkeypatch):
    monkeypatch.setattr(cluster, "versions", lambda: {"numpy": "0.1"})
    monkeypatch.setattr(client, "run", lambda _: {"tcp://a": {"numpy": "0.2"}})
    with pytest.raises(InputError, match=r"tcp://a has other versions .*numpy 0\.1 and 0\.2"):
        cluster.check_workers(client)


def test_the_scheduler_allows_more_failures_than_dask_does(client):
    allowed = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures)
    assert allowed == cluster_start.ALLOWED_FAILURES


def test_a_scheduler_that_was_killed_is_named_and_the_runs_are_whole(alone, tmp_path):
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0"]
    command += ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", tmp_path / "address"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(list(map(str, command)), **quiet) as scheduler:
        while not (tmp_path / "address").exists():
            threading.Event().wait(0.05)
        address = json.loads((tmp_path / "address").read_text())["address"]
        with cluster_start.client(address) as found:
            with pytest.raises(InputError, match="no workers"):
                cluster.check_workers(found)
            work, stop = task(tmp_path / "sweep"), threading.Event()
            with pytest.raises(InputError, match="the scheduler of dask has ended"):
                cluster.sweep_on(found, work, stop, scheduler.kill)


def test_without_dask_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(InputError, match=r'pip install "minires\[cluster\]"'),
        cluster_start.client("local:2"),
    ):
        pass


@pytest.mark.parametrize(
    "address",
    ["", "local", "local:0", "local:x", "HOST:8786", "tcp://HOST", "tcp://:1", "tcp://h:x"],
)
def test_an_address_that_dask_does_not_have_is_refused(address):
    with pytest.raises(InputError, match="local:2 or an address with a port such as"):
        cluster_start.workers_asked(address)


def test_an_address_where_nobody_listens_is_refused_and_nothing_is_made(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        words = [*SWEEP, "--out", tmp_path / "sweep", "--dask", address]
        command = [sys.executable, "-m", "minires", "--plugin", SPECKS, *words]
        done = subprocess.run(
            list(map(str, command)), env=environment(), capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no scheduler of dask answers at tcp://127.0.0.1" in done.stderr
    assert not (tmp_path / "sweep").exists()


class Starting:
    """A cluster whose workers start one at each look of a clock, up to some."""

    def __init__(self, most):
        self.workers = {}
        self.scheduler = self
        self.most = most
        self.now = 0.0

    def scale(self, number):
        self.asked = number

    def clock(self):
        self.now += 10.0
        if len(self.workers) < self.most and self.now > 30:
            self.workers[len(self.workers)] = ""
        return self.now


@pytest.mark.parametrize("most", [0, 1, 2])
def test_workers_that_start_are_waited_for_in_words_and_not_forever(most, monkeypatch):
    monkeypatch.setattr(cluster_start, "POLL_SECONDS", 0.0)
    cluster, said = Starting(most), []
    refused = pytest.raises(InputError, match="no worker of dask has started within 5 min")
    with refused if not most else contextlib.nullcontext():
        cluster_start.wait_for_workers(cluster, 2, said.append, cluster.clock)
    assert cluster.asked == 2
    assert said[0] == "Waiting for 2 workers of dask (0 started so far)."
    assert ("Going on with 1 worker; others may join later." in said) == (most == 1)


def test_a_part_of_dask_that_never_ends_is_left_after_a_while():
    hangs = threading.Event()
    cluster_start.within(0.01, hangs.wait)
    (left,) = (thread for thread in threading.enumerate() if thread.name == "dask")
    assert left.daemon  # so that it does not keep the process
    hangs.set()
    left.join()


def test_lost_workers_of_dask_are_reported_and_a_stop_is_announced_once():
    class Client:
        workers = ("a", "b")

        def scheduler_info(self, n_workers):
            return {"workers": dict.fromkeys(self.workers)}

    found, stop, said = Client(), threading.Event(), []
    watch = cluster.Watch(found, stop, said.append)
    watch.look()
    assert said == []
    found.workers = ("b", "c")
    watch.look()
    assert said.pop().startswith("1 worker of dask lost, 1 new")
    stop.set()
    found.workers = ("b",)
    watch.look()
    watch.look()
    assert len(said) == 1
    assert said[0].startswith("Stopping")


class Hanging:
    """A client whose workers neither answer nor begin."""

    status = "running"

    def __init__(self, stop):
        self.run = lambda *_, **__: stop.wait() and None

    def submit(self, *_, **__):
        return None


def test_a_stop_before_a_worker_has_a_run_ends_at_once_and_promises_nothing(tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted, match="stopped before a step was saved"):
        cluster.sweep_on(Hanging(stop), task(tmp_path), stop)


CTRL_C = """
import multiprocessing
import os
import signal
from minires import cli
from minires.train import cluster_start

def press(cluster, number, say):
    cluster.scale(number)
    while len(multiprocessing.active_children()) < number:
        cluster_start.threading.Event().wait(0.05)
    os.killpg(0, getattr(signal, os.environ["PRESSED"]))
    cluster_start.threading.Event().wait()

cluster_start.wait_for_workers = press
if __name__ == "__main__":
    cli.main()
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="a system without groups of processes")
def test_ctrl_c_while_workers_of_dask_start_is_one_message_and_leaves_none(tmp_path):
    words = [*SWEEP, "--out", tmp_path / "sweep", "--dask", "local:2"]
    command = [sys.executable, "-c", CTRL_C, "--plugin", SPECKS, *words]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    variables = environment(PRESSED="SIGINT")
    with subprocess.Popen(
        list(map(str, command)), env=variables, start_new_session=True, **options
    ) as process:
        _, err = process.communicate(timeout=120)  # until the last worker has closed it
    assert process.returncode == 130
    assert err.split() == STOPPED.split()
