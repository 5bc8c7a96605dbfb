"""A sweep whose workers dask.distributed starts and watches (extra `cluster`).

There is a task for each run. A task trains the next free run on the shared folder under a lease, as
any other worker of the sweep does, so a run whose worker was killed goes on elsewhere from its
checkpoint. A worker of dask runs any code that its client sends: use a cluster that you trust.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from minires import data as images
from minires import plugins
from minires.data import Dataset
from minires.errors import InputError
from minires.ops import threads_to_share, use_threads
from minires.runs import checkpoint, lease, sweep_record
from minires.runs.config import Config
from minires.runs.provenance import differing_versions, versions
from minires.text import counted
from minires.train.cluster_start import Say, distributed, within
from minires.train.stopping import Interrupted
from minires.train.sweep import Job, Worker, is_finished

LOOK_SECONDS = 2.0  # between two looks at the runs
STOP = "minires-stop"


@dataclass(frozen=True)
class Task:
    """The work of a worker of dask: one of the runs of a sweep.

    Attributes
    ----------
    jobs : tuple of Job
        Those of the sweep.
    base : Config
        The recipe of the sweep.
    out : Path
        Its folder, on a disk that all workers see.
    data : str or None
        The folder of the data.
    plugins : tuple of str
        Files of users to import first.
    seconds : float
        Of leases.
    sharing : dict of str to int
        How many runs may train at the same time, by the name of the host.
    token : str
        Names this sweep: a request to stop is for its tasks, and not for those of the next one.
    """

    jobs: tuple[Job, ...]
    base: Config
    out: Path
    data: str | None
    plugins: tuple[str, ...]
    seconds: float
    sharing: dict[str, int]
    token: str = field(default_factory=lambda: secrets.token_hex(8))


def check_workers(found: Any) -> dict[str, int]:
    """Make sure that all workers have our versions; count the runs each host may train at once.

    A worker trains as many as it has threads for tasks (`dask worker --nthreads`).

    Raises
    ------
    InputError
        If there is no worker, or one has other versions; both are named.
    """
    theirs = found.run(versions)
    if not theirs:
        raise InputError("the scheduler of dask has no workers; start some: dask worker ADDRESS")
    for address, other in theirs.items():
        if differing := differing_versions(versions(), other):
            raise InputError(
                f"the worker {address} has other versions (ours, and its own): "
                f"{'; '.join(differing)}; install the same"
            )
    workers = found.scheduler_info(n_workers=-1)["workers"].values()
    sharing: Counter[str] = Counter()
    for worker in workers:
        sharing[worker["host"]] += worker["nthreads"]
    return dict(sharing)


def sweep_on(
    found: Any,
    task: Task,
    stop: threading.Event,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Let the workers train all runs of a task. A run that cannot go on does not stop the others.

    Parameters
    ----------
    found : Client
    task : Task
    stop : Event
        Asks the workers to save and stop.
    look : callable
        Called every two seconds, to show where the runs stand.

    Raises
    ------
    InputError
        What ended the first run that cannot go on; or if the scheduler has ended.
    Interrupted
        After a request to stop, once all runs are saved; at once if no worker holds one.
    """
    left = task.jobs
    failed: dict[str, str] = {}
    while left:  # a second time if a worker has lost its lease, and so its run
        task = replace(task, jobs=left)
        waiting = [found.submit(train_one, task, pure=False) for _ in left]
        while waiting:
            look()
            if stop.is_set():
                ask = partial(found.run, _ask_to_stop, task.token, on_error="ignore")
                within(LOOK_SECONDS, ask)  # a worker may hang
                if not _held(task.jobs):
                    break  # nothing is left to save
            _wait(found, waiting)
            for future in [future for future in waiting if _is_done(future, found)]:
                failed |= future.result()
                waiting.remove(future)
        if stop.is_set():
            raise Interrupted(_after_a_stop(task.jobs))
        left = tuple(j for j in left if str(j.folder) not in failed and not is_finished(j.folder))
    for message in failed.values():
        raise InputError(message)


def _held(jobs: Sequence[Job]) -> bool:
    """Whether a worker trains one of these runs."""
    return any(not lease.seen(job.folder).free for job in jobs)


def _after_a_stop(jobs: Sequence[Job]) -> str:
    """The message after a request to stop."""
    folders = [folder for job in jobs for folder in (job.folder, *lease.states(job.folder))]
    if any(map(checkpoint.exists, folders)):
        return "stopped and saved; give the command again to resume"
    return "stopped before a step was saved; give the command again to start"


class Watch:
    """Says what happens to the workers of dask, and that a stop has begun.

    Parameters
    ----------
    found : Client
    stop : Event
    say : callable
    """

    def __init__(self, found: Any, stop: threading.Event, say: Say) -> None:
        self._found = found
        self._stop = stop
        self._say = say
        self._stopping = False
        self._known: set[str] = set()

    def look(self) -> None:
        """Compare the workers with those of the last look."""
        if self._stop.is_set() and not self._stopping:
            self._stopping = True
            self._say("Stopping: what was trained is saved first. Another Ctrl-C stops at once.")
        now = {*self._found.scheduler_info(n_workers=-1)["workers"]}
        gone = len(self._known - now)
        new = len(now - self._known)
        if gone and not self._stopping:
            self._say(
                f"{counted(gone, 'worker')} of dask lost, {new} new; a lost worker's run goes on "
                "after a while, from its last checkpoint."
            )
        self._known = now


def _wait(found: Any, futures: list[Any]) -> None:
    """Wait until one of some tasks is done, or for `LOOK_SECONDS`."""
    dask = distributed()
    lost = dask.client.FuturesCancelledError  # `_is_done` notices it
    ignored = contextlib.suppress(TimeoutError, dask.TimeoutError, lost)
    with ignored, found.as_current():
        dask.wait(futures, timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")


def _is_done(future: Any, found: Any) -> bool:
    """Whether a task is done; raises what ended it."""
    if found.status != "running" or future.status in ("cancelled", "lost"):
        raise InputError(
            "the scheduler of dask has ended. Everything recorded is whole: give the command "
            "again to resume, once a scheduler runs"
        )
    if future.status == "error":
        error = future.exception()
        if isinstance(error, InputError):
            raise error
        raise InputError(f"a worker of dask failed: {type(error).__name__}: {error}")
    return future.status == "finished"


def _stop_event(worker: Any, token: str) -> threading.Event:
    return worker.extensions.setdefault(f"{STOP}-{token}", threading.Event())


def _ask_to_stop(token: str, dask_worker: Any) -> None:
    _stop_event(dask_worker, token).set()


def train_one(task: Task) -> dict[str, str]:
    """Train the next free run in a worker of dask.

    Returns
    -------
    failed : dict of str to str
        What ended runs that cannot go on, by their folders.
    """
    worker = distributed().get_worker()
    stop = _stop_event(worker, task.token)
    if stop.is_set():
        return {}
    for file in task.plugins:
        plugins.load(Path(file))
    data = _load(images.key(task.base.dataset), task.data)
    sweep_record.claim(task.out, task.base, data.sha256)  # it may have joined late
    backend = task.base.backend
    threads = threads_to_share(backend)
    if threads and "NUMBA_NUM_THREADS" not in os.environ:
        use_threads(backend, max(1, threads // task.sharing.get(worker.ip, 1)))
    found = Worker(task.jobs, data, stop, task.seconds)
    with contextlib.suppress(Interrupted):  # the client raises it
        found.work_once()
    return {str(folder): str(error) for folder, error in found.failed.items()}


@lru_cache(maxsize=1)  # a worker trains one run after the other on the same data
def _load(name: str, folder: str | None) -> Dataset:
    return images.load(name, folder)
