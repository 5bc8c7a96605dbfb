"""Recorded runs as figures, claims and reports read them, and the search for runs in folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.nets.network import Facts
from minires.runs import metrics_file
from minires.runs.lease import live
from minires.runs.metric import Metric
from minires.runs.record import NAME, read_record

WEIGHTS = "*.safetensors"


@dataclass(frozen=True)
class Run:
    """The content of a run folder: recipe, network, data, provenance and measurements.

    Attributes
    ----------
    folder : Path
    config : dict
        The recipe, see `Config`.
    facts : Facts
        The facts of the network.
    metric : Metric
        The task's main metric, which tables, figures and messages show.
    data, provenance : dict
    continued : list of dict
        Changes of provenance: each entry's "provenance" applies from its "iteration" on.
    train, evals, layers : list of dict
        The lines of metrics.jsonl by kind.
    """

    folder: Path
    config: dict[str, Any]
    facts: Facts
    metric: Metric
    data: dict[str, Any]
    provenance: dict[str, Any]
    continued: list[dict[str, Any]]
    train: list[dict[str, Any]]
    evals: list[dict[str, Any]]
    layers: list[dict[str, Any]]

    @property
    def net(self) -> str:
        """The network's name, such as "plain20"."""
        return self.facts.name

    @property
    def family(self) -> str:
        """The network's family, such as "plain" or "resnet"."""
        return self.facts.family

    @property
    def kind(self) -> str:
        """The name without its depth: "plain", "resnet", "resnetB"."""
        return self.facts.kind

    @property
    def depth(self) -> int:
        """Weighted layers."""
        return self.facts.depth

    @property
    def done(self) -> bool:
        """Whether the last iteration was evaluated, or the target of the recipe was reached."""
        last = bool(self.evals) and self.evals[-1]["iteration"] == self.config["iterations"]
        return last or self.reached is not None

    @property
    def reached(self) -> int | None:
        """The iteration at which the main training metric reached `until`; None if it did not."""
        target, key = self.config.get("until"), f"train_{self.metric.name}"
        reaching = (line for line in self.evals if self.metric.reaches(line[key], target))
        return next((int(line["iteration"]) for line in reaching), None)


def read_run(folder: Path, note: bool = True, state: Path | None = None) -> Run:
    """Read a run folder.

    Parameters
    ----------
    folder : Path
    note : bool
        Warn if damaged lines of metrics are skipped.
    state : Path, optional
        The folder of its metrics; by default, the one that `minires.runs.lease.live` names.

    Raises
    ------
    InputError
        If the folder holds no run.
    """
    record = read_record(folder)
    last = record.config.iterations
    lines = metrics_file.read(state or live(folder), record.metrics[0], last, note)
    return Run(
        folder,
        record.config.to_json(),
        record.facts,
        record.metrics[0],
        record.data,
        record.provenance,
        record.continued,
        *([line for line in lines if line["kind"] == kind] for kind in metrics_file.KINDS),
    )


def has_ended(folder: Path) -> bool:
    """Whether a run is recorded to its end; False if there is none, or its record is damaged."""
    try:
        return read_run(folder, note=False).done
    except InputError:
        return False


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Folders of runs, with or without measurements, among these folders and one level below.

    Raises
    ------
    InputError
        If one of these folders does not exist.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise no_run(missing)
    folders: dict[Path, Path] = {}
    for path in paths:
        own = (path / NAME).exists()
        found = [path] if own else sorted(p.parent for p in path.glob(f"*/{NAME}"))
        folders |= {folder.resolve(): folder for folder in found}  # given twice, it is one run
    return list(folders.values())


def trained_folders(paths: Sequence[Path]) -> list[Path]:
    """Folders of runs that have weights; all run folders if none has, so that an error names them.

    Raises
    ------
    InputError
        If there is no run.
    """
    folders = run_folders(paths)
    if not folders:
        raise no_run(paths)
    return [f for f in folders if any({*f.glob(WEIGHTS), *live(f).glob(WEIGHTS)})] or folders


def no_run(paths: Sequence[Path]) -> InputError:
    """The error for folders without a run."""
    names = ", ".join(map(str, paths))
    return InputError(
        f"no run in {names}: expected folders with config.json and metrics.jsonl; train one first"
    )
