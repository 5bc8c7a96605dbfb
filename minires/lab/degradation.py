"""The experiment: the same recipe, data order and initial weights for plain and residual nets of several depths."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from minires.data import Dataset
from minires.errors import InputError
from minires.lab.audit import macs
from minires.lab.config import Config
from minires.lab.train import Progress, finished, train
from minires.resnet import by_name

NETS = ("plain20", "plain56", "resnet20", "resnet56")


def run_folder(out: Path, config: Config) -> Path:
    """Folder of one run of an experiment."""
    return out / f"{config.net}-seed{config.seed}"


def run(nets: Sequence[str], seeds: int, base: Config, out: Path, data: Dataset, quiet: bool = False) -> list[Path]:
    """Train every net with every seed, one after the other; what is finished already is left as it is.

    Parameters
    ----------
    nets : list of str
    seeds : int
        Seeds 0 .. seeds - 1.
    base : Config
        The recipe; its `net` and `seed` are replaced. Nets of 110 layers and more warm up at lr 0.01, as in the paper.
    out : Path
        Receives a folder for each run.
    data : Dataset
    quiet : bool
        No progress bar.

    Returns
    -------
    folders : list of Path

    Raises
    ------
    InputError
        If there is no net or no seed, or as `train` does.
    """
    titles = list(dict.fromkeys(by_name(net).title for net in nets))
    if not titles or seeds < 1:
        raise InputError(f"expected at least one net and one seed, got {len(titles)} nets and {seeds} seeds")
    configs = [recipe(replace(base, net=net, seed=seed)) for seed in range(seeds) for net in titles]
    costs = {net: macs(by_name(net)) for net in titles}  # a step of plain-56 takes three times one of plain-20
    folders = [run_folder(out, config) for config in configs]
    todo = [(c, f) for c, f in zip(configs, folders, strict=True) if not finished(f)]
    with bar(sum(costs[c.net] * c.iterations for c, _ in todo), quiet) as progress:
        for config, folder in todo:
            follow = follower(progress, f"{config.net} seed {config.seed}", costs[config.net])
            train(config, folder, data, follow)
    return folders


def recipe(config: Config) -> Config:
    """Add the paper's warm-up where it had one: from 110 layers on, at lr 0.1 (section 4.2)."""
    deep = int("".join(filter(str.isdigit, config.net))) >= 110
    return replace(config, warmup_lr=0.01) if deep and config.warmup_lr is None and config.lr > 0.01 else config


def bar(total: float, quiet: bool = False) -> Any:
    """Progress bar with an ETA over work of different cost."""
    shape = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
    pause = 0.5 if sys.stderr.isatty() else 15  # seconds; a log file gets a line now and then
    return tqdm(total=total, bar_format=shape, disable=quiet, mininterval=pause, smoothing=0.05, dynamic_ncols=True)


def follower(progress: Any, title: str, cost: float) -> Any:
    """Return the callback that moves `progress` on by `cost` at every iteration of the run called `title`."""
    seen = 0

    def follow(p: Progress) -> None:
        nonlocal seen
        if p.iteration > seen + 1 and not progress.disable:  # resumed: done before, which must not count as speed
            progress.initial += cost * (p.iteration - 1 - seen)
            progress.n += cost * (p.iteration - 1 - seen)
        seen = p.iteration
        progress.set_description_str(f"{title} {p.iteration}/{p.iterations}", refresh=False)
        progress.set_postfix_str(f"loss {p.loss:.2f}, error {100 * p.error:.0f} %, lr {p.lr:g}", refresh=False)
        progress.update(cost)

    return follow
