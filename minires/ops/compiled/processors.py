"""How many processor cores this process may use: affinity and container quotas count.

Two threads of one core share its arithmetic units, so a core counts once. On Linux the files of the
kernel say what is shared and what is granted; elsewhere every processor counts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")


def usable_cores(root: Path = ROOT, processors: set[int] | None = None) -> tuple[int, str]:
    """Number of cores for the kernels, at least 1, and what limits it.

    Parameters
    ----------
    root : Path
        Where the folders `proc` and `sys` of the system are.
    processors : set of int, optional
        Those that the process may run on; by default the system is asked.

    Returns
    -------
    cores : int
    why : str
        Such as "physical cores" or "the quota of this container, 1.5 cores".
    """
    total = os.cpu_count() or 1
    allowed = _affinity() if processors is None else processors
    cores = len({_siblings(root, number) for number in allowed})
    why = "physical cores" if cores < len(allowed) else "cores"
    if processors is None and len(allowed) < total:
        why = f"{why} that this process may use, of {total} processors"
    quota = min(_quotas(root), default=math.inf)
    if quota < cores:
        return max(1, math.ceil(quota)), f"the quota of this container, {quota:g} cores"
    return max(1, cores), why


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _siblings(root: Path, number: int) -> str:
    """The processors of the same core, as the system writes them; without a file, only itself."""
    found = root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
    return _read(found) or str(number)


def _quotas(root: Path) -> Iterator[float]:
    """Processor time per time, from every control group that holds this process."""
    groups = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:  # version 2
            for base in (groups, groups / "unified"):
                for folder in _upwards(base, path):
                    yield from _quota(*_read(folder / "cpu.max").split()[:2])
        elif "cpu" in controllers.split(","):  # version 1
            for base in (groups / "cpu", groups / controllers):
                for folder in _upwards(base, path):
                    files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                    yield from _quota(*(_read(folder / name) for name in files))


def _upwards(base: Path, path: str) -> Iterator[Path]:
    """The folder of a control group and all above it: each may limit those below."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for end in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:end])


def _quota(granted: str = "", period: str = "") -> Iterator[float]:
    """Cores that microseconds of work per period stand for; nothing for "max", -1 and no file."""
    with suppress(ValueError):
        if float(granted) > 0 and float(period) > 0:
            yield float(granted) / float(period)


def _read(path: Path) -> str:
    """The text of a file of the system, or "" if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
