"""Train the race and the ablations: first the rates, then the seeds, then the ablations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minires.data import Dataset
from minires.errors import InputError, quoted
from minires.lab.race import arms, results
from minires.lab.race.arms import ABLATIONS, ARMS, Entry, Plan
from minires.nets import registry
from minires.nets.audit import macs
from minires.runs.record import read_record
from minires.runs.run import read_run, run_folders
from minires.runs.run_folder import RunFolder
from minires.train.loop import acquire, fitted_facts, train
from minires.train.progress import Progress, bar, follower, skip
from minires.train.stopping import DivergenceError

FAMILY = registry.facts(ARMS["relu"].net).family
PASSES = 3  # multiply-adds of a training step, in forward passes


def run(
    plan: Plan,
    out: Path,
    data: Dataset,
    quiet: bool = False,
    say: Callable[[str], None] = lambda _: None,
    begin: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Train every run of the plan. Finished runs are left as they are.

    Parameters
    ----------
    plan : Plan
    out : Path
        Receives a run folder for each run.
    data : Dataset
    quiet : bool
        No progress bars.
    say : callable
        Called with a sentence before each part, and for each run that diverges.
    begin : callable
        Called before any training, once every folder is known to belong to this race.

    Returns
    -------
    folders : list of Path
        The runs of the plan, those that diverged included.

    Raises
    ------
    InputError
        If `out` holds something else, before any training.
    """
    check_folder(out)
    entries = arms.search(plan, data)
    last = arms.ablations(plan, data)
    for entry in [*entries, *last]:
        _acquire(entry, out, data)
    begin()
    _train("rates", entries, out, data, quiet, say)
    seeds = []
    for arm in plan.racing:
        tried = [read_run(out / entry.name) for entry in entries if entry.config.net == _net(arm)]
        best = results.best_rate(tried)
        seeds += [arms.racer(plan, data, arm, best, seed) for seed in range(1, plan.seeds)]
    for entry in seeds:
        _acquire(entry, out, data)
    _train("seeds at the best rates", seeds, out, data, quiet, say)
    _train("ablations", last, out, data, quiet, say)
    return [out / entry.name for entry in [*entries, *seeds, *last]]


def _net(arm: str) -> str:
    """The network of an arm."""
    return ARMS[arm].net


def check_folder(out: Path) -> None:
    """Refuse a folder that holds runs of something else.

    Raises
    ------
    InputError
        If it does.
    """
    for folder in run_folders([out]) if out.exists() else []:
        known = any(folder.name.startswith(f"{arm}-") for arm in {**ARMS, **ABLATIONS})
        family = read_record(folder).facts.family
        if not known or family != FAMILY or folder.resolve() == out.resolve():
            raise InputError(
                f"{quoted(out)} holds runs of something else, such as {folder.name} ({family}); "
                "choose another --out for the race"
            )


def _acquire(entry: Entry, out: Path, data: Dataset) -> None:
    """Claim the folder of a run, or make sure that it holds this run."""
    folder = RunFolder(out / entry.name)
    facts = fitted_facts(entry.config.net, data)
    with folder.locked():
        acquire(folder, replace(entry.config, net=facts.name), facts, data)


def cost(entry: Entry) -> int:
    """Multiply-adds of an iteration, with its share of the evaluations."""
    config = entry.config
    evaluated = (2 * config.eval_images + config.bn_images) / config.eval_every
    net = registry.by_name(config.net)
    return round(macs(net) * (PASSES * config.batch_size + evaluated))


def _train(
    part: str,
    entries: Sequence[Entry],
    out: Path,
    data: Dataset,
    quiet: bool,
    say: Callable[[str], None],
) -> None:
    """Train what is left of these runs, one after the other, with one bar for all."""
    left = [entry for entry in entries if RunFolder(out / entry.name).left() > 0]
    if not left:
        return
    say(f"Training {part}: {len(left)} of {len(entries)} runs are left.")
    costs = {entry.name: cost(entry) for entry in left}
    with bar(sum(costs[e.name] * e.config.iterations for e in left), quiet) as progress:
        for entry in left:
            diverged = _train_one(entry, out, data, progress, costs[entry.name])
            if diverged is not None:
                say(f"{entry.title}: diverged after {diverged} iterations.")


def _train_one(
    entry: Entry,
    out: Path,
    data: Dataset,
    progress: Any,
    cost: float,
) -> int | None:
    """Train one run; return the iteration at which it diverged, None if it did not.

    A rate that is too high for the network is a result, not a mistake.
    """
    follow = follower(progress, entry.title, cost)
    reached = 0

    def report(p: Progress) -> None:
        nonlocal reached
        reached = p.iteration
        follow(p)

    try:
        train(entry.config, out / entry.name, data, report)
    except DivergenceError:
        skip(progress, cost * (entry.config.iterations - reached))
        return reached
    return None
