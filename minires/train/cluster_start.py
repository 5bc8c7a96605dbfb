"""Connect to dask.distributed, or start it on this machine; no wait here lasts without an end.

`minires.train.cluster` gives its workers the runs of a sweep.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any
from urllib.parse import urlsplit

from minires.errors import InputError
from minires.text import counted
from minires.train.stopping import interrupts_held_back

ALLOWED_FAILURES = 20  # workers that may be lost under one run
ANSWER_SECONDS = 10  # for a scheduler to answer
START_SECONDS = 300.0  # for the next worker on this machine to start
CLOSE_SECONDS = 5.0  # for the parts of dask to end
POLL_SECONDS = 0.2  # between two looks at workers that start
KINDS = ("tcp", "tls", "ucx", "ws", "wss")  # of addresses

# A worker that imports or compiles on a busy machine answers late: it must not count as lost.
SETTINGS = {
    "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
    "distributed.scheduler.worker-ttl": "30 minutes",
    "distributed.comm.timeouts.connect": "300s",
    "distributed.comm.timeouts.tcp": "300s",
}

Say = Callable[[str], None]


def distributed() -> Any:
    """The package dask.distributed.

    Raises
    ------
    InputError
        If it is not installed.
    """
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


def check_answers(address: str) -> None:
    """Refuse an address where nobody listens, before dask tries it many times.

    Raises
    ------
    InputError
        If nobody does, or dask is not installed.
    """
    distributed()
    place = None if workers_asked(address) else _host_and_port(address)
    if place is None or address.startswith("ucx"):
        return
    try:
        socket.create_connection(place, timeout=ANSWER_SECONDS).close()
    except OSError as e:
        raise InputError(_no_answer(address, e)) from e


def _no_answer(address: str, error: Exception) -> str:
    return f"no scheduler of dask answers at {address} ({error}); start one with: dask scheduler"


@contextlib.contextmanager
def client(address: str, say: Say = lambda _: None) -> Iterator[Any]:
    """Connect to a scheduler, or start one with workers on this machine.

    Parameters
    ----------
    address : str
        See `workers_asked`.
    say : callable
        Receives sentences about workers that start.

    Raises
    ------
    InputError
        If dask is not installed, the address is wrong, nobody answers there, or no worker starts.
    """
    number = workers_asked(address)
    check_answers(address)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_silence())
        stack.enter_context(importlib.import_module("dask").config.set(SETTINGS))
        target: Any = address
        if number is not None:
            target = stack.enter_context(_cluster())
            wait_for_workers(target, number, say)
        timeout = ANSWER_SECONDS if number is None else START_SECONDS
        try:
            found = distributed().Client(target, timeout=timeout, set_as_default=False)
        except (OSError, ValueError) as e:
            raise InputError(_no_answer(address, e)) from e
        stack.callback(within, CLOSE_SECONDS, found.close)
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


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """A scheduler on this machine that has no workers yet; it ends with the block.

    Its threads do not receive Ctrl-C or SIGTERM, and neither do the workers, which these threads
    start. After a KeyboardInterrupt the workers are killed at once.
    """
    before: set[BaseProcess] = {*multiprocessing.active_children()}
    found = None
    patience = CLOSE_SECONDS
    try:
        with interrupts_held_back([signal.SIGINT, signal.SIGTERM]):
            found = distributed().LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                memory_limit=0,  # none: a worker that trains a large net is not to be restarted
                preload=["minires.train.cluster"],  # the slow imports, before a worker has started
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                silence_logs="CRITICAL",
            )
        yield found
    except KeyboardInterrupt:
        patience = 0.0
        raise
    finally:
        try:
            if found is not None:
                found.shutdown_on_close = False  # dask would wait once more when Python ends
                within(patience, found.close)
        finally:
            _kill_children(before)


def _kill_children(spared: set[BaseProcess]) -> None:
    """Kill the processes that this one has started, and those that dask puts in their places."""
    for _ in range(int(CLOSE_SECONDS / POLL_SECONDS)):
        children = {*multiprocessing.active_children()} - spared
        if not children:
            return
        for process in children:
            process.kill()
            process.join(POLL_SECONDS)


def within(seconds: float, work: Callable[[], object]) -> None:
    """Call a function in a thread, and wait for it no longer than some seconds."""

    def call() -> None:
        with contextlib.suppress(Exception):  # dask is ending
            work()

    thread = threading.Thread(target=call, name="dask", daemon=True)
    thread.start()
    thread.join(seconds)


def wait_for_workers(
    cluster: Any, number: int, say: Say, clock: Callable[[], float] = time.monotonic
) -> None:
    """Start workers on this machine, and say how many have started.

    If the next one takes longer than `START_SECONDS`, the sweep goes on with those that have.

    Parameters
    ----------
    cluster : LocalCluster
    number : int
        How many to start.
    say : callable
    clock : callable
        Seconds of a monotonic clock.

    Raises
    ------
    InputError
        If none has started then.
    """
    cluster.scale(number)
    pause = threading.Event()
    since = clock()
    before = -1
    while (ready := len(cluster.scheduler.workers)) < number:
        if ready != before:
            say(f"Waiting for {counted(number, 'worker')} of dask ({ready} started so far).")
            before = ready
            since = clock()
        if clock() - since >= START_SECONDS:
            break
        pause.wait(POLL_SECONDS)
    if not ready:
        raise InputError(
            f"no worker of dask has started within {START_SECONDS / 60:.0f} min; try again when "
            "this machine has less to do, or start the command without --dask"
        )
    if ready < number:
        say(f"Going on with {counted(ready, 'worker')}; others may join later.")
