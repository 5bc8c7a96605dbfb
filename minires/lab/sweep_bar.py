"""The bar of a sweep: over all of its runs, whoever trains them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minires.lab.status import status
from minires.train.progress import Progress, Report, follower, skip
from minires.train.sweep import Job

LOOK_SECONDS = 10.0  # between two looks at the runs of others


class SweepBar:
    """Moves a bar by the steps of this worker, and by those of others.

    What was done before counts as work, and not as speed. What others do meanwhile counts as both,
    so the time left is that of all workers together.

    Parameters
    ----------
    progress : tqdm
        With the cost of all runs as its total, see `total`.
    jobs : list of Job
    clock : callable
        Seconds of a monotonic clock.
    """

    def __init__(
        self, progress: Any, jobs: Sequence[Job], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._progress = progress
        self._jobs = jobs
        self._clock = clock
        self._at = {job.folder: 0 for job in jobs}  # iterations that the bar shows
        self._reports: dict[Path, Report] = {}
        self._looked = clock()
        for job, iteration in self._found():
            skip(progress, job.cost * iteration)
            self._at[job.folder] = iteration

    def _found(self) -> list[tuple[Job, int]]:
        """The iterations of every run that are done, all of them if it has ended."""
        return [
            (s.job, s.job.config.iterations if s.state == "finished" else s.iteration)
            for s in status(self._jobs)
        ]

    def follow(self, job: Job, p: Progress) -> None:
        """Move the bar after a step of this worker."""
        at = self._at[job.folder]
        if p.iteration != at + 1 or job.folder not in self._reports:
            skip(self._progress, -job.cost * at)  # the new report counts from the first step
            self._reports[job.folder] = follower(self._progress, job.title, job.cost)
        self._reports[job.folder](p)
        self._at[job.folder] = p.iterations if p.ended else p.iteration
        if self._clock() - self._looked >= LOOK_SECONDS:
            self.look(job)

    def look(self, mine: Job | None = None) -> None:
        """Move the bar by what others have done; `mine` is the run that this worker trains."""
        self._looked = self._clock()
        for job, iteration in self._found():
            more = iteration - self._at[job.folder]
            if job is not mine and more > 0:
                self._progress.update(job.cost * more)
                self._at[job.folder] = iteration


def total(jobs: Sequence[Job]) -> int:
    """The cost of all runs, in multiply-adds per image."""
    return sum(job.cost * job.config.iterations for job in jobs)
