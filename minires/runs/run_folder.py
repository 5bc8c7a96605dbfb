"""A run folder: the only class that writes the record, the metrics and the checkpoint of a run.

config.json holds the recipe, metrics.jsonl the measurements, checkpoint.safetensors the state to
resume from. Each file is whole at every instant, and one process at a time holds the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from minires.errors import InputError
from minires.nets.network import Facts
from minires.runs import checkpoint, files, generations, lease, metrics_file, record
from minires.runs.config import Config
from minires.runs.metric import Metric
from minires.runs.provenance import provenance
from minires.runs.record import Record
from minires.runs.run import Run, read_run
from minires.text import shown

Array = np.ndarray


class RunFolder:
    """The folder of one run.

    Parameters
    ----------
    path : Path
        `locked` creates it if needed.

    Attributes
    ----------
    path : Path
    state : Path
        The folder of the metrics and the checkpoint: the same, except in a sweep.
    part : str
        Ending of files that are not whole yet.
    """

    part = "part"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = lease.live(path)

    def __str__(self) -> str:
        return shown(self.path)

    # ------------------------------------------------------------------------------ one process

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder. The system releases it when the process ends, for whatever reason.

        Raises
        ------
        InputError
            If another process holds it, it cannot be created or locked, or a sweep trains the run.
        """
        files.make_folder(self.path)
        leased = lease.seen(self.path)
        if not leased.free:
            raise InputError(
                f"{self} is leased to {leased.holder} of a sweep; let it finish, or give its "
                "command, minires sweep, again"
            )
        owner = self.path / ".owner"
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(
                f"{self} is in use by process {_read(owner) or 'unknown'}; "
                "let it finish, or choose another --out"
            ) from None
        except NotImplementedError as e:
            raise InputError(
                f"{self} cannot be locked ({shown(e)}); choose an --out on a local disk"
            ) from e
        except OSError as e:
            raise InputError(
                f"{self} cannot be locked ({files.cause(e)}); {files.advice(e)}, or an --out on a "
                "local disk"
            ) from e
        try:
            with contextlib.suppress(OSError):
                owner.write_text(str(os.getpid()), encoding="utf-8")
            generations.collect(self.path, leased.generation)
            self.state = self.path
            yield
        finally:
            with contextlib.suppress(OSError):
                owner.unlink()
            lock.release()

    # ---------------------------------------------------------------------------------- record

    def acquire(
        self,
        config: Config,
        facts: Facts,
        task_metrics: Sequence[Metric],
        data: Mapping[str, Any],
    ) -> Config:
        """Write config.json, or make sure that the one there asks for the same run.

        A record of another run is replaced if nothing of that run is left.

        Parameters
        ----------
        config : Config
        facts : Facts
        task_metrics : list of Metric
        data : dict
            "name", "source" and "sha256".

        Returns
        -------
        config : Config
            The recipe to train by. A run that an earlier version began goes on as it began, see
            `Config.as_begun`.

        Raises
        ------
        InputError
            If the folder holds another run, or a checkpoint without a record.
        """
        has_record = (self.path / record.NAME).exists()
        if not has_record and self.has_checkpoint():
            raise InputError(
                f"{self} has a checkpoint but no config.json; put it back, or choose another --out"
            )
        found = record.read_record(self.path) if has_record else None
        started = config.as_begun(found.config) if found else config
        same = found and found.config == started and found.data["sha256"] == data["sha256"]
        if found is None or not (same or self.has_checkpoint() or self.read().evals):
            wanted = Record(config, facts, tuple(task_metrics), dict(data), provenance(), [])
            self._write(wanted)
        elif not same:
            self._refuse(found, started, data)
        elif found.metrics != tuple(task_metrics):
            measured = ", ".join(metric.name for metric in found.metrics)
            raise InputError(
                f"{self} holds a run that measured {measured}, and the task {config.task!r} "
                "measures something else now; choose another --out"
            )
        return started if same else config

    def _refuse(self, found: Record, config: Config, data: Mapping[str, Any]) -> None:
        """Raise the error that names the settings that differ, or the other data."""
        differing = record.differences(found.config, config)
        if differing:
            raise InputError(
                f"{self} holds another run: {'; '.join(differing)}. Choose another --out"
            )
        raise InputError(
            f"{self} was trained on other data: {found.data['name']} with SHA-256 "
            f"{found.data['sha256'][:12]}, now {data['sha256'][:12]}; "
            "give the data it began with (--data), or choose another --out"
        )

    def note_who_trains(self, iteration: int) -> None:
        """Record the commit, versions and machine that train from here on, if they have changed.

        "provenance" is that of the first iteration. "continued" lists the later ones, each with
        the iteration at which it took over.
        """
        found = record.read_record(self.path)
        here = provenance()
        first = found.provenance if iteration else here
        parts = [part for part in found.continued if part["iteration"] < iteration]
        if (parts[-1]["provenance"] if parts else first) != here:
            parts.append({"iteration": iteration, "provenance": here})
        noted = replace(found, provenance=first, continued=parts)
        if noted != found:
            self._write(noted)

    def _write(self, wanted: Record) -> None:
        text = json.dumps(wanted.to_json(), indent=2) + "\n"
        files.write_whole(self.path / record.NAME, text.encode(), part=self.part)

    def read(self) -> Run:
        """Read the run; an `InputError` if the folder holds none."""
        return read_run(self.path, note=False, state=self.state)

    # ------------------------------------------------------------------ metrics and checkpoint

    def append(self, values: Mapping[str, Any]) -> None:
        """Append one line to the metrics."""
        metrics_file.append(self.state, values)

    def save(self, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
        """Write a checkpoint, once the metrics up to it are on the disk."""
        metrics_file.sync(self.state)
        checkpoint.save(self.state, arrays, meta)

    def drop_newer(self, iteration: int, metric: Metric, keep_copy: bool) -> None:
        """Drop metrics after `iteration`: they will be measured again.

        With `keep_copy`, for a run whose checkpoint is gone, they are first copied to another file.
        """
        metrics_file.truncate(self.state, iteration, metric, keep_copy)

    def load(self) -> tuple[dict[str, Array], dict[str, Any]] | None:
        """Return the latest whole checkpoint, None if there is none."""
        return checkpoint.load(self.state)

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint, whole or not."""
        return checkpoint.exists(self.state)

    def position(self) -> int:
        """Number of finished iterations, from the checkpoint, else from a finished run's metrics.

        The last iteration is done once its evaluation is recorded.
        """
        iteration = checkpoint.position(self.state)
        run = self.read()
        last = int(run.config["iterations"])
        if iteration is None:
            return int(run.evals[-1]["iteration"]) if run.done else 0
        return iteration if run.done else min(iteration, last - 1)

    def left(self) -> int:
        """Number of iterations that are left; 0 once the target of the recipe is reached."""
        run = self.read()
        position = self.position()
        if run.reached is not None and position >= run.reached:
            return 0
        return int(run.config["iterations"]) - position


class NoFolder(RunFolder):
    """The folder of a rank that writes nothing: rank 0 keeps the run for all of them."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold nothing."""
        yield

    def acquire(
        self,
        config: Config,
        facts: Facts,
        task_metrics: Sequence[Metric],
        data: Mapping[str, Any],
    ) -> Config:
        """Return the recipe as it is."""
        return config

    def note_who_trains(self, iteration: int) -> None:
        """Write nothing."""

    def append(self, values: Mapping[str, Any]) -> None:
        """Write nothing."""

    def save(self, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
        """Write nothing."""

    def load(self) -> None:
        """There is no checkpoint."""
        return

    def has_checkpoint(self) -> bool:
        """There is no checkpoint."""
        return False


def _read(path: Path) -> str:
    """Content of a small file, "" if it cannot be read."""
    try:
        return shown(path.read_text(encoding="utf-8", errors="replace").strip(), 20)
    except OSError:
        return ""
