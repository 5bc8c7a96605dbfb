"""A run folder: what is kept on disk of one training run."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minires.data import Dataset
from minires.errors import InputError
from minires.nets import registry
from minires.nets.network import Facts
from minires.runs import checkpoint, files
from minires.runs.config import Config, read_record
from minires.runs.files import _writing
from minires.runs.metric import ERROR, Metric
from minires.runs.provenance import provenance


def claim(config: Config, folder: Path, data: Dataset) -> None:
    """Write config.json, or make sure that the one there asks for the same run, if anything of a run is left.

    Raises
    ------
    InputError
        If the folder holds another run, or a checkpoint that nothing is known of, or the data have too few images.
    """
    needed, images = config.bn_images + config.eval_images, len(data.train_images)
    if needed > images or config.eval_images > len(data.test_images):
        raise InputError(
            f"evaluation needs {needed} training and {config.eval_images} test images, {data.name} has {images} and "
            f"{len(data.test_images)}; ask for fewer (--eval-images)"
        )
    path, wanted = folder / "config.json", config.to_json()
    found = read_record(folder) if path.exists() else None
    if not found and any(
        (folder / name).exists() for name in (checkpoint.NAME, checkpoint.PREVIOUS)
    ):
        raise InputError(
            f"{folder} has a checkpoint but no config.json; put it back, or choose another --out"
        )
    there, here = found and (found["config"], found["data"]["sha256"]), (wanted, data.sha256)
    if not found or (
        there != here and not position(folder) and not read_run(folder).evals
    ):  # nothing was saved yet
        source = Path(data.source).name  # a record is to be shared: it names no path of a machine
        record = {
            "config": wanted,
            "data": {"name": data.name, "source": source, "sha256": data.sha256},
            "provenance": provenance(),
            "continued": [],
        }
        files.write_whole(path, (json.dumps(record, indent=2) + "\n").encode())
        return
    recipe = found["config"]
    differing = [
        f"{k} {recipe.get(k)} there, {v} asked for" for k, v in wanted.items() if recipe.get(k) != v
    ]
    if differing:
        raise InputError(
            f"{folder} holds another run: {'; '.join(differing)}. Choose another --out"
        )
    if found["data"]["sha256"] != data.sha256:
        raise InputError(
            f"{folder} was trained on other data: {found['data']['name']} with SHA-256 {found['data']['sha256'][:12]}, "
            f"now {data.sha256[:12]}; give the data it began with (--data), or choose another --out"
        )


def note_who_trains(folder: Path, iteration: int) -> None:
    """Say in config.json which commit, versions and machine train from here on, where they are not those so far.

    "provenance" is that of the first iteration; "continued" lists from which iteration another one took over.
    """
    record, here = read_record(folder), provenance()
    first = record.get("provenance", {}) if iteration else here
    parts = [part for part in record.get("continued", []) if part["iteration"] < iteration]
    if (parts[-1]["provenance"] if parts else first) != here:
        parts.append({"iteration": iteration, "provenance": here})
    noted = record | {"provenance": first, "continued": parts}
    if noted != record:
        files.write_whole(folder / "config.json", (json.dumps(noted, indent=2) + "\n").encode())


def position(folder: Path) -> int:
    """Iterations that a run has behind it: by its checkpoint, or all of them if it was finished and has none."""
    found = checkpoint.load(folder)
    if found:
        return int(found[1]["iteration"])
    run = read_run(folder)
    return int(run.config["iterations"]) if run.done else 0


MEASURED = {
    "train": ("error", "lr", "seconds"),
    "eval": ("train_error", "test_error", "seconds"),
    "layers": ("gradient_norm", "weight_norm", "response_std"),
}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a metrics.jsonl, none if there is no file; what is damaged or no such line is passed over.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as e:
        raise InputError(
            f"{path} cannot be read: {e.strerror or e}; it should be the file of a run's metrics"
        ) from e
    lines = []
    for line in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError, TypeError, KeyError):
            found = json.loads(line)
            kind = dict if found["kind"] == "layers" else (int, float)
            whole = all(isinstance(found[key], kind) for key in MEASURED[found["kind"]])
            if whole and isinstance(found["iteration"], int):
                lines.append(found)
    return lines


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the system lets go when the process ends, however it ends.

    Raises
    ------
    InputError
        If another process holds it.
    """
    path = folder / ".lock"
    with _writing(path):
        f = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
    with f:
        try:
            _lock(f.fileno())
        except OSError as e:
            if e.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise InputError(
                    f"{folder} cannot be locked ({e.strerror}); choose an --out on a local disk"
                ) from e
            f.seek(0)
            raise InputError(
                f"{folder} is in use by process {f.read().strip() or 'unknown'}; let it finish, or choose another --out"
            ) from e
        f.truncate(0)
        f.write(str(os.getpid()))
        f.flush()
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        os.lseek(handle, 1 << 20, os.SEEK_SET)  # beyond the process number, which others may read
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@dataclass(frozen=True)
class Run:
    """What a run folder says: recipe, network, data, provenance, and what was measured.

    Attributes
    ----------
    folder : Path
    config : dict
        The recipe, see `Config`.
    facts : Facts
        Of the network.
    metric : Metric
        The task's main metric: what tables, figures and messages are about.
    data, provenance : dict
    continued : list of dict
        By "iteration", from where on something other than `provenance` trained it.
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
        """Whether the last evaluation is that of the last iteration."""
        return bool(self.evals) and self.evals[-1]["iteration"] == self.config["iterations"]


def read_run(folder: Path) -> Run:
    """Read one run folder.

    Raises
    ------
    InputError
        If it is none.
    """
    record, lines = read_record(folder), read_lines(folder / "metrics.jsonl")
    origin = record.get("provenance", {}), record.get("continued", [])
    kinds = ([m for m in lines if m["kind"] == kind] for kind in ("train", "eval", "layers"))
    facts = registry.facts(record["config"]["net"])
    return Run(folder, record["config"], facts, ERROR, record["data"], *origin, *kinds)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Folders of runs, begun or waiting, among these folders and one level below them.

    Raises
    ------
    InputError
        If one of these folders does not exist.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise _no_run(missing)
    folders: dict[Path, Path] = {}
    for path in paths:
        own = (path / "config.json").exists()
        found = [path] if own else sorted(p.parent for p in path.glob("*/config.json"))
        folders |= {folder.resolve(): folder for folder in found}  # a folder given twice is one run
    return list(folders.values())


def trained_folders(paths: Sequence[Path]) -> list[Path]:
    """Folders of runs that have weights; all of them if none has, for then it is to be said which.

    Raises
    ------
    InputError
        If there is no run.
    """
    folders = run_folders(paths)
    if not folders:
        raise _no_run(paths)
    return [folder for folder in folders if any(folder.glob("*.safetensors"))] or folders


def _no_run(paths: Sequence[Path]) -> InputError:
    names = ", ".join(map(str, paths))
    return InputError(
        f"no run in {names}: expected folders with config.json and metrics.jsonl; train one first"
    )
