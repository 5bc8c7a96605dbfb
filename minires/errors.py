"""The one exception for a user's mistake: the front door prints it without a traceback and exits with 2.

And how a path is written in the commands that messages advise.
"""

from pathlib import Path


class InputError(ValueError):
    """Bad input: the message says what was expected, what came, and what to do."""


def quoted(path: Path) -> str:
    """A path as it is typed in a command, on any system."""
    return f'"{path}"' if " " in str(path) else str(path)
