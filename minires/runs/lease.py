"""Leases: which process of a sweep trains a run, on a folder that several machines share.

The lease of generation g is the file lease-g.json of a run folder. Its creation is atomic, so one
process gets it; the highest generation counts. Its holder moves a counter in it. A process that has
not seen the counter move for a while, by its own monotonic clock, makes the lease of the next
generation. Nothing relies on locks, or on clocks of different machines.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.runs import files
from minires.text import shown

SECONDS = 90.0  # without a move of the counter, after which a lease is stale
BEATS = 3  # moves of the counter in this time

LEASE = re.compile(r"lease-([1-9][0-9]{0,8})\.json")
STATE = re.compile(r"generation-([1-9][0-9]{0,8})")


class LostLeaseError(InputError):
    """Another process has taken over the run, because this one was silent for too long."""


@dataclass(frozen=True)
class Seen:
    """A lease as it was read.

    Attributes
    ----------
    generation : int
        0 if there is no lease.
    content : dict
        "host", "pid", "token", "counter", "seconds", "iteration" and "released"; empty if the file
        cannot be read.
    """

    generation: int
    content: dict[str, Any]

    @property
    def free(self) -> bool:
        """Whether nobody holds the run."""
        return self.generation == 0 or self.content.get("released") is True

    @property
    def damaged(self) -> bool:
        """Whether there is a lease that no worker has written so."""
        return self.generation > 0 and not isinstance(self.content.get("token"), str)

    @property
    def holder(self) -> str:
        """The process that holds the run: "host (process 12)"."""
        if self.damaged:
            return "unknown (damaged lease)"
        host, pid = (shown(self.content.get(key, "?"), 60) for key in ("host", "pid"))
        return f"{host} (process {pid})"

    @property
    def seconds(self) -> float:
        """Time without a move of the counter after which the lease is stale."""
        value = self.content.get("seconds")
        return float(value) if isinstance(value, (int, float)) and value > 0 else SECONDS


def _path(folder: Path, generation: int) -> Path:
    return folder / f"lease-{generation}.json"


def seen(folder: Path) -> Seen:
    """The lease that counts in a run folder: the one of the highest generation."""
    generation = max(_numbers(folder, LEASE), default=0)
    return Seen(generation, _read(_path(folder, generation)) if generation else {})


def silence(folder: Path, lease: Seen, now: float) -> float:
    """Seconds since a lease was written, by the time `now` and the clock of the file; 0 if unknown.

    It is shown to users. Whether a lease is stale is decided without clocks, see `Leases`.
    """
    with contextlib.suppress(OSError):
        return max(0.0, now - _path(folder, lease.generation).stat().st_mtime)
    return 0.0


def states(folder: Path) -> list[Path]:
    """Folders of metrics and checkpoints, of all generations that have one."""
    return [_state(folder, generation) for generation in _numbers(folder, STATE)]


def remove_states(folder: Path, last: int) -> None:
    """Remove the folders of all generations up to `last`; a later one may have begun."""
    for generation in _numbers(folder, STATE):
        if generation <= last:
            shutil.rmtree(_state(folder, generation), ignore_errors=True)


def live(folder: Path) -> Path:
    """The folder of a run's latest metrics: that of its lease, else its own."""
    state = _state(folder, seen(folder).generation)
    return state if state.is_dir() else folder


def _state(folder: Path, generation: int) -> Path:
    return folder / f"generation-{generation}"


def _numbers(folder: Path, pattern: re.Pattern[str]) -> list[int]:
    """Generations of the files that a run folder has; none if there is no folder."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), files.reading(folder):
        return [int(match[1]) for name in os.listdir(folder) if (match := pattern.fullmatch(name))]
    return []


def _read(path: Path) -> dict[str, Any]:
    try:
        content = files.parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


class Lease:
    """A lease that this process has taken.

    Parameters
    ----------
    folder : Path
        The run folder.
    generation : int
    seconds : float
        Time without a beat after which others may take over.
    """

    def __init__(self, folder: Path, generation: int, seconds: float) -> None:
        self.folder = folder
        self.generation = generation
        self.content: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "token": secrets.token_hex(8),
            "counter": 0,
            "seconds": seconds,
            "iteration": 0,
            "released": False,
        }

    @property
    def state(self) -> Path:
        """Folder of the metrics and checkpoints that are written under this lease.

        It carries the generation, so a process that was paused, and does not know yet that it has
        lost the lease, overwrites nothing of its successor.
        """
        return _state(self.folder, self.generation)

    @property
    def part(self) -> str:
        """Ending of files that this process has not written whole, in folders of all workers."""
        return f"{self.generation}.part"

    def create(self) -> bool:
        """Make the file; False if another process was faster."""
        files.make_folder(self.folder)
        return files.create(_path(self.folder, self.generation), self._bytes())

    def check(self) -> None:
        """Make sure that the lease still counts.

        Raises
        ------
        LostLeaseError
            If there is one of a higher generation.
        """
        latest = seen(self.folder)
        token = latest.content.get("token", self.content["token"])
        if (latest.generation, token) != (self.generation, self.content["token"]):
            raise LostLeaseError(f"{shown(self.folder)} was taken over by {latest.holder}")

    def beat(self, iteration: int) -> None:
        """Move the counter, and say where the run stands."""
        self.check()
        self.content["counter"] += 1
        self.content["iteration"] = iteration
        self._write()

    def release(self) -> None:
        """Give the run back. What was written under the lease stays where it is."""
        self.check()
        self.content["released"] = True
        self._write()

    def publish(self) -> None:
        """Give a finished run back: what was written under the lease becomes the run folder's.

        No check can protect the run folder from a process that is paused while it copies. But every
        process that publishes a run has finished it, so all of them write the same bits. A run that
        is not finished is never published.
        """
        self.check()
        with files.writing(self.folder):
            for path in sorted(self.state.iterdir(), reverse=True):  # metrics first
                if not path.name.startswith("."):
                    files.write_whole(self.folder / path.name, path.read_bytes(), part=self.part)
        self.release()
        self._remove_older()

    def _remove_older(self) -> None:
        """Remove everything of the generations up to this one, but for this lease.

        A later generation may have begun: whoever finds this lease released takes the next one.
        """
        remove_states(self.folder, self.generation)
        for generation in _numbers(self.folder, LEASE):
            if generation < self.generation:
                with contextlib.suppress(OSError):
                    _path(self.folder, generation).unlink()

    def _write(self) -> None:
        files.write_whole(_path(self.folder, self.generation), self._bytes())

    def _bytes(self) -> bytes:
        return json.dumps(self.content).encode()


class Leases:
    """Take leases, and watch those of others.

    Parameters
    ----------
    seconds : float
        Of the leases that are taken.
    clock : callable
        Seconds of this process's monotonic clock.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self._clock = clock
        self._watched: dict[Path, tuple[Seen, float]] = {}

    def take(self, folder: Path) -> Lease | None:
        """The lease of a run, None if another process holds it."""
        latest = seen(folder)
        if not latest.free and not self._is_stale(folder, latest):
            return None
        lease = Lease(folder, latest.generation + 1, self.seconds)
        return lease if lease.create() else None

    def _is_stale(self, folder: Path, latest: Seen) -> bool:
        now = self._clock()
        before, since = self._watched.get(folder, (None, now))
        if before != latest:
            since = now
        self._watched[folder] = latest, since
        return now - since >= latest.seconds
