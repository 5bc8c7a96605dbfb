"""Speed of this checkout of minires against another one, such as an earlier version.

Each checkout runs in its own process. They take turns and alternate which of them goes first, so
that a machine whose speed drifts treats both alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

import minires
from minires.bench.nets import timed_nets
from minires.errors import InputError
from minires.nets.network import Facts
from minires.runs.provenance import provenance
from minires.text import columns

WORKER = Path(__file__).with_name("checkout_worker.py")
STEPS = ("train", "inference")
STEP_SECONDS = 0.5  # in a round, a step is repeated for about this long


@dataclass(frozen=True)
class Checkout:
    """A folder with the package minires, as the user named it, and its commit if git knows it."""

    name: str
    folder: Path
    commit: str | None

    def __str__(self) -> str:
        return f"{self.name} ({self.commit or 'commit unknown'})"


@dataclass
class Comparison:
    """Seconds per step in each round, and peak memory, of both checkouts with one network.

    Attributes
    ----------
    net : str
    this, other : dict of str to list of float
        By step: "train" and "inference".
    peak_megabytes : dict of str to float
        By "this" and "other"; 0 if the system does not report it.
    """

    net: str
    this: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in STEPS})
    other: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in STEPS})
    peak_megabytes: dict[str, float] = field(default_factory=dict)

    def ratios(self, step: str) -> np.ndarray:
        """Seconds of the other checkout divided by those of this one, for each round."""
        return np.array(self.other[step]) / np.array(self.this[step])


def this_checkout() -> Checkout:
    """The checkout that this program belongs to."""
    folder = Path(minires.__file__).resolve().parents[1]
    return Checkout("this", folder, _commit(folder))


def checkout(path: Path) -> Checkout:
    """Return the checkout in a folder.

    Raises
    ------
    InputError
        If the folder does not hold the package minires.
    """
    if not (path / "minires" / "__init__.py").is_file():
        raise InputError(
            f"expected a checkout of minires, got {path}: it has no minires/__init__.py; "
            "get one with: git worktree add FOLDER COMMIT"
        )
    folder = path.resolve()
    return Checkout(str(path), folder, _commit(folder))


def _commit(folder: Path) -> str | None:
    """Git's name for the commit of a checkout; None if the folder is not a repository."""
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--tags", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def compare(
    other: Checkout,
    nets: Sequence[str],
    backend: str,
    rounds: int,
    batch_size: int,
    report: Callable[[str], None],
) -> list[Comparison]:
    """Time both checkouts with every network. They take turns for `rounds` rounds.

    Parameters
    ----------
    other : Checkout
    nets : list of str
    backend : str
    rounds, batch_size : int
    report : callable
        Called with a line about each step of the work.

    Returns
    -------
    comparisons : list of Comparison

    Raises
    ------
    InputError
        If `bench.nets.timed_nets` raises it, or a checkout does not know a network or the backend.
    """
    sides = {"this": this_checkout(), "other": other}
    found = []
    for facts in timed_nets(nets, rounds, batch_size):
        arguments = _arguments(facts, backend, batch_size)
        for side in sides.values():
            report(f"{facts.name}, {side.name}: first steps")
            with _worker(side, arguments) as worker:  # compile now, so that memory excludes it
                for step in STEPS:
                    worker.seconds(step, 1)
        found.append(_compare_net(facts.name, sides, arguments, rounds, report))
    return found


def _arguments(facts: Facts, backend: str, batch_size: int) -> dict[str, Any]:
    return {
        "net": facts.name,
        "backend": backend,
        "batch_size": batch_size,
        "input_shape": list(facts.input_shape),
        "classes": facts.classes,
    }


def _compare_net(
    net: str,
    sides: dict[str, Checkout],
    arguments: dict[str, Any],
    rounds: int,
    report: Callable[[str], None],
) -> Comparison:
    comparison = Comparison(net)
    seconds = {"this": comparison.this, "other": comparison.other}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(_worker(side, arguments)) for name, side in sides.items()
        }
        repeats = {}
        for step in STEPS:
            slower = max(worker.seconds(step, 1) for worker in workers.values())
            repeats[step] = max(1, round(STEP_SECONDS / slower))
        for i in range(rounds):
            report(f"{net}: round {i + 1} of {rounds}")
            order = list(workers) if i % 2 == 0 else list(reversed(workers))
            for step in STEPS:
                for name in order:
                    seconds[name][step].append(workers[name].seconds(step, repeats[step]))
        comparison.peak_megabytes = {name: w.megabytes() for name, w in workers.items()}
    return comparison


# ----------------------------------------------------------------------------------------- workers


class _Worker:
    """The process of one checkout, see `checkout_worker`."""

    def __init__(self, side: Checkout, process: subprocess.Popen[str], log: IO[str]) -> None:
        self.side = side
        self.process = process
        self.log = log

    def seconds(self, step: str, repeats: int) -> float:
        """Mean seconds of a step."""
        return float(self._ask(step=step, repeats=repeats)["seconds"])

    def megabytes(self) -> float:
        """Peak memory."""
        return float(self._ask(step="memory")["megabytes"])

    def start(self) -> None:
        """Wait until the network is built, by the package of the right checkout."""
        package = Path(self._answer()["package"]).resolve()
        if self.side.folder not in package.parents:
            raise InputError(
                f"expected minires of {self.side.folder}, got {package}; "
                "start minires outside both checkouts"
            )

    def _ask(self, **question: Any) -> dict[str, Any]:
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            last = (self.log.read().strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(f"the process that times {self.side} ended: {last}")
        answer = dict(json.loads(line))
        if "error" in answer:
            raise InputError(f"{self.side}: {answer['error']}")
        return answer


@contextmanager
def _worker(side: Checkout, arguments: dict[str, Any]) -> Iterator[_Worker]:
    """Start the process of one checkout, and end it."""
    paths = [str(side.folder), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    program = WORKER.read_text(encoding="utf-8")
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd=side.folder,  # `python -c` looks there first
            text=True,
            encoding="utf-8",
        )
        with process:
            try:
                worker = _Worker(side, process, log)
                worker.start()
                yield worker
            finally:
                process.kill()


# ----------------------------------------------------------------------------------------- results


def table(comparisons: Sequence[Comparison]) -> str:
    """Median milliseconds per step of both, the ratio with its range over rounds, and memory."""
    head = ["net", "step", "this ms", "other ms", "other/this", "range", "memory this/other"]
    lines = [head]
    for c in comparisons:
        for step in STEPS:
            this, other = (float(np.median(side[step])) for side in (c.this, c.other))
            ratios = c.ratios(step)
            cells = [f"{1e3 * this:.1f}", f"{1e3 * other:.1f}", f"{other / this:.2f}"]
            cells.append(f"{ratios.min():.2f}-{ratios.max():.2f}")
            lines.append([c.net, step, *cells, _memory(c) if step == "train" else ""])
    return columns(lines, left=2)


def _memory(comparison: Comparison) -> str:
    this, other = (comparison.peak_megabytes[name] for name in ("this", "other"))
    return f"{this / other:.2f}" if this and other else "unknown"


def record(comparisons: Sequence[Comparison], other: Checkout, **settings: Any) -> dict[str, Any]:
    """Everything measured, with machine, versions, commits and settings, as JSON values."""
    return {
        "provenance": provenance(),
        "this": {"commit": this_checkout().commit},
        "other": {"path": other.name, "commit": other.commit},
        **settings,
        "comparisons": [asdict(c) for c in comparisons],
    }
