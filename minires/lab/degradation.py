"""The experiment: the same recipe, data order and initial weights for plain and residual nets of several depths."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tqdm.auto import tqdm

from minires.data import Dataset, per_pixel_mean, training_batch
from minires.errors import InputError
from minires.lab.audit import macs
from minires.lab.checkpoint import locked, make_folder
from minires.lab.config import TIERS, Config, paper_milestones, paper_warmup
from minires.lab.train import Interrupted, Progress, claim, initial_net, position, stop_requests, train, train_step
from minires.ops import threads_to_share, use_threads
from minires.optim import SGD
from minires.resnet import by_name

Report = Callable[[Progress], None]
Follow = Callable[[Path, Progress], None]
Shown = dict[str, Progress]
DEPTHS = (20, 56)
AT_ONCE = 2  # runs; each has its own activations in memory
FORECAST_FROM = 50  # iterations of a net that are worth two steps of timing beforehand


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


def base_config(
    data: Dataset,
    tier: str = "quick",
    *,
    net: str = "plain20",
    iterations: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    eval_images: int | None = None,
    eval_every: int | None = None,
    moving_average: bool = False,
    warmup_lr: float | None = None,
    augment: bool | None = None,
    **rest: Any,
) -> Config:
    """Recipe of a tier, or of another size by its rules; what is None is the tier's.

    Parameters
    ----------
    data : Dataset
        Where it has fewer images than the tier evaluates on, fewer are taken.
    tier : {"quick", "lesson", "quarter", "paper"}
    net, iterations, lr, batch_size, eval_images, eval_every, augment
        As in `Config`.
    moving_average : bool
        Evaluate with batch norm's moving averages, not recomputed ones.
    warmup_lr : float, optional
        The tier's goes with the tier's `lr` only.
    **rest
        Other fields of `Config`.

    Raises
    ------
    InputError
        If there is no such tier, or a value makes no sense.
    """
    if tier not in TIERS:
        raise InputError(f"the tier must be one of {', '.join(TIERS)}, got {tier!r}")
    size = TIERS[tier]
    iterations = size.iterations if iterations is None else iterations
    if eval_images is None:
        eval_images = min(size.eval_images, len(data.test_images), len(data.train_images) // 2)
    return Config(
        net=net,
        dataset=data.name,
        iterations=iterations,
        milestones=paper_milestones(iterations),
        lr=size.lr if lr is None else lr,
        batch_size=size.batch_size if batch_size is None else batch_size,
        eval_images=eval_images,
        eval_every=max(1, iterations // size.evaluations) if eval_every is None else eval_every,
        bn_images=0 if moving_average else eval_images,
        warmup_lr=size.warmup_lr if warmup_lr is None and lr is None else warmup_lr,
        augment=size.augment if augment is None else augment,
        **rest,
    )


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
        raise InputError(f"expected at least one net and one seed, got {len(titles)} nets and {seeds} seeds")
    configs = [recipe(replace(base, net=net, seed=seed)) for seed in range(seeds) for net in titles]
    costs = {net: macs(by_name(net)) for net in titles}  # a step of plain-56 takes three times one of plain-20
    folders = [run_folder(out, config) for config in configs]
    for config, folder in zip(configs, folders, strict=True):
        make_folder(folder)
        with locked(folder):
            claim(config, folder, data)
    left = [config.iterations - position(folder) for config, folder in zip(configs, folders, strict=True)]
    jobs = [(config, folder, n) for config, folder, n in zip(configs, folders, left, strict=True) if n > 0]
    jobs.sort(key=lambda job: (-job[2] * costs[job[0].net], job[0].net.startswith("plain")))  # shortcuts take time, too
    todo = [(config, folder) for config, folder, _ in jobs]
    if any(n >= FORECAST_FROM for n in left):
        say(forecast(configs, left, data))
    with bar(sum(costs[config.net] * config.iterations for config, _ in todo), quiet) as progress:
        shown: Shown = {}
        follow = {
            folder: follower(progress, f"{config.net} seed {config.seed}", costs[config.net], report, shown)
            for config, folder in todo
        }
        _train_together(todo, data, lambda folder, p: follow[folder](p))
    return folders


def _train_together(
    todo: Sequence[tuple[Config, Path]], data: Dataset, follow: Callable[[Path, Progress], None]
) -> None:
    """Train runs, AT_ONCE of them at a time, and follow them from the calling thread, to which Ctrl-C comes, too.

    Raises
    ------
    InputError, DivergenceError
        What stopped one run; the others are saved.
    Interrupted
        After Ctrl-C, once all runs are saved.
    """
    if not todo:
        return
    backend = todo[0][0].backend
    threads, going = threads_to_share(backend), set[Path]()
    news: SimpleQueue[tuple[Path, Progress | None]] = SimpleQueue()

    def one(config: Config, folder: Path) -> None:
        def report(p: Progress) -> None:
            use_threads(backend, threads // len(going))  # one that is left alone takes all of them
            news.put((folder, p))

        try:
            if not stop.is_set():
                going.add(folder)
                use_threads(backend, threads // len(going))
                train(config, folder, data, report, stop)
        except BaseException:
            stop.set()
            raise
        finally:
            going.discard(folder)
            news.put((folder, None))

    with stop_requests() as stop, ThreadPoolExecutor(min(AT_ONCE, threads) or 1) as pool:
        try:
            futures, left = [pool.submit(one, *job) for job in todo], len(todo)
            while left:
                folder, p = news.get()
                if p:
                    follow(folder, p)
                else:
                    left -= 1
        except BaseException:
            stop.set()
            raise
        asked = stop.is_set()
    errors = [e for future in futures if (e := future.exception())]
    for e in errors:
        if not isinstance(e, Interrupted):
            raise e
    if asked:
        raise Interrupted(
            "\n".join(map(str, errors)) or "stopped between two runs; the same command goes on from there"
        )


def recipe(config: Config) -> Config:
    """Add the paper's warm-up where it had one.

    Raises
    ------
    InputError
        For nets that no recipe here trains.
    """
    if config.net.startswith("imagenet"):
        raise InputError(f"{config.net} is here to be read (minires info {config.net}); train a net such as resnet20")
    return replace(config, warmup_lr=config.warmup_lr or paper_warmup(config.net, config.lr))


def forecast(configs: Sequence[Config], left: Sequence[int], data: Dataset) -> str:
    """How long the iterations that are `left` of each run will take here, from two timed steps of each distinct net."""
    first = {config.net: config for config, n in zip(configs, left, strict=True) if n > 0}
    backend, threads = configs[0].backend, threads_to_share(configs[0].backend)
    at_once = min(AT_ONCE, threads, sum(n > 0 for n in left)) or 1
    try:
        use_threads(backend, threads // at_once)
        step = {net: seconds_per_step(config, data) for net, config in first.items()}
    finally:
        use_threads(backend, threads)
    total = sum(n * step[config.net] * _with_evaluations(config) for config, n in zip(configs, left, strict=True) if n)
    total /= at_once
    each = ", ".join(f"{net} {seconds:.2f}" for net, seconds in step.items())
    time_needed = f"{total / 60:.1f} minutes" if total < 5400 else f"{total / 3600:.1f} hours"
    together = ", two nets at a time" if at_once > 1 else ""
    return (
        f"This will take about {time_needed} here (seconds a step{together}: {each}). "
        "Stop it with Ctrl-C at any time; the same command goes on from there."
    )


def seconds_per_step(config: Config, data: Dataset) -> float:
    """Seconds of the faster one of two training steps, batch and all; the first one has memory to fetch."""
    net = initial_net(config)
    optimizer, mean, seconds = SGD(net.parameters()), per_pixel_mean(data.train_images[:1]), []
    for iteration in range(2):
        start = time.perf_counter()
        batch = training_batch(data, mean, config.seed, iteration, config.batch_size, augment=config.augment)
        train_step(net, optimizer, *batch, lr=0.0)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _with_evaluations(config: Config) -> float:
    """Cost of a run, its evaluations included, in units of its training; a forward pass is a third of a step."""
    images = (config.bn_images + 2 * config.eval_images) / 3
    return 1 + images / (config.batch_size * config.eval_every)


def bar(total: float, quiet: bool = False) -> Any:
    """Progress bar with an ETA over work of different cost."""
    shape = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
    pause = 0.5 if sys.stderr.isatty() or "ipykernel" in sys.modules else 15  # seconds; a log gets a line now and then
    return tqdm(total=total, bar_format=shape, disable=quiet, mininterval=pause, smoothing=0.05, dynamic_ncols=True)


def follower(
    progress: Any, title: str, cost: float, report: Report = lambda _: None, shown: Shown | None = None
) -> Report:
    """Return the callback that moves `progress` on by `cost` at every iteration of `title`, and calls `report`.

    Runs that are followed side by side have one `shown`: where each of them stands.
    """
    seen, shown = 0, {} if shown is None else shown

    def follow(p: Progress) -> None:
        nonlocal seen
        if p.iteration > seen + 1 and not progress.disable:  # resumed: done before, which must not count as speed
            for position in ("initial", "n", "last_print_n"):
                setattr(progress, position, getattr(progress, position) + cost * (p.iteration - 1 - seen))
        seen = p.iteration
        shown[title] = p
        where = ", ".join(f"{name} {q.iteration}/{q.iterations}" for name, q in shown.items())
        errors = ", ".join(f"{100 * q.error:.0f} %" for q in shown.values())
        rest = f"loss {p.loss:.2f}, error {errors}, lr {p.lr:g}" if len(shown) == 1 else f"errors {errors}"
        progress.set_description_str(where, refresh=False)
        progress.set_postfix_str(rest, refresh=False)
        progress.update(cost)
        if p.iteration == p.iterations:
            del shown[title]
        report(p)

    return follow
