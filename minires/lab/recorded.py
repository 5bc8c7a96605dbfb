"""Recorded runs: find them, group them by network, and read their final values.

Nothing here builds a network, so any recorded run can be read anywhere.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from minires.errors import InputError, quoted
from minires.runs.config import OPTIONS
from minires.runs.metric import Metric
from minires.runs.options import settings_in_words
from minires.runs.run import Run, no_run, read_run, run_folders


def measured_runs(paths: Sequence[Path]) -> list[Run]:
    """Runs in these folders, or one level below, that have at least one training line."""
    runs = [run for run in map(read_run, run_folders(paths)) if run.train]
    return sorted(runs, key=lambda r: (r.family, r.depth, r.net, r.config["seed"]))


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """Like `measured_runs`, but raise an error if there is no run.

    Raises
    ------
    InputError
        If there is none.
    """
    runs = measured_runs(paths)
    if not runs:
        empty = run_folders(paths)
        if empty:
            raise InputError(
                f"nothing was measured yet in {empty[0]}: "
                "its metrics.jsonl is missing or has no lines; train it first"
            )
        raise no_run(paths)
    return runs


def all_done(paths: Sequence[Path]) -> bool:
    """Whether every run in these folders is finished."""
    return all(read_run(folder).done for folder in run_folders(paths))


def metric_of(runs: Sequence[Run]) -> Metric:
    """The metric that all of these runs measure.

    Raises
    ------
    InputError
        If they measure different ones.
    """
    first = runs[0]
    for run in runs:
        if run.metric != first.metric:
            raise InputError(
                f"expected runs with the same metric, got {first.metric.name} "
                f"({first.folder.name}) and {run.metric.name} ({run.folder.name}); "
                f"give the folders of one metric only, such as {quoted(first.folder)}"
            )
    return first.metric


def settings(run: Run) -> dict[str, str]:
    """Settings of a run in words, by name; the same for runs that differ only in their seeds."""
    images = {"sha256": f"images {run.data['sha256'][:12]}"}
    return {"data": run.data["name"]} | settings_in_words(OPTIONS, run.config) | images


def by_net(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs that differ only in their seeds, by the name of the network.

    If a network was trained with several settings, its name is followed by the fewest that tell
    the groups apart: "plain20, 280 iterations".
    """
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.net, *settings(run).values()].append(run)
    alternatives: dict[str, list[dict[str, str]]] = defaultdict(list)
    for group in groups.values():
        alternatives[group[0].net].append(settings(group[0]))
    named = {}
    for group in groups.values():
        net, own = group[0].net, settings(group[0])
        names = distinguishing(alternatives[net])
        named[", ".join([net, *(own[name] for name in names)])] = group
    return named


def distinguishing(alternatives: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Names of the fewest settings that differ between any two of these alternatives."""
    names = dict.fromkeys(name for settings in alternatives for name in settings)
    differing = [name for name in names if len({one.get(name) for one in alternatives}) > 1]
    for count in range(len(differing)):
        for chosen in itertools.combinations(differing, count):
            values = {tuple(one.get(name) for name in chosen) for one in alternatives}
            if len(values) == len(alternatives):
                return chosen
    return tuple(differing)


def final(runs: Sequence[Run], which: str) -> np.ndarray:
    """The metric at the last evaluation, in its unit, of each run that has one.

    Parameters
    ----------
    runs : list of Run
    which : {"train", "test"}
    """
    return np.array(
        [
            run.metric.scale * run.evals[-1][f"{which}_{run.metric.name}"]
            for run in runs
            if run.evals
        ]
    )


def noise(*finals: tuple[Sequence[Run], str], times: float = 2) -> float:
    """Sampling error, times `times`, of a sum or difference of mean final fractions, in their unit.

    The sampling error is binomial in the number of images. Each seed has its own training images.
    The test images are the same for all seeds and count once.

    Parameters
    ----------
    *finals : (runs, which)
        As for `final`.
    times : float
        Multiple of the sampling error.

    Raises
    ------
    InputError
        If the metric is not a fraction of images, so that its sampling error is unknown.
    """
    metric = metric_of([run for runs, _ in finals for run in runs])
    if not metric.fraction:
        raise InputError(
            f"the sampling error of {metric.name} is unknown: it is not a fraction of images"
        )
    variance = 0.0
    for runs, which in finals:
        p = float(final(runs, which).mean()) / metric.scale
        images = [run.config["eval_images"] for run in runs if run.evals]
        variance += p * (1 - p) / (max(images) if which == "test" else sum(images))
    return metric.scale * times * variance**0.5
