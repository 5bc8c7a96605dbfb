"""metrics.jsonl: the measurements of a run, one on each line."""

from __future__ import annotations

import contextlib
import itertools
import json
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.runs import files
from minires.runs.metric import ERROR, Metric, is_number
from minires.text import shown

NAME = "metrics.jsonl"
KINDS = ("train", "eval", "layers")


def _required(kind: str, metric: Metric) -> tuple[str, ...]:
    """Keys that a line of this kind must have."""
    return {
        "train": (metric.name, "lr", "seconds"),
        "eval": (f"train_{metric.name}", f"test_{metric.name}", "seconds"),
        "layers": ("gradient_norm", "weight_norm", "response_std"),
    }[kind]


def read(
    folder: Path, metric: Metric = ERROR, last: int = 2**63 - 1, note: bool = False
) -> list[dict[str, Any]]:
    """Whole lines of a run's metrics in the order of their iterations; none if there is no file.

    Damaged lines are skipped: those that are not JSON, lack a number, hold something else where a
    number belongs, are of an iteration after `last`, or name other layers than most lines do.

    Parameters
    ----------
    folder : Path
    metric : Metric
        The main metric of the run.
    last : int
        The last iteration of the run.
    note : bool
        Warn if lines are skipped. A last line that a crash has cut is skipped without a warning.

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
            f"{shown(path)} cannot be read: {files.cause(e)}; it should be the file of a run's "
            f"metrics; {files.advice(e)}"
        ) from e
    found = text.splitlines()
    lines = [line for line in map(_parse, found) if _is_whole(line, metric, last)]
    lines = _with_the_same_layers(lines)
    damaged = len(found) - len(lines)
    if found and not text.endswith("\n"):
        damaged -= 1
    if note and damaged > 0:
        noun = "line" if damaged == 1 else "lines"
        warnings.warn(f"{shown(path)}: {damaged} damaged {noun} passed over", stacklevel=2)
    return sorted(lines, key=lambda line: line["iteration"])


def _parse(line: str) -> Any:
    """The value of a line, with its texts made safe to print; None if it is not JSON."""
    try:
        return files.escaped(files.parse_json(line))
    except ValueError:
        return None


def _is_whole(line: Any, metric: Metric, last: int) -> bool:
    """Whether a line is a measurement of this task: of a known kind, with all of its numbers."""
    if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
        return False
    if line["kind"] not in KINDS or type(line.get("iteration")) is not int:
        return False
    values = [line.get(key) for key in _required(line["kind"], metric)]
    if not 1 <= line["iteration"] <= last:
        return False
    if line["kind"] != "layers":
        return all(map(is_number, values))
    return _is_by_layer(values)


def _is_by_layer(values: list[Any]) -> bool:
    """Whether these are numbers by layer, with a gradient and a weight norm for each layer."""
    by_layer = [value for value in values if isinstance(value, dict)]
    if len(by_layer) < len(values) or not by_layer[0] or by_layer[0].keys() != by_layer[1].keys():
        return False
    return all(is_number(number) for value in by_layer for number in value.values())


def _with_the_same_layers(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the lines of kind "layers" that name other layers than most of them."""

    def names(line: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(line[key]) for key in ("gradient_norm", "response_std"))

    counted = Counter(names(line) for line in lines if line["kind"] == "layers")
    usual = max(counted, key=lambda key: (counted[key], key), default=())
    return [line for line in lines if line["kind"] != "layers" or names(line) == usual]


def append(folder: Path, values: Mapping[str, Any]) -> None:
    """Append one line. A crash can only cut the last one, and `read` skips that."""
    files.append_line(folder / NAME, values)


def sync(folder: Path) -> None:
    """Wait until all lines are on the disk."""
    files.sync(folder / NAME)


def copy(source: Path, target: Path) -> None:
    """Copy the metrics of one folder to another, if there are some."""
    content = b""
    with contextlib.suppress(FileNotFoundError), files.reading(source / NAME):
        content = (source / NAME).read_bytes()
    if content:
        files.write_whole(target / NAME, content)


def truncate(folder: Path, iteration: int, metric: Metric, keep_copy: bool) -> None:
    """Drop the lines after `iteration`: they will be measured again.

    The old file is kept beside the new one in two cases: with `keep_copy`, for a run whose
    checkpoint is gone, and if lines other than the last one are damaged.
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
