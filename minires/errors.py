"""The exception for a user's mistake, and how paths are quoted in suggested commands.

The command line prints an `InputError` without a traceback and exits with 2.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path


class InputError(ValueError):
    """Bad input: the message says what was expected, what was given, and what to do."""


def quoted(path: Path | str) -> str:
    """A path as it can be pasted into a command of this system's shell.

    A name that begins like an option or a home folder gets a "./" in front.
    """
    text = str(path)
    if text.startswith(("-", "~")):
        text = os.path.join(".", text)
    if sys.platform == "win32":
        return _for_windows(text)
    return shlex.quote(text) if text.isprintable() else _with_escapes(text)


def _for_windows(text: str) -> str:
    """Quote all but plain names so that both cmd and PowerShell understand them.

    PowerShell replaces `$name` inside double quotes, so a path with a dollar sign gets single
    quotes, which cmd does not understand.
    """
    if re.fullmatch(r"[\w.:\\/+=-]+", text):
        return text
    if re.search(r"[$`]", text):
        return "'" + text.replace("'", "''") + "'"
    return f'"{text}"'


def _with_escapes(text: str) -> str:
    """A path with control characters or undecodable bytes, as bash and zsh read it: $'a\\nb'."""
    safe = re.compile(rb"[\w ./:,+=@%-]")
    parts = (
        bytes([byte]).decode() if safe.match(bytes([byte])) else f"\\x{byte:02x}"
        for byte in os.fsencode(text)
    )
    return f"$'{''.join(parts)}'"
