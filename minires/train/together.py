"""Train several runs at a time, in threads that share the processor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from minires.data import Dataset
from minires.ops import threads_to_share, use_threads
from minires.runs.config import Config
from minires.train.loop import train
from minires.train.progress import Progress
from minires.train.stopping import Interrupted, stop_requests

AT_ONCE = 2  # runs; each has its own activations in memory

Job = tuple[Config, Path]
Follow = Callable[[Path, Progress], None]


class _Crew:
    """Runs that train at the same time and share the kernel threads."""

    def __init__(self, backend: str, data: Dataset, stop: threading.Event) -> None:
        self.backend = backend
        self.data = data
        self.stop = stop
        self.threads = threads_to_share(backend)
        self.going: set[Path] = set()
        self.news: SimpleQueue[tuple[Path, Progress | None]] = SimpleQueue()

    @property
    def at_once(self) -> int:
        """How many runs may train at a time."""
        return min(AT_ONCE, self.threads) or 1

    def share_threads(self) -> None:
        """Give the calling run its share of threads: all of them if it trains alone."""
        use_threads(self.backend, self.threads // len(self.going))

    def train(self, config: Config, folder: Path) -> None:
        """Train one run; put its progress into `news`, and None there once it has ended."""

        def report(p: Progress) -> None:
            self.share_threads()
            self.news.put((folder, p))

        try:
            if not self.stop.is_set():
                self.going.add(folder)
                self.share_threads()
                train(config, folder, self.data, report, self.stop)
        except BaseException:
            self.stop.set()
            raise
        finally:
            self.going.discard(folder)
            self.news.put((folder, None))

    def follow(self, runs: int, follow: Follow) -> None:
        """Pass progress on to `follow` until `runs` runs have ended."""
        while runs:
            folder, p = self.news.get()
            if p:
                follow(folder, p)
            else:
                runs -= 1


def train_together(todo: Sequence[Job], data: Dataset, follow: Follow) -> None:
    """Train runs, AT_ONCE of them at a time.

    The calling thread follows them: it is the one that Ctrl-C reaches.

    Raises
    ------
    InputError, DivergenceError
        What stopped one run; the others are saved.
    Interrupted
        After Ctrl-C, once all runs are saved.
    """
    if not todo:
        return
    with stop_requests() as stop:
        crew = _Crew(todo[0][0].backend, data, stop)
        with ThreadPoolExecutor(crew.at_once) as pool:
            try:
                futures = [pool.submit(crew.train, *job) for job in todo]
                crew.follow(len(todo), follow)
            except BaseException:
                stop.set()
                raise
            asked = stop.is_set()
    _raise_errors(futures, asked)


def _raise_errors(futures: Sequence[Future], asked: bool) -> None:
    errors = [e for future in futures if (e := future.exception())]
    for e in errors:
        if not isinstance(e, Interrupted):
            raise e
    if asked:
        raise Interrupted(
            "\n".join(map(str, errors)) or "stopped between two runs; run it again to resume"
        )
