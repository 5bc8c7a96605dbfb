"""Where a run was trained: commit, versions, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import minires
from minires.plugins import LOADED

LIBRARIES = ("numpy", "numba", "safetensors")


def provenance() -> dict[str, Any]:
    """The commit, versions and machine of this process.

    `commit` is None where git does not track the package; "plugins" lists users' files, if any.
    """
    commit = _git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    tracked = _git("ls-files", "--error-unmatch", "__init__.py") is not None
    origin = {
        "commit": commit if tracked else None,
        "versions": {"minires": minires.__version__, "python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES if find_spec(name)},
        "machine": {"system": platform.platform(), "processor": processor(), "cores": _cores()},
    }
    return origin | ({"plugins": [file.name for file in LOADED]} if LOADED else {})


def _cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
