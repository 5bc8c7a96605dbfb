"""Paths as users type them."""

from __future__ import annotations

from pathlib import Path

from minires.errors import InputError
from minires.text import shown


def expanded(path: Path | str) -> Path:
    """
    Replace "~" at the beginning of a path by the home folder.

    A shell does so itself, but not in `--data=~/x`, nor in a variable or in Python.

    Raises
    ------
    InputError
        If there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(
            f"{shown(path)}: there is no such home folder; give the whole path"
        ) from None
