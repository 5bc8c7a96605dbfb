"""Where the runs of a sweep stand, who trains them, and how long they will take."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.nets import registry
from minires.nets.audit import macs
from minires.nets.network import Facts
from minires.runs import checkpoint
from minires.runs.config import Config
from minires.runs.lease import BEATS, Seen, seen, silence
from minires.runs.record import NAME, read_record
from minires.runs.run import read_run
from minires.text import columns, shown
from minires.train.sweep import Job, is_finished

UNKNOWN = "unknown"
MINUTE = 60.0
LATE = 4 / 3  # of the time between two signs of life, after which the last one is mentioned
RUN = re.compile(r"(.+)-seed([0-9]{1,9})")  # as `minires.train.sweep.run_folder` names them


@dataclass(frozen=True)
class Status:
    """One run of a sweep.

    Attributes
    ----------
    job : Job
    state : {"finished", "running", "silent", "stopped", "waiting", "damaged"}
        "running" if a worker holds it, "silent" if that worker has not moved its lease for so long
        that another one may take over; "stopped" if it has begun and nobody holds it.
    worker : str
        Who holds it, "" for nobody. If it is late, with the time since its last sign of life.
    iteration : int
        Iterations that are recorded.
    seconds : float
        That these took.
    why : str
        What is damaged, and what to do.
    """

    job: Job
    state: str
    worker: str
    iteration: int
    seconds: float
    why: str = ""

    @property
    def left(self) -> int:
        """Iterations that are left."""
        return self.job.config.iterations - self.iteration


def jobs(out: Path, base: Config) -> list[Job]:
    """The runs of the sweep in a folder, from the folders of the runs; nothing is written.

    Parameters
    ----------
    out : Path
    base : Config
        The recipe of the sweep, see `minires.runs.sweep_record.read`.
    """
    found = [
        (folder, match[1], int(match[2]))
        for folder in sorted(out.iterdir())
        if folder.is_dir() and (match := RUN.fullmatch(folder.name))
    ]
    shape = next((facts for folder, *_ in found if (facts := _recorded(folder))), None)
    return sorted(
        (_job(folder, replace(base, net=net, seed=seed), shape) for folder, net, seed in found),
        key=lambda job: (job.config.seed, job.cost, job.config.net),
    )


def _recorded(folder: Path) -> Facts | None:
    with contextlib.suppress(InputError):
        return read_record(folder).facts
    return None


def _job(folder: Path, config: Config, shape: Facts | None) -> Job:
    """A run with the cost of a step on images of the `shape` that another run has recorded."""
    facts = registry.facts(config.net)
    if shape:
        facts = registry.fit(facts, shape.input_shape, shape.classes)
    return Job(config, folder, facts.family, config.iterations, macs(registry.make(facts)))


def status(jobs: Sequence[Job]) -> list[Status]:
    """Read where every run stands; nothing is written."""
    return [_status(job) for job in jobs]


def _status(job: Job) -> Status:
    lease = seen(job.folder)
    worker, held = _worker(job.folder, lease)
    try:
        run = read_run(job.folder, note=False)
    except InputError as e:  # not begun, or damaged
        damaged = lease.free and (job.folder / NAME).exists()
        state = "damaged" if damaged else held
        return Status(job, state, worker, 0, 0.0, str(e) if damaged else "")
    last: dict[str, Any] = run.train[-1] if run.train else {"iteration": 0, "seconds": 0.0}
    state = held
    if is_finished(job.folder):
        state, worker = "finished", ""
    elif lease.free:
        state = "stopped" if run.train else "waiting"
    why = _damage(job.folder) if state == "finished" else ""
    state = "damaged" if why else state
    return Status(job, state, worker, last["iteration"], last["seconds"], why)


def _damage(folder: Path) -> str:
    """Say how the checkpoint of a finished run is damaged, "" if not; its header is read."""
    try:
        checkpoint.position(folder)
    except InputError:
        return (
            f"{shown(folder / checkpoint.NAME)} is damaged; delete {shown(folder)} to train this "
            "run again"
        )
    return ""


def _worker(folder: Path, lease: Seen) -> tuple[str, str]:
    """The holder of a run, and the state that this gives the run."""
    if lease.free:
        return "", "waiting"
    seconds = silence(folder, lease, time.time())
    holder = lease.holder
    if seconds > LATE * lease.seconds / BEATS:
        holder += f", silent for {age(seconds)}"
    return holder, "running" if seconds <= lease.seconds else "silent"


def age(seconds: float) -> str:
    """A time that has passed, rounded down: "45 s", "5 min", "3 h"."""
    for unit, size in (("h", 60 * MINUTE), ("min", MINUTE)):
        if seconds >= 2 * size:
            return f"{int(seconds / size)} {unit}"
    return f"{int(seconds)} s"


def duration(seconds: float) -> str:
    """A time in words: "5 min", "< 1 min"."""
    if math.isnan(seconds):
        return UNKNOWN
    if 0 < seconds < MINUTE:
        return "< 1 min"
    minutes = round(seconds / MINUTE)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def seconds_left(found: Sequence[Status]) -> float:
    """Time until the workers of now have finished all runs; NaN if nobody works or has measured.

    A run takes as long as its multiply-adds do in the runs that have begun.
    """
    work = sum(s.iteration * s.job.cost for s in found)
    seconds = sum(s.seconds for s in found)
    left = sum(s.left * s.job.cost for s in found)
    if not left:
        return 0.0
    workers = sum(s.state == "running" for s in found)
    return left * seconds / work / workers if work and workers else math.nan


def text(found: Sequence[Status]) -> str:
    """The table, and a sentence with the time left."""
    lines = [["run", "state", "worker", "iteration", "of"]]
    lines += [
        [s.job.title, s.state, s.worker, str(s.iteration), str(s.job.config.iterations)]
        for s in found
    ]
    finished = sum(s.state == "finished" for s in found)
    workers = sum(s.state == "running" for s in found)
    left = duration(seconds_left(found))
    damage = "".join(f"{s.job.title}: {s.why}\n" for s in found if s.why)
    return (
        f"{columns(lines, left=3)}\n\n{damage}{finished} of {len(found)} runs are finished, "
        f"{workers} {'is' if workers == 1 else 'are'} running. Time left: {left}."
    )
