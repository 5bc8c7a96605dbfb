"""Checkpoints and metrics that the leases of a sweep have left in a run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.runs import checkpoint, lease, metrics_file


def adopt(folder: Path, state: Path) -> None:
    """Copy the latest whole checkpoint of a run, with its metrics.

    All checkpoints in the folder are of the same run, so any of them would lead to the same bits.

    Parameters
    ----------
    folder : Path
        The run folder.
    state : Path
        Receives the copies. Its own checkpoint is left as it is if no other one is later.

    Raises
    ------
    InputError
        If the latest checkpoint cannot be read at the moment, or the copy cannot be written.
    """
    own = _position(state)
    found = {path: _position(path) for path in (folder, *lease.states(folder)) if path != state}
    for path in sorted(found, key=lambda path: found[path], reverse=True):
        if found[path] > own and (whole := _load(path)):
            metrics_file.copy(path, state)
            return checkpoint.save(state, *whole)
    if own < 0 and state != folder:
        metrics_file.copy(folder, state)
    return None


def collect(folder: Path, generation: int) -> None:
    """Move the latest checkpoint and metrics to the run folder itself.

    `generation` is that of the last lease, which nobody holds.
    """
    adopt(folder, folder)
    lease.remove_states(folder, generation)


def _position(folder: Path) -> int:
    """Iteration of the latest checkpoint, -1 if there is none, or it is damaged."""
    with _unless_unreadable():
        found = checkpoint.position(folder)
        return -1 if found is None else found
    return -1


def _load(folder: Path) -> tuple[dict[str, checkpoint.Array], dict[str, Any]] | None:
    """The latest whole checkpoint, None if there is none, or it has been removed meanwhile."""
    with _unless_unreadable():
        return checkpoint.load(folder)
    return None


@contextlib.contextmanager
def _unless_unreadable() -> Iterator[None]:
    """Pass over a damaged checkpoint, and no other: one that cannot be read now may be whole."""
    try:
        yield
    except checkpoint.UnreadableError as e:
        if not isinstance(e.__cause__, FileNotFoundError):
            raise
    except InputError:
        pass
