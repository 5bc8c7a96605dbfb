"""Progress bars with the time left; where there is no terminal, occasional lines instead."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm
from tqdm.std import tqdm as plain_tqdm

from minires.runs.metric import ERROR, Metric
from minires.text import plural

BAR = "{percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
LINE = "{percentage:3.0f}% after {elapsed}, {remaining} left{postfix}"
BAR_COLUMNS = 44  # of a terminal: the bar itself, the percentage and the times


@dataclass
class Progress:
    """Where a run stands after `iteration` of `iterations`.

    `error` is the running main metric of training, in the unit that it is recorded in. `ended` is
    true after the last step, which may be before `iterations`, see `Config.until`.
    """

    iteration: int
    iterations: int
    loss: float
    error: float
    lr: float
    metric: Metric = ERROR
    ended: bool = False

    @property
    def shown(self) -> str:
        """The metric as it is shown, such as "43 %"."""
        value = self.metric.scale * self.error
        number = f"{value:.0f}" if self.metric.fraction else f"{value:.3g}"
        return f"{number} {self.metric.unit}".strip()


Report = Callable[[Progress], None]
Shown = dict[str, Progress]


class _Output:
    """A stream whose errors are ignored: a closed or full one must not end a training run."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed, full, or lacks a character
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Timed:
    """A bar that measures speed from its first step on.

    The time of the first step is also that of starting processes and of compiling.
    """

    started = False

    def update(self: Any, n: float = 1) -> bool | None:
        """Move the bar."""
        if self.disable or self.started or self.n + n >= self.total:
            return super().update(n)  # type: ignore[misc]
        self.started = True
        skip(self, n)
        self.last_print_t = self._time()
        if not isinstance(self, _Lines):
            self.refresh()
        return None


class _Bar(_Timed, plain_tqdm):
    """Progress on a terminal."""


class _NotebookBar(_Timed, tqdm):
    """Progress in a notebook."""


class _Lines(_Timed, plain_tqdm):
    """Progress off a terminal, such as in a log: whole lines, no carriage returns."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write a line; an empty message, which clears a bar, writes nothing."""
        if msg != "":
            self.fp.write(f"{msg or self}\n")
            self.fp.flush()
        return False

    def close(self) -> None:
        """Write the last line, unless it is written already."""
        if not self.disable and self.n > self.last_print_n:
            self.display()
        self.leave = False  # a bar would write an empty line here
        super().close()


def bar(total: float, quiet: bool = False, at_once: bool = False) -> Any:
    """Progress bar with an ETA over work of different cost.

    Parameters
    ----------
    total : float
        All the work, in any unit.
    quiet : bool
        No bar.
    at_once : bool
        Show the bar before any work is done. Otherwise it appears with the first update, so that
        finished work shows no empty bar.
    """
    # with miniters above 1, tqdm's monitor thread writes lines of its own
    settings: dict[str, Any] = {"total": total, "smoothing": 0.05, "delay": 1e-3, "miniters": 0}
    if quiet or sys.stderr is None:
        return plain_tqdm(disable=True, **settings)
    if "ipykernel" in sys.modules:
        return _NotebookBar(bar_format=BAR, mininterval=0.5, dynamic_ncols=True, **settings)
    output = _Output(sys.stderr)
    if not _is_terminal(sys.stderr):
        return _Lines(bar_format=LINE, mininterval=15, file=output, **settings)
    if at_once:
        settings["delay"] = 0
    return _Bar(bar_format=BAR, mininterval=0.5, dynamic_ncols=True, file=output, **settings)


def _is_terminal(stream: Any) -> bool:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return bool(stream.isatty())
    return False


@contextlib.contextmanager
def compile_bar(quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback for `ops.prepare`; it shows a bar as soon as the first kernel is compiled.

    The callback takes the kernel's name, and how many of how many kernels are ready.
    """
    shown: list[Any] = []

    def report(name: str, ready: int, total: int) -> None:
        if quiet or sys.stderr is None:
            return
        if not shown and not _is_terminal(sys.stderr):
            _Output(sys.stderr).write("compiling for this machine\n")
            shown.append(plain_tqdm(disable=True))
        if not shown:
            text = "compiling for this machine: {n_fmt} of {total_fmt} kernels |{bar}| "
            output = {"file": _Output(sys.stderr), "dynamic_ncols": True, "leave": False}
            shown.append(plain_tqdm(total=total, bar_format=text + "{elapsed}", **output))
        shown[0].n = ready
        shown[0].refresh()

    try:
        yield report
    finally:
        for progress in shown:
            progress.close()


def follower(
    progress: Any,
    title: str,
    cost: float,
    report: Report = lambda _: None,
    shown: Shown | None = None,
) -> Report:
    """Return a callback that moves `progress` by `cost` per iteration, and calls `report`.

    Runs that train at the same time share one dict `shown`: the latest progress of each.
    """
    seen = 0
    shown = {} if shown is None else shown

    def follow(p: Progress) -> None:
        nonlocal seen
        if p.iteration > seen + 1:
            skip(progress, cost * (p.iteration - 1 - seen))
        seen = p.iteration
        shown[title] = p
        if not progress.disable:
            progress.set_postfix_str(_fitting(details(shown), progress), refresh=False)
        progress.update(cost)
        if p.ended or p.iteration == p.iterations:
            del shown[title]
            skip(progress, cost * (p.iterations - p.iteration))
        report(p)

    return follow


def details(shown: Shown) -> list[str]:
    """Where the runs stand, in words: the same at four lengths, the longest first."""
    metric = next(iter(shown.values())).metric
    many = metric.name if len(shown) == 1 else plural(metric.name)
    nets = [title.partition(" ")[0] for title in shown]  # titles name the net first
    values = [p.shown for p in shown.values()]
    where = [f"{p.iteration}/{p.iterations} {metric.name} {p.shown}" for p in shown.values()]
    longer = [" ".join(words) for words in zip(nets, where, strict=True)]
    short = [" ".join(words) for words in zip(nets, values, strict=True)]
    longest = [" ".join(words) for words in zip(shown, where, strict=True)]
    if len(shown) == 1:
        (p,) = shown.values()
        longest += [f"loss {p.loss:.2f}", f"lr {p.lr:g}"]
    texts = [", ".join(parts) for parts in (longest, longer, short, values)]
    return [*texts[:2], *(f"{many} {text}" for text in texts[2:])]


def _fitting(texts: Sequence[str], progress: Any) -> str:
    """The longest of these texts that leaves room for the bar, else the shortest."""
    columns = progress.format_dict["ncols"]
    if not isinstance(columns, int):  # a log or a notebook
        return texts[0]
    fitting = [text for text in texts if len(text) <= columns - BAR_COLUMNS]
    return fitting[0] if fitting else texts[-1]


def skip(progress: Any, work: float) -> None:
    """Move a bar over work that is not done here: it must not count as speed."""
    if progress.disable:
        return
    for position in ("initial", "n", "last_print_n"):
        setattr(progress, position, getattr(progress, position) + work)
