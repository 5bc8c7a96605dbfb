"""Check the files of a kernel's machine code before they are used.

Numba stores the code of a kernel in an index (.nbi) and in data files (.nbc), and does not check
what it reads. Here each file ends with a checksum.

This module uses private names of Numba; `NAMES` lists them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from typing import Any

from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile

from minires.ops.compiled import kernel_cache

CHECKSUM_BYTES = 32

# the private names that this module relies on, by the class that must have them
NAMES = {
    CompileResultCacheImpl: ("_locator_classes",),
    FunctionCache: ("_impl_class", "load_overload", "save_overload"),
    IndexDataCacheFile: ("_open_for_write", "_load_index", "_load_data", "_data_path"),
}


class DamagedError(Exception):
    """A file of the cache does not hold what was written to it."""


def set_cache(kernel: Any) -> None:
    """Let a kernel keep its machine code on disk.

    Raises
    ------
    AttributeError
        If this version of Numba works in another way.
    """
    for owner, names in NAMES.items():
        for name in names:
            getattr(owner, name)
    if not hasattr(kernel, "_cache"):
        raise AttributeError("a compiled function has no _cache")
    kernel._cache = KernelCache(kernel.py_func)


class _Place:
    """The folder and the file names of a kernel, as Numba asks for them."""

    def __init__(self, function: Callable, source: str) -> None:
        path = Path(source).resolve()
        self._py_file = source
        self.line = function.__code__.co_firstlineno
        self.stamp = hashlib.sha256(path.read_bytes()).hexdigest()
        name = hashlib.sha256(str(path.parent).encode()).hexdigest()[:16]
        self.folder = os.path.join(kernel_cache.cache_folder(), f"{path.parent.name}_{name}")

    @classmethod
    def from_function(cls, function: Callable, source: str) -> _Place:
        return cls(function, source)

    def ensure_cache_path(self) -> None:
        os.makedirs(self.folder, exist_ok=True)

    def get_cache_path(self) -> str:
        return self.folder

    def get_source_stamp(self) -> str:
        return self.stamp

    def get_disambiguator(self) -> str:
        return str(self.line)


class _Contents(CompileResultCacheImpl):
    _locator_classes = [_Place]  # noqa: RUF012 (as in Numba's class)


def _checksum(path: str, content: Any) -> bytes:
    """Digest of a file's name and content, so that files of different kernels never share one."""
    digest = hashlib.sha256(os.path.basename(path).encode())
    digest.update(content)
    return digest.digest()


class _Files(IndexDataCacheFile):
    """The files of a kernel, each with a checksum at its end: pickle ignores what follows."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        # Numba numbers the data files by an index that it reads and writes without a lock. Two
        # processes that compile one kernel for float32 and float64 at once would use the same name,
        # and the next process would load the other's code.
        pattern: str = self._data_name_pattern
        self._data_name_pattern: str = pattern.replace("{number", f"{token_hex(4)}-{{number")

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[BytesIO]:
        content = BytesIO()
        yield content
        with super()._open_for_write(filepath) as file:
            file.write(content.getvalue() + _checksum(filepath, content.getvalue()))

    def _load_index(self) -> dict[Any, str]:
        with suppress(FileNotFoundError):  # nothing is kept yet
            self._check(self._index_path)
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        self._check(self._data_path(name))
        return super()._load_data(name)

    def _check(self, path: str) -> None:
        if os.path.isdir(path):
            raise DamagedError(f"{path} is a folder")
        content = Path(path).read_bytes()
        if _checksum(path, memoryview(content)[:-CHECKSUM_BYTES]) != content[-CHECKSUM_BYTES:]:
            raise DamagedError(f"{path} has a wrong checksum")

    def delete(self) -> None:
        """Delete the index and the data, whatever they are."""
        name = self._index_name.removesuffix("nbi")
        for path in list(Path(self._cache_path).iterdir()):
            if path.name.startswith(name):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


class KernelCache(FunctionCache):
    """The cache of one kernel, which raises nothing."""

    _impl_class = _Contents

    def __init__(self, function: Callable) -> None:
        with _own_places():
            super().__init__(function)
        place = self._impl.locator
        if not hasattr(self, "_cache_file"):
            raise AttributeError("a cache has no _cache_file")
        self._cache_file = _Files(
            place.get_cache_path(), self._impl.filename_base, place.get_source_stamp()
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load the code for a signature; None if there is none, or none that can be used."""
        try:
            return super().load_overload(sig, target_context)
        except (OSError, MemoryError) as e:
            self._go_without(e)
        except Exception:
            self._delete()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save the code for a signature, if it can be saved."""
        try:
            super().save_overload(sig, data)
        except Exception as e:
            self._go_without(e)

    def _delete(self) -> None:
        try:
            self._cache_file.delete()
        except OSError as e:
            self._go_without(e)
        else:
            kernel_cache.warn_damaged()

    def _go_without(self, error: Exception) -> None:
        self.disable()
        kernel_cache.warn_not_kept(error)


@contextmanager
def _own_places() -> Iterator[None]:
    """Ignore NUMBA_CACHE_LOCATOR_CLASSES: other places do not know of edits in helpers."""
    chosen = getattr(config, "CACHE_LOCATOR_CLASSES", "")
    config.CACHE_LOCATOR_CLASSES = ""
    try:
        yield
    finally:
        config.CACHE_LOCATOR_CLASSES = chosen
