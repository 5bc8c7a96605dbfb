"""Provenance of a run: commit, versions and machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import minires
from minires.ops.availability import settings
from minires.plugins import LOADED

LIBRARIES = ("numpy", "numba", "safetensors")


def provenance() -> dict[str, Any]:
    """The commit, versions and machine of this process.

    `commit` is None where git does not track the package; "plugins" lists users' files, if any, and
    "settings" the variables of Numba that may change a result's last bits.
    """
    commit = _git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    tracked = _git("ls-files", "--error-unmatch", "__init__.py") is not None
    origin: dict[str, Any] = {
        "commit": commit if tracked else None,
        "versions": {"minires": minires.__version__, "python": platform.python_version()}
        | versions(),
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "cores": len(processors_allowed()),
        },
    }
    if chosen := settings():
        origin["settings"] = chosen
    if LOADED:
        origin["plugins"] = [file.name for file in LOADED]
    return origin


def versions() -> dict[str, str]:
    """Versions of minires and of the installed libraries that decide on a result's bits."""
    found = {"minires": minires.__version__}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def differing_versions(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The libraries whose versions differ, with both versions: "numpy 2.3.1 and 2.4.0"."""
    return [
        f"{name} {one.get(name, 'not installed')} and {other.get(name, 'not installed')}"
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    ]


def processors_allowed() -> list[int]:
    """Numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _git(*words: str) -> str | None:
    """Git's answer about the folder of the package, None if it fails."""
    package = Path(minires.__file__).resolve().parent
    if not any((folder / ".git").exists() for folder in package.parents):
        return None  # a Mac without git would offer to install it
    command = ["git", "-C", str(package), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def processor() -> str:
    """Name of the processor, from the operating system."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(
                line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
