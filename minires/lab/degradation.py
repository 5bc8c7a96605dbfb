"""The experiment: the same recipe, data order and initial weights for plain and residual nets of several depths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from minires.data import Dataset
from minires.errors import InputError
from minires.lab.presets import recipe
from minires.nets.audit import macs
from minires.nets.registry import by_name
from minires.runs.config import Config
from minires.runs.files import make_folder
from minires.runs.run_folder import claim, locked, position
from minires.train.progress import Progress, Report, Shown, bar, follower
from minires.train.together import FORECAST_FROM, _train_together, forecast

Follow = Callable[[Path, Progress], None]
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


def in_words(config: Config) -> str:
    """What is done in every run of an experiment."""
    warm = f" after a warm-up at {config.warmup_lr:g}" if config.warmup_lr else ""
    crops = "with" if config.augment else "without"
    size = f"{config.iterations} iterations, batch {config.batch_size}, lr {config.lr:g}{warm}"
    return f"{size}, {crops} crops and flips, {config.backend} backend"


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

    Where the backend can, two runs train at a time with half of the threads each, the longest first: in a step threads
    wait for each other hundreds of times, and fewer of them wait less. Every run ends with the bits that it has alone;
    its seconds count while the other one trains, too.

    Parameters
    ----------
    nets : list of str
    seeds : int
        Seeds 0 .. seeds - 1.
    base : Config
        The recipe; its `net` and `seed` are replaced. Nets of 110 layers and more warm up, as in the paper.
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
        If there is no net or no seed, or as `train` does; if a folder holds another run, before any training.
    """
    titles = list(dict.fromkeys(by_name(net).title for net in nets))
    if not titles or seeds < 1:
        raise InputError(
            f"expected at least one net and one seed, got {len(titles)} nets and {seeds} seeds"
        )
    configs = [recipe(replace(base, net=net, seed=seed)) for seed in range(seeds) for net in titles]
    costs = {
        net: macs(by_name(net)) for net in titles
    }  # a step of plain-56 takes three times one of plain-20
    folders = [run_folder(out, config) for config in configs]
    for config, folder in zip(configs, folders, strict=True):
        make_folder(folder)
        with locked(folder):
            claim(config, folder, data)
    left = [
        config.iterations - position(folder)
        for config, folder in zip(configs, folders, strict=True)
    ]
    jobs = [
        (config, folder, n)
        for config, folder, n in zip(configs, folders, left, strict=True)
        if n > 0
    ]
    jobs.sort(
        key=lambda job: (-job[2] * costs[job[0].net], job[0].net.startswith("plain"))
    )  # shortcuts take time, too
    todo = [(config, folder) for config, folder, _ in jobs]
    if any(n >= FORECAST_FROM for n in left):
        say(forecast(configs, left, data))
    with bar(sum(costs[config.net] * config.iterations for config, _ in todo), quiet) as progress:
        shown: Shown = {}
        follow = {
            folder: follower(
                progress, f"{config.net} seed {config.seed}", costs[config.net], report, shown
            )
            for config, folder in todo
        }
        _train_together(todo, data, lambda folder, p: follow[folder](p))
    return folders
