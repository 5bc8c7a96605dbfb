"""The run folder of a process that holds it by a lease instead of a file lock."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from minires.runs import files
from minires.runs.generations import adopt
from minires.runs.lease import Lease
from minires.runs.run_folder import Array, RunFolder


class LeasedFolder(RunFolder):
    """Metrics and checkpoints go to a folder of the lease; `Lease.publish` moves them on.

    Parameters
    ----------
    lease : Lease
    """

    def __init__(self, lease: Lease) -> None:
        super().__init__(lease.folder)
        self.lease = lease
        self.state = lease.state
        self.part = lease.part

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder by the lease, and start from the latest checkpoint of any generation."""
        self.lease.check()
        if not self.has_checkpoint():
            with files.writing(self.state):
                if self.state.exists():
                    shutil.rmtree(self.state)  # metrics without a checkpoint
            files.make_folder(self.state)
            adopt(self.path, self.state)
        yield

    def append(self, values: Mapping[str, Any]) -> None:
        """Append one line to the metrics; a `LostLeaseError` if another process trains the run."""
        self.lease.check()
        super().append(values)

    def save(self, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
        """Write a checkpoint; a `LostLeaseError` if another process trains the run."""
        self.lease.check()
        super().save(arrays, meta)
