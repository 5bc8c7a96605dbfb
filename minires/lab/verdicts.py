"""Verdicts on claims: how runs are grouped for them, and the file that keeps computed ones."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from minires.errors import InputError
from minires.lab.presets import TIERS, Tier, tier_name
from minires.runs.files import make_folder, write_whole
from minires.runs.metric import Metric
from minires.runs.run import Run
from minires.text import plural

FILE = "claims.json"
Recorded = dict[str, dict[str, "Verdict"]]


@dataclass(frozen=True)
class Verdict:
    """Whether a claim held, None where it was not measured, and the numbers behind that."""

    held: bool | None
    numbers: str

    def __str__(self) -> str:
        return {True: "held", False: "NOT HELD", None: "not measured"}[self.held]


@dataclass(frozen=True)
class Group:
    """Runs that are judged together, and the folder of their images if it is known.

    They have the same data, preset, size, evaluation and metric, see `groups`.
    """

    runs: list[Run]
    data_folder: Path | None = None

    @property
    def metric(self) -> Metric:
        """The metric of these runs."""
        return self.runs[0].metric

    @property
    def tier(self) -> Tier | None:
        """Preset of these runs, if they have its size and recipe."""
        name = tier_name(self.runs[0])
        return TIERS[name] if name else None

    def finished(self, net: str) -> dict[int, Run]:
        """Finished runs of a net by their seeds."""
        return {run.config["seed"]: run for run in self.runs if run.net == net and run.done}

    def trained_twice(self) -> str:
        """Two runs of the same net and seed in words; empty if there are none."""
        folders: dict[tuple[str, int], Path] = {}
        for run in self.runs:
            seed = run.config["seed"]
            other = folders.setdefault((run.net, seed), run.folder)
            if other != run.folder:
                return f"{run.net} with seed {seed} is in {other.name} and in {run.folder.name}"
        return ""


def groups(runs: Sequence[Run]) -> list[tuple[str, Path | None, list[Run]]]:
    """Group runs that can be judged together.

    Returns
    -------
    groups : list of (title, folder, runs)
        `folder` is that of the experiment where a net was trained twice with the same seed, so
        that each experiment is a group of its own, else None.
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
    """Key of the runs that are judged together."""
    settings = ("iterations", "batch_size", "lr", "eval_images", "bn_images")
    values = (run.config[key] for key in settings)
    return run.data["name"], run.data["sha256"], tier_name(run), *values, run.metric


def _title(members: Sequence[Run]) -> str:
    run = members[0]
    seeds = len({run.config["seed"] for run in members})
    steps = "{iterations} iterations of {batch_size} images at lr {lr}".format(**run.config)
    counted = f"{seeds} seed{'s' if seeds > 1 else ''}"
    return f"{run.data['name']}, {tier_name(run) or 'custom size'}: {steps}, {counted}"


def _evaluation(run: Run) -> str:
    """End of a title that tells groups apart by how they were evaluated."""
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
            title: {key: Verdict(**v) for key, v in verdicts.items()}
            for title, verdicts in found.items()
        }
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, TypeError, AttributeError, UnicodeDecodeError) as e:
        raise InputError(
            f"{folder / FILE} is damaged ({e}); remove it, and minires claims writes a new one"
        ) from e


def write_verdicts(folder: Path, known: Mapping[str, Mapping[str, Verdict]]) -> None:
    """Write what `read_verdicts` reads."""
    values = {
        title: {key: asdict(verdict) for key, verdict in verdicts.items()}
        for title, verdicts in known.items()
    }
    make_folder(folder)
    write_whole(folder / FILE, (json.dumps(values, indent=2) + "\n").encode())
