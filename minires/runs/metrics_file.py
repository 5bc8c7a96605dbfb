"""metrics.jsonl: what a run measured, a line for each measurement."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.runs import files
from minires.runs.metric import ERROR, Metric

NAME = "metrics.jsonl"
KINDS = ("train", "eval", "layers")


def _required(kind: str, metric: Metric) -> tuple[str, ...]:
    """Keys without which a line of this kind is no measurement."""
    return {
        "train": (metric.name, "lr", "seconds"),
        "eval": (f"train_{metric.name}", f"test_{metric.name}", "seconds"),
        "layers": ("gradient_norm", "weight_norm", "response_std"),
    }[kind]


def read(folder: Path, metric: Metric = ERROR) -> list[dict[str, Any]]:
    """Whole lines of a run's metrics, none if there is no file; damaged lines are skipped.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    path = folder / NAME
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
            keys = _required(found["kind"], metric)
            whole = all(isinstance(found[key], kind) for key in keys)
            if whole and isinstance(found["iteration"], int):
                lines.append(found)
    return lines


def append(folder: Path, values: Mapping[str, Any]) -> None:
    """Append one line; a crash can only cut the last one, which `read` skips."""
    files.append_line(folder / NAME, values)


def sync(folder: Path) -> None:
    """Wait until all lines are on the disk."""
    files.sync(folder / NAME)


def truncate(folder: Path, iteration: int, metric: Metric, keep_copy: bool) -> None:
    """Drop the lines after `iteration`, which will be measured again.

    With `keep_copy`, for a run whose checkpoint is gone, the file as it was is kept beside it.
    """
    path = folder / NAME
    if not path.exists():
        return
    if keep_copy and path.stat().st_size:
        names = (f"metrics.previous{number or ''}.jsonl" for number in itertools.count())
        copy = next(path for path in map(folder.joinpath, names) if not path.exists())
        files.write_whole(copy, path.read_bytes())
    kept = [line for line in read(folder, metric) if line["iteration"] <= iteration]
    files.write_whole(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
