"""Standard output and standard error that never end a command.

A terminal may lack a character, a pipe may be closed, a disk may be full, or a stream may be
missing. The command goes on, and its exit code says how it ended.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO


class Tolerant(io.RawIOBase):
    """A raw stream that drops what cannot be written, and remembers the reason."""

    def __init__(self, raw: Any) -> None:
        self._below = raw
        self.error: OSError | None = None

    def writable(self) -> bool:
        """Whether bytes may be written: always."""
        return True

    def write(self, data: Any) -> int | None:
        """Write bytes; if that fails, the rest is dropped."""
        try:
            return self._below.write(data)
        except OSError as e:
            self.error = self.error or e
            return len(data)

    def fileno(self) -> int:
        """The descriptor below."""
        return self._below.fileno()

    def isatty(self) -> bool:
        """Whether this is a terminal."""
        return self._below.isatty()


def prepare() -> None:
    """Make both streams tolerant, and open the null device in the place of closed ones.

    Otherwise the next file that is opened would take the place of a closed stream.
    """
    if os.name == "posix":
        for number in (0, 1, 2):
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
    sys.stdout = _tolerant(sys.stdout)
    sys.stderr = _tolerant(sys.stderr)


def _tolerant(stream: TextIO | None) -> TextIO:
    """Make a stream tolerant; one that is not a file, such as a notebook's, is returned as is."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if not isinstance(raw, io.RawIOBase) or isinstance(raw, Tolerant):
        stream.reconfigure(errors="backslashreplace")
        return stream
    stream.flush()
    below: Any = Tolerant(raw)
    return io.TextIOWrapper(
        below if raw is buffer else io.BufferedWriter(below),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def lost(stream: TextIO) -> str:
    """Why some of the output was lost; "" if nothing was, or if its reader went away."""
    stream.flush()
    buffer = getattr(stream, "buffer", None)
    error = getattr(getattr(buffer, "raw", buffer), "error", None)
    closed = error is not None and error.errno in (errno.EPIPE, errno.EINVAL)
    return "" if error is None or closed else error.strerror
