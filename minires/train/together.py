"""Train several runs at a time, in threads that share the processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from minires.data import Dataset, per_pixel_mean, training_batch
from minires.ops import threads_to_share, use_threads
from minires.optim import SGD
from minires.runs.config import Config
from minires.train.loop import Interrupted, initial_net, stop_requests, train
from minires.train.progress import Progress
from minires.train.step import train_step

AT_ONCE = 2  # runs; each has its own activations in memory
FORECAST_FROM = 50  # iterations of a net that are worth two steps of timing beforehand


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
            "\n".join(map(str, errors))
            or "stopped between two runs; the same command goes on from there"
        )


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
    total = sum(
        n * step[config.net] * _with_evaluations(config)
        for config, n in zip(configs, left, strict=True)
        if n
    )
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
        batch = training_batch(
            data, mean, config.seed, iteration, config.batch_size, augment=config.augment
        )
        train_step(net, optimizer, *batch, lr=0.0)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _with_evaluations(config: Config) -> float:
    """Cost of a run, its evaluations included, in units of its training; a forward pass is a third of a step."""
    images = (config.bn_images + 2 * config.eval_images) / 3
    return 1 + images / (config.batch_size * config.eval_every)
