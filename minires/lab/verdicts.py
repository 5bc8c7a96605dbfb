"""Verdicts on claims: the groups of runs that they are about, and the file of computed ones."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.lab.presets import PRESETS, Preset, preset_name
from minires.runs.files import make_folder, write_whole
from minires.runs.metric import Metric
from minires.runs.run import Run
from minires.text import plural, shown

FILE = "claims.json"
LONGEST = 2000  # characters of a title or of numbers in the file
Recorded = dict[str, dict[str, "Verdict"]]


@dataclass(frozen=True)
class Verdict:
    """Whether a claim held, and the numbers that decided it.

    Attributes
    ----------
    held : bool or None
        None if it was not measured.
    numbers : str
    reason : str
        Why it was not measured.
    """

    held: bool | None
    numbers: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return {True: "held", False: "NOT HELD", None: "not measured"}[self.held]


@dataclass(frozen=True)
class Group:
    """Runs that are judged together, and the folder of their images if it is known.

    They have the same data, preset, size, evaluation and metric.
    """

    runs: list[Run]
    data_folder: Path | None = None

    @property
    def metric(self) -> Metric:
        """The metric of these runs."""
        return self.runs[0].metric

    @property
    def preset(self) -> Preset | None:
        """Preset of these runs, if they have its size and recipe."""
        name = preset_name(self.runs[0])
        return PRESETS[name] if name else None

    def finished(self, net: str) -> dict[int, Run]:
        """Finished runs of a net by their seeds."""
        return {run.config["seed"]: run for run in self.runs if run.net == net and run.done}

    def trained_twice(self) -> str:
        """Message about two runs of the same net and seed, "" if there are none."""
        folders: dict[tuple[str, int], Path] = {}
        for run in self.runs:
            seed = run.config["seed"]
            other = folders.setdefault((run.net, seed), run.folder)
            if other != run.folder:
                both = f"{shown(other.name)} and in {shown(run.folder.name)}"
                return f"{run.net} with seed {seed} is in {both}"
        return ""


def groups(runs: Sequence[Run]) -> list[tuple[str, Path | None, list[Run]]]:
    """Group runs that can be judged together.

    Returns
    -------
    groups : list of (title, folder, runs)
        `folder` is None, unless a net was trained twice with the same seed. Then each experiment
        is its own group, and `folder` is that of the experiment.
    """
    twice = len({(_size(run), run.net, run.config["seed"]) for run in runs}) < len(runs)
    found: dict[tuple[tuple, Path | None], list[Run]] = defaultdict(list)
    for run in runs:
        found[_size(run), run.folder.parent if twice else None].append(run)
    sizes: dict[str, set[tuple]] = defaultdict(set)
    for (size, _), members in found.items():
        sizes[_title(members)].add(size)
    titled = []
    for (_, folder), members in found.items():
        title = _title(members)
        if len(sizes[title]) > 1:
            title += _evaluation(members[0])
        titled.append((title, folder, members))
    return titled


def _size(run: Run) -> tuple:
    """Key that two runs share if they are judged together."""
    settings = ("iterations", "batch_size", "lr", "eval_images", "bn_images", "bn_average")
    values = (run.config[key] for key in settings)
    return run.data["name"], run.data["sha256"], preset_name(run), *values, run.metric


def _title(members: Sequence[Run]) -> str:
    run = members[0]
    seeds = len({run.config["seed"] for run in members})
    steps = "{iterations} iterations of {batch_size} images at lr {lr}".format(**run.config)
    counted = f"{seeds} seed{'s' if seeds > 1 else ''}"
    return f"{run.data['name']}, {preset_name(run) or 'custom size'}: {steps}, {counted}"


def _evaluation(run: Run) -> str:
    """End of a title, for groups that differ only in how they were evaluated."""
    images = f"{plural(run.metric.name)} on {run.config['eval_images']} images"
    statistics = f"statistics of {run.config['bn_images']}"
    return f", {images}, {statistics}, images {run.data['sha256'][:12]}"


def read_verdicts(folder: Path) -> Recorded:
    """Verdicts that earlier calls computed, by the title of the group and the key of the claim.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {
            shown(title, LONGEST): {key: _verdict(v) for key, v in verdicts.items()}
            for title, verdicts in found.items()
        }
    except FileNotFoundError:
        return {}
    except (AttributeError, OSError, RecursionError, TypeError, ValueError) as e:
        raise InputError(
            f"{shown(folder / FILE)} is damaged ({shown(e, 80)}); "
            "remove it, and minires claims --all writes a new one"
        ) from e


def _verdict(values: Any) -> Verdict:
    """A verdict from its JSON values; a TypeError if they are anything else."""
    held = values.get("held")
    numbers = values.get("numbers")
    if values.keys() != {"held", "numbers"} or not isinstance(numbers, str):
        raise TypeError("a verdict is not made of held and numbers")
    if held is not None and not isinstance(held, bool):
        raise TypeError("held is not true, false or null")
    return Verdict(held, shown(numbers, LONGEST))


def write_verdicts(folder: Path, known: Mapping[str, Mapping[str, Verdict]]) -> None:
    """Write the file that `read_verdicts` reads."""
    values = {
        title: {key: {"held": v.held, "numbers": v.numbers} for key, v in verdicts.items()}
        for title, verdicts in known.items()
    }
    make_folder(folder)
    write_whole(folder / FILE, (json.dumps(values, indent=2) + "\n").encode())


def text(verdicts: Mapping[str, Sequence[tuple[Any, Verdict]]]) -> str:
    """Claims and verdicts for the terminal; unmeasured claims with the same reason share a line."""
    lines = []
    for title, rows in verdicts.items():
        lines.append(f"Claims on {title}")
        reasons: dict[str, list[str]] = {}
        for claim, verdict in rows:
            head = f"  {f'({claim.key})':6}{verdict!s:13} "
            if verdict.held is not None:
                lines += [head + claim.sentence, f"{'':22}{verdict.numbers}"]
                continue
            if verdict.numbers:
                lines.append(head + verdict.numbers)
            reasons.setdefault(verdict.reason, []).append(f"({claim.key})")
        for reason, keys in reasons.items():
            lines.append(f"  not measured: {', '.join(keys)}: {reason}")
    return "\n".join(lines)
