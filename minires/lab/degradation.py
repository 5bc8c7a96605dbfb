"""The degradation experiment: plain and residual nets of several depths.

All nets have the same recipe and see the same images in the same order. A plain net and its
residual twin begin with the same weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from minires.data import Dataset
from minires.errors import InputError
from minires.lab.presets import check_size, with_warmup
from minires.nets import registry
from minires.nets.network import Facts
from minires.runs.config import Config
from minires.runs.run_folder import RunFolder
from minires.train.loop import acquire, fitted_facts
from minires.train.progress import Report, Shown, bar, follower
from minires.train.sweep import Job, plan
from minires.train.together import train_together

DEPTHS = (20, 56)
LONG = 50  # iterations left of a run; with fewer, it ends before anybody stops it


def nets(depths: Sequence[int | str] = DEPTHS, shortcut: str = "A") -> list[str]:
    """Names of the plain and residual nets of these depths.

    Raises
    ------
    InputError
        If a depth is not a number, or the shortcut is unknown.
    """
    if shortcut not in ("A", "B", "C"):
        raise InputError(f"the shortcut must be A, B or C, got {shortcut!r}")
    asked = [str(depth).strip() for depth in depths]
    numbers = [depth for depth in asked if depth]
    if not all(map(str.isdecimal, numbers)):
        raise InputError(f"depths must be numbers such as 20,56, got {','.join(asked)}")
    option = "" if shortcut == "A" else shortcut
    return [f"plain{depth}" for depth in numbers] + [f"resnet{depth}{option}" for depth in numbers]


def run(
    nets: Sequence[str],
    seeds: int,
    base: Config,
    out: Path,
    data: Dataset,
    quiet: bool = False,
    say: Callable[[str], None] = lambda _: None,
    report: Report = lambda _: None,
    begin: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Train every net with every seed. Finished runs are left as they are.

    If the backend allows it, two runs train at a time with half of the threads each, the longest
    first: each step has hundreds of barriers, and fewer threads wait less at each. Every run ends
    with the same bits as if it trained alone. Its recorded seconds include the time in which it
    shares the processor.

    Parameters
    ----------
    nets : list of str
    seeds : int
        Seeds 0 .. seeds - 1.
    base : Config
        The recipe. Its `net` and `seed` are replaced. Nets of 110 layers and more warm up, as in
        the paper.
    out : Path
        Receives a folder for each run.
    data : Dataset
    quiet : bool
        No progress bar.
    say : callable
        Called with a sentence on how to stop and resume, if a run has many iterations left. A
        sentence that cannot be printed does not end the experiment.
    report : callable
        Called after each iteration.
    begin : callable
        Called before any training, once every folder is known to belong to this experiment.

    Returns
    -------
    folders : list of Path

    Raises
    ------
    InputError
        If there is no net or no seed, or `train` raises it. If a folder holds another run, it is
        raised before any training.
    """
    for net in nets:
        check_size(registry.facts(net), data)
    facts = {f.name: f for f in (fitted_facts(net, data) for net in nets)}
    planned = plan(list(facts.values()), seeds, base, out, with_warmup)
    jobs = [_claimed(job, facts, data) for job in planned]
    begin()
    if any(job.left >= LONG for job in jobs):
        with contextlib.suppress(OSError, ValueError):  # closed, full, or lacks a character
            say("Stop it with Ctrl-C at any time; run it again to resume.")
    _train([job for job in jobs if job.left > 0], data, quiet, report)
    return [job.folder for job in jobs]


def _claimed(job: Job, facts: Mapping[str, Facts], data: Dataset) -> Job:
    """Claim the folder of a run, and work out how much of the run is left."""
    folder = RunFolder(job.folder)
    with folder.locked():
        acquire(folder, job.config, facts[job.config.net], data)
    return replace(job, left=folder.left())


def _train(jobs: Sequence[Job], data: Dataset, quiet: bool, report: Report) -> None:
    """Train what is left, with one bar for all; nothing is shown if nothing is left."""
    if not jobs:
        return
    jobs = sorted(jobs, key=lambda job: job.order)
    work = sum(job.cost * job.config.iterations for job in jobs)
    with bar(work, quiet, at_once=True) as progress:
        shown: Shown = {}
        follow = {
            job.folder: follower(
                progress,
                job.title,
                job.cost,
                report,
                shown,
            )
            for job in jobs
        }
        todo = [(job.config, job.folder) for job in jobs]
        train_together(todo, data, lambda folder, p: follow[folder](p))
