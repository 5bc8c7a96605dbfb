"""Run folders in, records out: what figures, claims and reports are made from. Nothing here knows a network."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minires.errors import InputError
from minires.runs.run import Run, no_run, read_run, run_folders


def begun(paths: Sequence[Path]) -> list[Run]:
    """Runs in these folders, or one level below them, with something to draw; maybe none."""
    runs = [run for run in map(read_run, run_folders(paths)) if run.train]
    return sorted(runs, key=lambda r: (r.family, r.depth, r.net, r.config["seed"]))


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """As `begun`, but at least one.

    Raises
    ------
    InputError
        If there is none.
    """
    runs = begun(paths)
    if not runs:
        waiting = run_folders(paths)
        if waiting:
            raise InputError(
                f"nothing was measured yet in {waiting[0]}: its metrics.jsonl is missing or has no lines"
            )
        raise no_run(paths)
    return runs


def settled(paths: Sequence[Path]) -> bool:
    """Whether every run that was begun or waits in these folders has come to its end."""
    return all(read_run(folder).done for folder in run_folders(paths))


def recipe(run: Run) -> dict[str, str]:
    """What runs that differ by their seeds alone have in common, in words, by the name of the setting."""
    words = {
        "iterations": "{} iterations",
        "batch_size": "batch {}",
        "lr": "lr {}",
        "warmup_lr": "warm-up {}" if run.config["warmup_lr"] else "no warm-up",
        "augment": "crops and flips" if run.config["augment"] else "no crops and flips",
        "bn_images": "recomputed statistics" if run.config["bn_images"] else "moving averages",
    }
    others = (name for name in run.config if name not in (*words, "net", "dataset", "seed"))
    words |= {name: f"{name.replace('_', ' ')} {{}}" for name in others}
    settings = {name: text.format(run.config[name]) for name, text in words.items()}
    return {"data": run.data["name"]} | settings | {"sha256": f"images {run.data['sha256'][:12]}"}


def by_net(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ by their seeds alone together, by the name of the network, seeds as they come.

    Where a network was trained by several recipes, its name says by which, in as few words as tell them apart:
    "plain20, 280 iterations".
    """
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.net, *recipe(run).values()].append(run)
    named = {}
    for key, group in groups.items():
        own = [other for other in groups if other[0] == key[0]]
        parts = (
            parts
            for few in range(len(key))
            for parts in itertools.combinations(range(1, len(key)), few)
        )
        told = next(
            p for p in parts if len({tuple(other[i] for i in p) for other in own}) == len(own)
        )
        named[", ".join([key[0], *(key[i] for i in told)])] = group
    return named


def final(runs: Sequence[Run], which: str) -> np.ndarray:
    """Error in percent at the last evaluation, one for each run that has one; `which` is "train" or "test"."""
    return np.array([100 * run.evals[-1][f"{which}_error"] for run in runs if run.evals])


def noise(*finals: tuple[Sequence[Run], str], times: float = 2) -> float:
    """Twice the sampling error, in points, of a sum or difference of mean final errors: binomial in the images seen.

    Every seed has training images of its own; the test images are the same for all, and count once.

    Parameters
    ----------
    *finals : (runs, which)
        As for `final`.
    times : float
        Another multiple of the sampling error than two.
    """
    variance = 0.0
    for runs, which in finals:
        p = float(final(runs, which).mean()) / 100
        images = [run.config["eval_images"] for run in runs if run.evals]
        variance += p * (1 - p) / (max(images) if which == "test" else sum(images))
    return 100 * times * variance**0.5
