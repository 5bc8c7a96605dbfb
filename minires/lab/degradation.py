"""The experiment: plain and residual nets of several depths, alike in everything else.

They have the same recipe, data order and initial weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minires.data import Dataset
from minires.errors import InputError
from minires.lab.presets import recipe
from minires.nets import registry
from minires.nets.audit import macs
from minires.nets.network import Facts
from minires.runs.config import Config
from minires.runs.run_folder import RunFolder
from minires.train.loop import claim, fitted_facts
from minires.train.progress import Report, Shown, bar, follower
from minires.train.together import FORECAST_FROM, forecast, train_together

DEPTHS = (20, 56)


def nets(depths: Sequence[int | str] = DEPTHS, shortcut: str = "A") -> list[str]:
    """Names of the plain and residual nets of these depths.

    Raises
    ------
    InputError
        If a depth is no number, or there is no such shortcut.
    """
    if shortcut not in ("A", "B", "C"):
        raise InputError(f"the shortcut must be A, B or C, got {shortcut!r}")
    asked = [str(depth).strip() for depth in depths]
    numbers = [depth for depth in asked if depth]
    if not all(map(str.isdecimal, numbers)):
        raise InputError(f"depths must be numbers such as 20,56, got {','.join(asked)}")
    option = "" if shortcut == "A" else shortcut
    return [f"plain{depth}" for depth in numbers] + [f"resnet{depth}{option}" for depth in numbers]


def run_folder(out: Path, config: Config) -> Path:
    """Folder of one run of an experiment."""
    return out / f"{config.net}-seed{config.seed}"


def run(
    nets: Sequence[str],
    seeds: int,
    base: Config,
    out: Path,
    data: Dataset,
    quiet: bool = False,
    say: Callable[[str], None] = lambda _: None,
    report: Report = lambda _: None,
) -> list[Path]:
    """Train every net with every seed; what is finished already is left as it is.

    Where the backend can, two runs train at a time with half of the threads each, the longest
    first: each step has hundreds of barriers, and fewer threads wait less at each. Every run ends
    with the bits that it has alone; its seconds include those of the run beside it.

    Parameters
    ----------
    nets : list of str
    seeds : int
        Seeds 0 .. seeds - 1.
    base : Config
        The recipe; its `net` and `seed` are replaced. Nets of 110 layers and more warm up, as in
        the paper.
    out : Path
        Receives a folder for each run.
    data : Dataset
    quiet : bool
        No progress bar.
    say : callable
        Receives a sentence that says beforehand how long all will take.
    report : callable
        Called after each iteration.

    Returns
    -------
    folders : list of Path

    Raises
    ------
    InputError
        If there is no net or no seed, or as `train` does; before any training, if a folder holds
        another run.
    """
    facts = list(dict.fromkeys(fitted_facts(net, data) for net in nets))
    if not facts or seeds < 1:
        raise InputError(
            f"expected at least one net and one seed, got {len(facts)} nets and {seeds} seeds"
        )
    jobs = [
        _claimed(recipe(replace(base, net=f.name, seed=seed), f), f, out, data)
        for seed in range(seeds)
        for f in facts
    ]
    left = [job.left for job in jobs]
    if any(n >= FORECAST_FROM for n in left):
        say(forecast([job.config for job in jobs], left, data))
    _train([job for job in jobs if job.left > 0], data, quiet, report)
    return [job.folder for job in jobs]


@dataclass(frozen=True)
class Job:
    """One run of the experiment: its recipe and folder, and what is left of it."""

    config: Config
    folder: Path
    family: str
    left: int = 0
    cost: int = 0

    @property
    def order(self) -> tuple[float, bool]:
        """The longest first; of two that are as long the residual net: shortcuts take time, too."""
        return -self.left * self.cost, self.family == "plain"


def _claimed(config: Config, facts: Facts, out: Path, data: Dataset) -> Job:
    """Claim the folder of a run; a step costs the multiply-adds of its network."""
    folder = RunFolder(run_folder(out, config))
    with folder.locked():
        claim(folder, config, facts, data)
    left = config.iterations - folder.position()
    return Job(config, folder.path, facts.family, left, macs(registry.make(facts)))


def _train(jobs: Sequence[Job], data: Dataset, quiet: bool, report: Report) -> None:
    """Train what is left, with one bar for all."""
    jobs = sorted(jobs, key=lambda job: job.order)
    with bar(sum(job.cost * job.config.iterations for job in jobs), quiet) as progress:
        shown: Shown = {}
        follow = {
            job.folder: follower(
                progress,
                f"{job.config.net} seed {job.config.seed}",
                job.cost,
                report,
                shown,
            )
            for job in jobs
        }
        todo = [(job.config, job.folder) for job in jobs]
        train_together(todo, data, lambda folder, p: follow[folder](p))
