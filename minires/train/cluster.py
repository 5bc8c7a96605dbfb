"""A sweep whose workers dask.distributed starts and watches (extra `cluster`).

There is a task for each run. A task trains the next free run on the shared folder under a lease, as
any other worker of the sweep does, so a run whose worker was killed goes on elsewhere from its
checkpoint. A worker
of dask runs any code that its client sends: use a cluster that you trust.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from minires import data as images
from minires import plugins
from minires.data import Dataset
from minires.errors import InputError
from minires.ops import threads_to_share, use_threads
from minires.runs import sweep_record
from minires.runs.config import Config
from minires.runs.provenance import differing_versions, versions
from minires.train.stopping import Interrupted
from minires.train.sweep import Job, Worker, is_finished

ALLOWED_FAILURES = 20  # workers that may be lost under one run
LOOK_SECONDS = 2.0  # between two looks at the runs
CONNECT_SECONDS = 10
KINDS = ("tcp", "tls", "ucx", "ws", "wss")  # of addresses
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


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError as e:
        raise InputError(
            f"--dask needs dask.distributed, which cannot be imported ({e}); install it with: "
            'pip install "minires[cluster]", or start the command without --dask'
        ) from e


def workers_asked(address: str) -> int | None:
    """The number in "local:2"; None for the address of a scheduler.

    Raises
    ------
    InputError
        If it is neither.
    """
    kind, _, number = address.partition(":")
    if kind == "local" and number.isdecimal() and int(number) > 0:
        return int(number)
    if kind not in KINDS or not _host_and_port(address):
        raise InputError(
            "--dask expects local:2 or an address with a port such as tcp://HOST:8786, got "
            f"{address!r}"
        )
    return None


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Where a scheduler listens; None if the address does not say it."""
    with contextlib.suppress(ValueError):  # the port is no number, or too large
        parts = urlsplit(address)
        if parts.hostname and parts.port:
            return parts.hostname, parts.port
    return None


def _check_answers(address: str) -> None:
    """Refuse an address where nobody listens, before dask tries it many times.

    Raises
    ------
    InputError
        If nobody does.
    """
    place = _host_and_port(address)
    if place is None or address.startswith("ucx"):
        return
    try:
        socket.create_connection(place, timeout=CONNECT_SECONDS).close()
    except OSError as e:
        raise InputError(_no_answer(address, e)) from e


def _no_answer(address: str, error: Exception) -> str:
    return f"no scheduler of dask answers at {address} ({error}); start one with: dask scheduler"


@contextlib.contextmanager
def client(address: str) -> Iterator[Any]:
    """Connect to a scheduler, or start one with workers on this machine.

    Raises
    ------
    InputError
        If dask is not installed, the address is wrong, or nobody answers there.
    """
    number = workers_asked(address)
    distributed = _distributed()
    settings = {"distributed.scheduler.allowed-failures": ALLOWED_FAILURES}
    with contextlib.ExitStack() as stack:
        stack.enter_context(_silence())
        stack.enter_context(importlib.import_module("dask").config.set(settings))
        target: Any = address
        if number is None:
            _check_answers(address)
        if number is not None:
            target = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=number,
                    threads_per_worker=1,
                    dashboard_address=None,
                    silence_logs="CRITICAL",
                )
            )
        try:
            found = stack.enter_context(
                distributed.Client(target, timeout=CONNECT_SECONDS, set_as_default=False)
            )
        except (OSError, ValueError) as e:
            raise InputError(_no_answer(address, e)) from e
        found.run_on_scheduler(_allow_failures)
        yield found


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep dask's own log off the terminal: its errors are raised here in words."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _allow_failures(dask_scheduler: Any) -> None:
    dask_scheduler.allowed_failures = ALLOWED_FAILURES


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
        After a request to stop, once all runs are saved.
    """
    left = task.jobs
    failed: dict[str, str] = {}
    while left:  # a second time if a worker has lost its lease, and so its run
        task = replace(task, jobs=left)
        waiting = [found.submit(train_one, task, pure=False) for _ in left]
        while waiting:
            if stop.is_set():
                found.run(_ask_to_stop, task.token, on_error="ignore")
            _wait(found, waiting)
            look()
            for future in [future for future in waiting if _is_done(future, found)]:
                failed |= future.result()
                waiting.remove(future)
        if stop.is_set():
            raise Interrupted("stopped and saved; give the command again to resume")
        left = tuple(j for j in left if str(j.folder) not in failed and not is_finished(j.folder))
    for message in failed.values():
        raise InputError(message)


def _wait(found: Any, futures: list[Any]) -> None:
    """Wait until one of some tasks is done, or for `LOOK_SECONDS`."""
    distributed = _distributed()
    lost = distributed.client.FuturesCancelledError  # `_is_done` notices it
    ignored = contextlib.suppress(TimeoutError, distributed.TimeoutError, lost)
    with ignored, found.as_current():
        distributed.wait(futures, timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")


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
    worker = _distributed().get_worker()
    for file in task.plugins:
        plugins.load(Path(file))
    data = _load(images.key(task.base.dataset), task.data)
    sweep_record.claim(task.out, task.base, data.sha256)  # it may have joined late
    backend = task.base.backend
    threads = threads_to_share(backend)
    if threads and "NUMBA_NUM_THREADS" not in os.environ:
        use_threads(backend, max(1, threads // task.sharing.get(worker.ip, 1)))
    found = Worker(task.jobs, data, _stop_event(worker, task.token), task.seconds)
    with contextlib.suppress(Interrupted):  # the client raises it
        found.work_once()
    return {str(folder): str(error) for folder, error in found.failed.items()}


@lru_cache(maxsize=1)  # a worker trains one run after the other on the same data
def _load(name: str, folder: str | None) -> Dataset:
    return images.load(name, folder)
