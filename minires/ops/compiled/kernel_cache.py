"""Keep machine code on disk. An error in this cache never stops a command or changes a result.

A kernel whose files are damaged is compiled again. If the folder cannot be used, each process
compiles for itself. Both cause one warning.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import pooch
from llvmlite import binding
from numba.core import config

from minires.ops.availability import THREADING, in_one_line, settings, warn_once

MOVE = "NUMBA_CACHE_DIR names another folder"


@cache
def cache_folder() -> str:
    """Folder of the machine code: per user, outside the package (which may be read-only).

    NUMBA_CACHE_DIR names another parent folder. The folder's own name is a digest of everything
    that determines the code: the sources of all ops, the versions, the processor and Numba's
    settings. Numba itself checks only the file of a kernel, and would miss an edit of a helper in
    another file.
    """
    processor = config.CPU_NAME or binding.get_host_cpu_name()
    chosen = sorted(item for item in settings().items() if item[0] not in THREADING)
    digest = hashlib.sha256(
        f"{numba.__version__} {llvmlite.__version__} {processor} {chosen}".encode()
    )
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    users = config.CACHE_DIR
    parent = Path(users).expanduser() if users else Path(pooch.os_cache("minires")) / "numba"
    return str(parent / digest.hexdigest()[:16])


@cache
def writable_folder() -> str | None:
    """The cache folder if files can be written there, else None and a warning."""
    try:
        folder = cache_folder()
    except (OSError, RuntimeError) as e:  # no home folder
        warn_once(
            f"kernels cannot be kept on disk ({in_one_line(e)}), so they are compiled each time; "
            f"{MOVE}"
        )
        return None
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as e:
        warn_not_kept(e)
        return None
    return folder


def keep_on_disk(kernel: Any) -> None:
    """Give a kernel a cache on disk; without one, each process compiles it for itself."""
    folder = writable_folder()
    if folder is None:
        return
    try:
        files = importlib.import_module("minires.ops.compiled.kernel_files")
        files.set_cache(kernel)
    except Exception as e:  # such as a Numba that has renamed its classes
        warn_not_kept(e)


def warn_damaged() -> None:
    """Say that files were damaged and are replaced."""
    warn_once(
        f"the kernel cache {cache_folder()} was damaged; its damaged files are deleted and their "
        f"kernels compiled again ({MOVE})"
    )


def warn_not_kept(error: Exception) -> None:
    """Say why machine code cannot be kept."""
    reason = getattr(error, "strerror", None) or in_one_line(error)
    warn_once(
        f"kernels cannot be kept in {cache_folder()} ({reason}), so they are compiled each time; "
        f"{MOVE}"
    )
