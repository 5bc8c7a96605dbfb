"""Many runs, shared by any number of workers: processes, on one machine or on several.

Workers need nothing but a folder that all of them see. Each takes the lease of the next run that is
neither finished nor held by another one (`minires.runs.lease`), resumes it exactly, and goes on to
the next.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minires.data import Dataset
from minires.errors import InputError
from minires.nets import registry
from minires.nets.audit import macs
from minires.nets.network import Facts
from minires.runs.config import Config
from minires.runs.lease import BEATS, SECONDS, Lease, Leases, LostLeaseError, seen, states
from minires.runs.leased_folder import LeasedFolder
from minires.runs.run import has_ended
from minires.train.loop import train
from minires.train.progress import Progress
from minires.train.stopping import Interrupted

POLL_SECONDS = 5.0  # between two looks at runs that others hold
RETRY_SECONDS = 30.0  # after the folder could not be written
SHOWN = 3  # runs that a sentence names


@dataclass(frozen=True)
class Job:
    """One run: its recipe, its folder, and the iterations that are left.

    `cost` is that of one iteration, in multiply-adds per image.
    """

    config: Config
    folder: Path
    family: str
    left: int = 0
    cost: int = 0

    @property
    def order(self) -> tuple[float, bool]:
        """Sort key: the longest first, and a residual net before a plain one of the same cost."""
        return -self.left * self.cost, self.family == "plain"

    @property
    def title(self) -> str:
        """The net and the seed, for bars and messages."""
        return f"{self.config.net} seed {self.config.seed}"


def run_folder(out: Path, config: Config) -> Path:
    """Folder of one run of a sweep or an experiment."""
    return out / f"{config.net}-seed{config.seed}"


def plan(
    facts: Sequence[Facts],
    seeds: int,
    base: Config,
    out: Path,
    finish: Callable[[Config, Facts], Config] = lambda config, facts: config,
) -> list[Job]:
    """One job for every net and every seed, with all of its iterations left.

    Parameters
    ----------
    facts : list of Facts
        Of the nets.
    seeds : int
        Seeds 0 .. seeds - 1.
    base : Config
        The recipe. Its `net` and `seed` are replaced.
    out : Path
        Receives a folder for each run.
    finish : callable
        `finish(config, facts)` adds to the recipe what depends on the net.

    Raises
    ------
    InputError
        If there is no net or no seed.
    """
    facts = list(dict.fromkeys(facts))
    if not facts or seeds < 1:
        raise InputError(
            f"expected at least one net and one seed, got {len(facts)} nets and {seeds} seeds"
        )
    configs = [
        (finish(replace(base, net=f.name, seed=seed), f), f) for seed in range(seeds) for f in facts
    ]
    costs = {f: macs(registry.make(f)) for f in facts}
    return [
        Job(config, run_folder(out, config), f.family, config.iterations, costs[f])
        for config, f in configs
    ]


class Clock:
    """Time as a worker sees it. Tests replace it, so that they need not wait."""

    def now(self) -> float:
        """Seconds of this process's monotonic clock."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for an event, or for some seconds; return whether the event is set."""
        return event.wait(seconds)


@dataclass(frozen=True)
class Reports:
    """Where a worker reports to.

    `say(sentence)`, `follow(job, progress)` after each step, `look()` while it waits for others.
    """

    say: Callable[[str], None] = lambda _: None
    follow: Callable[[Job, Progress], None] = lambda job, progress: None
    look: Callable[[], None] = lambda: None


class Worker:
    """A process that takes one run after the other until all of them are finished.

    Parameters
    ----------
    jobs : list of Job
    data : Dataset
    stop : Event
        Asks it to save and stop.
    seconds : float
        A run whose worker is silent for this long is taken over by another one.
    clock : Clock
    reports : Reports

    Attributes
    ----------
    failed : dict of Path to InputError
        What ended runs that cannot go on, by their folders.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        data: Dataset,
        stop: threading.Event,
        seconds: float = SECONDS,
        clock: Clock | None = None,
        reports: Reports | None = None,
    ) -> None:
        self.data = data
        self.stop = stop
        self.clock = clock or Clock()
        self.reports = reports or Reports()
        self.leases = Leases(seconds, self.clock.now)
        self.failed: dict[Path, InputError] = {}
        self._left = sorted(jobs, key=lambda job: job.order)
        self._held: dict[Path, Lease] = {}  # taken, and not given back
        self._waits = False  # for others, and has said so

    def work(self) -> None:
        """Train until no run is left. A run that cannot go on does not stop the others.

        Raises
        ------
        Interrupted
            After a request to stop, once the run at hand is saved and given back.
        InputError, DivergenceError
            What ended the run that cannot go on, or one error that says it of each such run.
        """
        try:
            while self.work_once():
                pass
        except (Exception, Interrupted, KeyboardInterrupt):
            self._give_back()
            raise
        self._give_back()
        errors = list(self.failed.values())
        if len(errors) > 1:
            raise InputError(f"{len(errors)} runs cannot go on: {'; '.join(map(str, errors))}")
        if errors:
            raise errors[0]

    def work_once(self) -> bool:
        """Train the next run that is free; return whether there was one left.

        It waits while others hold all runs that are left. What ends a run is put into `failed`.

        Raises
        ------
        Interrupted
            As `work` does.
        """
        while True:
            try:
                self._left = [job for job in self._left if not self._is_over(job)]
                if self._left and self.stop.is_set():
                    raise Interrupted("stopped; give the command again to resume")
                pause = self._take_one() if self._left else 0.0
            except InputError as e:
                if not isinstance(e.__cause__, OSError):
                    raise
                self.reports.say(f"{e}. This worker tries again every {RETRY_SECONDS:g} s")
                pause = RETRY_SECONDS
            if not pause:
                return bool(self._left)
            self.reports.look()
            self.clock.wait(self.stop, pause)

    def _give_back(self) -> None:
        """Release what is still held: runs that cannot go on, or that a full disk has stopped."""
        for lease in self._held.values():
            with contextlib.suppress(InputError):  # taken over, or there is still no disk
                lease.release()
        self._held.clear()

    def _is_over(self, job: Job) -> bool:
        return job.folder in self.failed or is_finished(job.folder)

    def _take_one(self) -> float:
        """Train the first run that is free; return the seconds to wait before the next look."""
        for job in self._left:
            lease = self._held.get(job.folder) or self.leases.take(job.folder)
            if lease is None:
                continue
            self._held[job.folder] = lease
            self._waits = False
            try:
                self._train(job, lease)
            except LostLeaseError as e:
                self._held.pop(job.folder, None)
                self.reports.say(f"{e}; going on with another run")
            except InputError as e:
                if isinstance(e.__cause__, OSError):
                    raise
                self.failed[job.folder] = e
                if len(self._left) > 1:
                    self.reports.say(f"{e}. This worker goes on with the other runs")
            return 0.0
        if not self._waits:
            self._waits = True
            self.reports.say(waiting(self._left, self.leases.seconds))
        return min(POLL_SECONDS, self.leases.seconds / BEATS)

    def _train(self, job: Job, lease: Lease) -> None:
        """Train under a lease; give it back if the run is finished, or was stopped by the user.

        A run that cannot go on keeps its lease until this worker ends, so that others try it last.
        """
        stop = _Either(self.stop)
        folder = LeasedFolder(lease)
        at = [0]

        def report(progress: Progress) -> None:
            at[0] = progress.iteration
            self.reports.follow(job, progress)

        with self._beating(lease, stop, at):
            try:
                train(job.config, folder, self.data, report, stop)
            except Interrupted:
                self._held.pop(job.folder)
                (lease.publish if folder.read().done else lease.release)()
                raise
        lease.publish()
        self._held.pop(job.folder)

    @contextlib.contextmanager
    def _beating(self, lease: Lease, stop: _Either, at: Sequence[int]) -> Iterator[None]:
        """Move the lease's counter in a thread; ask the run to stop once the lease is lost."""
        ended = threading.Event()

        def beat() -> None:
            while not self.clock.wait(ended, self.leases.seconds / BEATS):
                try:
                    lease.beat(at[0])
                except LostLeaseError:
                    stop.set()
                except InputError:
                    continue  # no disk for a while; if it lasts, the lease gets stale

        thread = threading.Thread(target=beat, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def waiting(jobs: Sequence[Job], seconds: float) -> str:
    """Say that others hold these runs, and when such a run changes hands."""
    shown = ", ".join(job.title for job in jobs[:SHOWN])
    more = f" and {len(jobs) - SHOWN} more" if len(jobs) > SHOWN else ""
    return (
        f"Other workers hold {shown}{more}. A run whose worker has been silent for {seconds:g} s "
        "goes on elsewhere."
    )


class _Either(threading.Event):
    """An event that is set, too, when another one is."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self.other = other

    def is_set(self) -> bool:
        """Whether one of both is set."""
        return super().is_set() or self.other.is_set()


def is_finished(folder: Path) -> bool:
    """Whether a run is finished, and no process holds it.

    A damaged lease counts only while there are files that were written under a lease.
    """
    lease = seen(folder)
    if not lease.free and not (lease.damaged and not states(folder)):
        return False
    return has_ended(folder)
