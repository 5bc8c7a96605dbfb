"""The run folder of a process that holds it by a lease instead of a file lock."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.runs import checkpoint, files, metrics_file
from minires.runs.lease import Lease
from minires.runs.run_folder import Array, RunFolder


class LeasedFolder(RunFolder):
    """Metrics and checkpoints go to a folder of the lease; `Lease.release` publishes them.

    Parameters
    ----------
    lease : Lease
    """

    def __init__(self, lease: Lease) -> None:
        super().__init__(lease.folder)
        self.lease = lease
        self.state = lease.state

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder by the lease, and start from the latest checkpoint of any generation."""
        if not self.has_checkpoint():
            with files.writing(self.state):
                if self.state.exists():
                    shutil.rmtree(self.state)  # metrics without a checkpoint
            files.make_folder(self.state)
            self._adopt()
        yield

    def _adopt(self) -> None:
        """Copy the latest whole checkpoint, with its metrics.

        All of them are of the same run, so any would lead to the same bits.
        """
        folders = [self.path, *self.path.glob("generation-*")]
        found = {folder: _position(folder) for folder in folders if folder != self.state}
        for folder in sorted(found, key=lambda folder: found[folder], reverse=True):
            with contextlib.suppress(InputError):
                if whole := checkpoint.load(folder):
                    metrics_file.copy(folder, self.state)
                    return checkpoint.save(self.state, *whole)
        return metrics_file.copy(self.path, self.state)

    def append(self, values: Mapping[str, Any]) -> None:
        """Append one line to the metrics; a `LostLeaseError` if another process trains the run."""
        self.lease.check()
        super().append(values)

    def save(self, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
        """Write a checkpoint; a `LostLeaseError` if another process trains the run."""
        self.lease.check()
        super().save(arrays, meta)


def _position(folder: Path) -> int:
    """Iteration of the latest checkpoint, -1 if there is none that can be read."""
    with contextlib.suppress(InputError):
        found = checkpoint.position(folder)
        return -1 if found is None else found
    return -1
