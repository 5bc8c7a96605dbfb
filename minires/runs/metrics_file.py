"""metrics.jsonl: what a run measured, a line for each measurement."""

from __future__ import annotations

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
    return [line for line in map(_parse, text.splitlines()) if _is_whole(line, metric)]


def _parse(line: str) -> Any:
    """What a line says; None if it is no JSON, nested too deeply, or holds a number too long."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_whole(line: Any, metric: Metric) -> bool:
    """Whether a line is a measurement of this task: of a known kind, with all of its numbers."""
    if not isinstance(line, dict) or line.get("kind") not in KINDS:
        return False
    if not _is_number(line.get("iteration")) or not isinstance(line["iteration"], int):
        return False
    values = [line.get(key) for key in _required(line["kind"], metric)]
    if line["kind"] != "layers":
        return all(map(_is_number, values))
    by_layer = [value.values() for value in values if isinstance(value, dict)]
    return len(by_layer) == len(values) and all(map(_is_number, itertools.chain(*by_layer)))


def _is_number(value: Any) -> bool:
    """Whether this is a number that float64 can hold; NaN is one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, float) or abs(value) < 2**63


def append(folder: Path, values: Mapping[str, Any]) -> None:
    """Append one line; a crash can only cut the last one, which `read` skips."""
    files.append_line(folder / NAME, values)


def sync(folder: Path) -> None:
    """Wait until all lines are on the disk."""
    files.sync(folder / NAME)


def truncate(folder: Path, iteration: int, metric: Metric, keep_copy: bool) -> None:
    """Drop the lines after `iteration`, which will be measured again.

    The file as it was is kept beside it if it has damaged lines other than the last one, which a
    crash may cut, and with `keep_copy`, for a run whose checkpoint is gone.
    """
    path = folder / NAME
    if not path.exists():
        return
    before = path.read_bytes()
    whole = read(folder, metric)
    damaged = len(before.decode("utf-8", "replace").splitlines()) > len(whole) + 1
    if (keep_copy and before) or damaged:
        names = (f"metrics.previous{number or ''}.jsonl" for number in itertools.count())
        copy = next(path for path in map(folder.joinpath, names) if not path.exists())
        files.write_whole(copy, before)
    kept = [line for line in whole if line["iteration"] <= iteration]
    files.write_whole(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
