"""Files that are whole or absent at every instant."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from minires.errors import InputError


def move(source: Path, target: Path) -> None:
    """Rename onto `target`; on Windows try again, as other programs may hold a file briefly."""
    for pause in (0.02, 0.1, 0.5, 2.0) if sys.platform == "win32" else ():
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(pause)
    return os.replace(source, target)


def write_whole(path: Path, data: bytes, before: Callable[[], None] = lambda: None) -> None:
    """Write a file so that a crash leaves either the old content or the new, never a part.

    Parameters
    ----------
    path : Path
    data : bytes
    before : callable
        Called when the new content is safe on the disk and the old one is still there.

    Raises
    ------
    InputError
        If it cannot be written (disk full, no permission); what was there before is untouched.
    """
    part = path.with_name(f".{path.name}.part")
    with writing(path):
        try:
            with open(part, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            before()
            move(part, path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        _sync_folder(path.parent)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's errors while `path` is written into an `InputError` with advice."""
    try:
        yield
    except OSError as e:
        raise InputError(
            f"cannot write {path}: {e.strerror or e}. Everything recorded before is whole; "
            "make room, or choose a folder that can be written, then give the command again"
        ) from e


def make_folder(folder: Path) -> None:
    """Create a folder and its parents.

    Raises
    ------
    InputError
        If that is not possible.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one JSON line; a crash can only cut the last one, which the reader passes over."""
    with writing(path), open(path, "a", encoding="utf-8", newline="\n") as f:
        f.write(json.dumps(values) + "\n")


def sync(path: Path) -> None:
    """Wait until what was appended to a file is on the disk."""
    with writing(path), open(path, "a", encoding="utf-8") as f:
        os.fsync(f.fileno())


def _sync_folder(folder: Path) -> None:
    if (
        sys.platform != "win32"
    ):  # Windows has no handle for a folder, and replaces files through its journal
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
