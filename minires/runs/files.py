"""Files that are whole or absent at every instant."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.text import shown

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)  # of a disk without hard links
DEEPEST = 12  # levels of nesting in our JSON; real files have up to 4


def move(source: Path, target: Path) -> None:
    """Rename onto `target`; on Windows try again, as other programs may hold a file briefly."""
    for pause in (0.02, 0.1, 0.5, 2.0) if sys.platform == "win32" else ():
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(pause)
    return os.replace(source, target)


def write_whole(
    path: Path, data: bytes, before: Callable[[], None] = lambda: None, part: str = "part"
) -> None:
    """Write a file so that a crash leaves either the old content or the new, never a part.

    Parameters
    ----------
    path : Path
    data : bytes
    before : callable
        Called when the new content is safe on the disk and the old one is still there.
    part : str
        Ending of the file that holds the new content until it is whole. Processes that may write
        the same file at the same time give different ones.

    Raises
    ------
    InputError
        If it cannot be written (disk full, no permission). The old content is untouched.
    """
    new = path.with_name(f".{path.name}.{part}")
    with writing(path):
        try:
            with open(new, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            before()
            move(new, path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        _sync_folder(path.parent)


def create(path: Path, data: bytes) -> bool:
    """Create a file, if there is none of that name; return whether this call has created it.

    If several processes try, also on several machines, one succeeds: a hard link and an exclusive
    creation are atomic on network file systems, too.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    with writing(path):
        try:
            part.write_bytes(data)
            os.link(part, path)
        except FileExistsError:
            return _has_two_names(part)  # a server may have lost its answer to the first request
        except OSError as e:
            if e.errno not in NO_LINKS:
                raise
            with contextlib.suppress(FileExistsError), open(path, "xb") as f:
                f.write(data)
                return True
            return False
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
    return True


def _has_two_names(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.stat().st_nlink == 2
    return False


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's errors while `path` is written into an `InputError` with advice."""
    try:
        yield
    except OSError as e:
        raise InputError(
            f"cannot write {shown(path)}: {cause(e)}. Everything recorded before is whole; "
            f"{advice(e)}, then give the command again"
        ) from e


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the system's errors while `path` is read into an `InputError`, except for a missing one.

    A disk in the network that does not answer is no reason to believe that nothing is there.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as e:
        raise InputError(f"cannot read {shown(path)}: {cause(e)}; {advice(e)}") from e


def cause(error: OSError) -> str:
    """The system's reason in words; a deleted working folder is named as such."""
    if error.errno == errno.ENOENT and not _has_working_folder():
        return "the working folder was deleted"
    return error.strerror or shown(error)


def advice(error: OSError) -> str:
    """Advice on an error of the system."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "raise the limit of open files (ulimit -n 256), or close other programs"
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return "make room, or choose a folder on another disk"
    if error.errno == errno.ENOENT and not _has_working_folder():
        return "change to a folder that exists (cd)"
    return "choose a folder that can be read and written"


def _has_working_folder() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def parse_json(text: str) -> Any:
    """Read JSON that minires wrote.

    Raises
    ------
    ValueError
        If it is not JSON, is nested too deeply, or holds an integer of thousands of digits.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(value, DEEPEST)
    return value


def _check_depth(value: Any, levels: int) -> None:
    if not levels:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            _check_depth(part, levels - 1)


def escaped(value: Any) -> Any:
    """A JSON value with every string made safe to print, see `text.shown`."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, dict):
        return {shown(key): escaped(v) for key, v in value.items()}
    return [escaped(v) for v in value] if isinstance(value, list) else value


def make_folder(folder: Path) -> None:
    """Create a folder and its parents.

    Raises
    ------
    InputError
        If that is not possible.
    """
    if folder.is_file():
        raise InputError(f"{shown(folder)} is not a folder; choose another one")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one JSON line. A crash can only cut the last one, and the reader skips that."""
    with writing(path), open(path, "a", encoding="utf-8", newline="\n") as f:
        f.write(json.dumps(values) + "\n")


def sync(path: Path) -> None:
    """Wait until everything that was appended to a file is on the disk."""
    with writing(path), open(path, "a", encoding="utf-8") as f:
        os.fsync(f.fileno())


def _sync_folder(folder: Path) -> None:
    if sys.platform != "win32":  # where a folder has no handle, and files move through a journal
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
