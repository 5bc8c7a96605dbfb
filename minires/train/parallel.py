"""Train one network in several processes.

A batch is cut into S parts, and part k belongs to rank k mod R, see `minires.train.shards`. S is in
the recipe, R is not: on one type of processor, every number of ranks gives the same bits. A run
that has lost a rank is resumed by the same command, with any number of ranks.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from minires import data as images
from minires import plugins
from minires.data import Dataset, image_folder
from minires.data.sources import SOURCES
from minires.errors import InputError
from minires.runs.config import Config
from minires.train.loop import train
from minires.train.ranks import OtherRankError, Ranks
from minires.train.shards import check_number
from minires.train.stopping import Interrupted, interrupts_held_back, stop_requests
from minires.train.transport import DismissedError, LostRankError, Pipes, SilentRankError

PATIENCE_SECONDS = 10.0  # for a rank to end after its work
PARENT_SECONDS = 1.0  # for rank 0 to end after its pipe


@dataclass(frozen=True)
class Job:
    """The work of a rank that this module starts: the recipe, and where the data are.

    Attributes
    ----------
    config : Config
    folder : str
        The run folder, for messages.
    data : str or None
        The folder of the data; None for data that are found, or drawn, without one.
    plugins : tuple of str
        Files of users to import first.
    """

    config: Config
    folder: str
    data: str | None
    plugins: tuple[str, ...]


def train_in_processes(
    config: Config, folder: Path, data: Dataset, ranks: int, **options: Any
) -> Path:
    """Train with this process as rank 0, and `ranks` - 1 others that it starts on this machine.

    Parameters
    ----------
    config : Config
        With at least as many `shards` as ranks.
    folder : Path
    data : Dataset
        One that `minires.data.load` finds by its name: the other ranks load it themselves.
    ranks : int
        R.
    **options
        More arguments of `minires.train.loop.train`.

    Returns
    -------
    folder : Path

    Raises
    ------
    InputError
        As `train` does; if there are fewer shards than ranks; or if a rank has ended.
    """
    if ranks < 1:
        raise InputError(f"the number of ranks must be at least 1, got {ranks}")
    check_number(config.shards, ranks, config.batch_size)
    job = Job(config, str(folder), place(data), tuple(map(str, plugins.LOADED)))
    with started(ranks, job, _train) as team, team.joined():
        train(config, folder, data, ranks=team, **options)
    return folder


def place(data: Dataset) -> str | None:
    """The folder that the data were read from, for `minires.data.load`; None for data without."""
    source = SOURCES.get(images.key(data.name))
    return str(data.source) if source is not None and source.find else None


@contextlib.contextmanager
def started(size: int, job: Job, work: Callable[[Ranks, Job], object]) -> Iterator[Ranks]:
    """Start ranks 1 .. size - 1 in processes of their own; yield rank 0.

    Parameters
    ----------
    size : int
    job : Job
    work : callable
        `work(ranks, job)` is called in each process; a function at the top of a module.

    Raises
    ------
    LostRankError
        If a rank has ended or hangs; the message says how.
    """
    context = multiprocessing.get_context("spawn")  # GNU OpenMP does not survive a fork
    connections: list[Connection] = []
    processes: list[BaseProcess] = []
    try:
        with interrupts_held_back():
            for rank in range(1, size):
                mine, theirs = context.Pipe()
                arguments = (rank, size, theirs, job, work)
                process = context.Process(target=_follow, args=arguments, daemon=True)
                process.start()
                theirs.close()  # the process has its own; once that is closed, `mine` ends
                connections.append(mine)
                processes.append(process)
        yield Ranks(Pipes(0, size, connections))
    except LostRankError as e:
        lost = processes[e.rank - 1]
        if isinstance(e, SilentRankError):
            lost.kill()  # a process that is stopped does not end by itself
            raise
        lost.join(PATIENCE_SECONDS)
        e.how = how_ended(lost.exitcode)
        raise
    except KeyboardInterrupt:  # nothing is left to save: ranks that still import need not end first
        for other in processes:
            other.kill()
        raise
    finally:
        for connection in connections:
            connection.close()
        _wait_for(processes)


def how_ended(code: int | None) -> str:
    """How a process has ended without a message, in words."""
    if code is not None and code < 0:
        return f"was killed (signal {-code})"
    return f"has ended without a word (exit code {code})"


def _wait_for(processes: Sequence[BaseProcess]) -> None:
    """Wait until processes have ended; end those that do not."""
    for process in processes:
        process.join(PATIENCE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _follow(
    rank: int,
    size: int,
    connection: Connection,
    job: Job,
    work: Callable[[Ranks, Job], object],
) -> None:
    """Be a rank other than 0: compute, and leave folders, messages and Ctrl-C to rank 0."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # rank 0 gives the same ones
    ranks = Ranks(Pipes(rank, size, [connection]))
    try:
        with ranks.joined():
            for file in job.plugins:
                plugins.load(Path(file))
            work(ranks, job)
    except (OtherRankError, DismissedError, Interrupted):
        return
    except LostRankError as e:
        if rank == 1 and (isinstance(e, SilentRankError) or _is_orphan()):  # one message is enough
            print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    except Exception:
        sys.exit(2)  # rank 0 has the message


def _is_orphan() -> bool:
    """Whether rank 0 has ended. Otherwise it speaks, even if it has closed its pipe."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return False
    parent.join(PARENT_SECONDS)
    return not parent.is_alive()


def _train(ranks: Ranks, job: Job) -> None:
    with stop_requests([signal.SIGTERM]) as stop:
        train(job.config, Path(job.folder), _load(job), stop=stop, ranks=ranks)


def _load(job: Job) -> Dataset:
    """The data of a job, loaded by name."""
    key = images.key(job.config.dataset)
    if key == "folder" and job.data:
        return image_folder.dataset(Path(job.data))
    return images.load(key, job.data)
