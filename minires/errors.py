"""The exception for a user's mistake, and how paths are written in the commands that we advise.

The command line prints an `InputError` without a traceback and exits with 2.
"""

from pathlib import Path


class InputError(ValueError):
    """Bad input: the message says what was expected, what was given, and what to do."""


def quoted(path: Path) -> str:
    """A path as it is typed in a command, on any system."""
    return f'"{path}"' if " " in str(path) else str(path)
