"""Run folders in, figures out: nothing here knows a network, so any recorded run can be drawn anywhere."""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minires.errors import InputError
from minires.lab.checkpoint import read_lines
from minires.lab.config import read_record
from minires.lab.text import columns

FAMILIES = {"plain": "Reds", "resnet": "Blues"}  # the colours of the paper's figures 1 and 6, kept across the lessons
STYLE: Any = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "minires"}


@dataclass(frozen=True)
class Run:
    """What a run folder says: its recipe, its data, its training and evaluation lines."""

    folder: Path
    config: dict[str, Any]
    data: dict[str, Any]
    train: list[dict[str, Any]]
    evals: list[dict[str, Any]]

    @property
    def net(self) -> str:
        """Such as "plain20"."""
        return str(self.config["net"])

    @property
    def family(self) -> str:
        """Either "plain" or "resnet"."""
        return "plain" if self.net.startswith("plain") else "resnet"

    @property
    def depth(self) -> int:
        """Weighted layers."""
        return int(re.findall(r"\d+", self.net)[0])

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
    train, evals = ([m for m in lines if m["kind"] == kind] for kind in ("train", "eval"))
    return Run(folder, record["config"], record["data"], train, evals)


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """Runs in these folders, or one level below them, with something to draw.

    Raises
    ------
    InputError
        If there is none.
    """
    folders: list[Path] = []
    for path in paths:
        own = (path / "config.json").exists()
        folders += [path] if own else sorted(p.parent for p in path.glob("*/config.json"))
    runs = [run for run in map(read_run, folders) if run.train]
    if not runs:
        names = ", ".join(map(str, paths))
        raise InputError(f"no run in {names}: expected folders with config.json and metrics.jsonl; train one first")
    return sorted(runs, key=lambda r: (r.family, r.depth, r.net, r.config["seed"]))


def by_net(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of the same network together, seeds as they come."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.net].append(run)
    return groups


def final(runs: Sequence[Run], which: str) -> np.ndarray:
    """Error in percent at the last evaluation, one for each run that has one; `which` is "train" or "test"."""
    return np.array([100 * run.evals[-1][f"{which}_error"] for run in runs if run.evals])


def draw_errors(runs: Sequence[Run], path: Path) -> None:
    """Error against iterations, plain nets on the left, residual on the right, in the style of the paper's figure 6.

    Thin: the running error of training batches; dashed and marked: training error in evaluation mode on fixed images;
    solid and marked: test error. With several seeds, the mean, and a band from the smallest to the largest.

    Parameters
    ----------
    runs : list of Run
    path : Path
        Its ending chooses the format: .png, .svg, .pdf.
    """
    families = [f for f in FAMILIES if any(run.family == f for run in runs)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 4.9 * len(families), 5.0), layout="constrained")
        panels = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
        for family, axes in zip(families, panels, strict=True):
            groups = by_net([run for run in runs if run.family == family])
            shades = mpl.colormaps[FAMILIES[family]](np.linspace(0.5, 0.95, len(groups)))
            for i, (net, group) in enumerate(groups.items()):
                _draw_net(axes, net, group, shades[i], width=1.2 + 0.9 * i)
            axes.set_title({"plain": "plain nets", "resnet": "residual nets"}[family])
            axes.set_xlabel("iteration")
            axes.set_xlim(0, max(run.config["iterations"] for run in runs))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylim(bottom=0, top=100)
            axes.grid(axis="y", alpha=0.25)
            lowest = min(100 * m["error"] for run in runs for m in run.train)
            place = "lower left" if lowest > 30 else "upper right"  # the corner that curves leave free
            axes.legend(loc=place, fontsize=9, framealpha=0.8, ncols=2 if len(groups) > 2 else 1)
        panels[0].set_ylabel("error (%)")
        figure.suptitle("\n".join(textwrap.wrap(message(runs), 48 * len(families))), fontsize=12)
        figure.text(0.995, 0.005, _caption(runs), ha="right", va="bottom", fontsize=7, color="0.4")
        figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))  # type: ignore[union-attr, call-arg]
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_net(axes: Axes, net: str, group: Sequence[Run], colour: Any, width: float) -> None:
    iteration, errors = _common(group, "train", "error")
    smooth = np.apply_along_axis(_running_mean, 1, errors, max(1, errors.shape[1] // 25))
    axes.plot(iteration, smooth.mean(axis=0), color=colour, lw=0.7 * width, alpha=0.55)
    if len(group) > 1:
        axes.fill_between(iteration, smooth.min(axis=0), smooth.max(axis=0), color=colour, alpha=0.15, lw=0)
    for which, style, marker in (("train", "--", "o"), ("test", "-", "s")):
        iteration, errors = _common(group, "evals", f"{which}_error")
        if len(iteration):
            seeds = f", {len(group)} seeds" if len(group) > 1 else ""
            last = errors[:, -1].mean()
            label = f"{net} {which} {last:.1f} %{seeds}"
            mean = errors.mean(axis=0)
            axes.plot(iteration, mean, style, marker=marker, ms=4, color=colour, lw=width, label=label, clip_on=False)
            if len(group) > 1:
                axes.fill_between(iteration, errors.min(axis=0), errors.max(axis=0), color=colour, alpha=0.15, lw=0)


def _common(group: Sequence[Run], lines: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations that all runs of a group have reached, and `key` there in percent: (steps,), (runs, steps)."""
    tables = [{m["iteration"]: 100 * m[key] for m in getattr(run, lines)} for run in group]
    shared = sorted(set.intersection(*(set(t) for t in tables)))
    return np.array(shared), np.array([[t[i] for i in shared] for t in tables]).reshape(len(group), len(shared))


def _running_mean(values: np.ndarray, steps: int) -> np.ndarray:
    """Mean over the last `steps` values, fewer at the beginning."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - steps, 0)
    return (sums[end] - sums[start]) / (end - start)


def message(runs: Sequence[Run]) -> str:
    """What the figure shows, in one sentence with its numbers, or that the differences are within the noise."""
    groups = by_net([run for run in runs if run.evals])
    depths = {f: sorted((g[0].depth, net) for net, g in groups.items() if g[0].family == f) for f in FAMILIES}
    pairs = [(found[-1][1], found[0][1]) for found in depths.values() if len({depth for depth, _ in found}) > 1]
    twins = [(r, p) for d, p in depths["plain"] for e, r in depths["resnet"] if d == e]
    parts = [_compare(groups[a], groups[b]) for a, b in pairs + twins[-1:]]
    return "Training error: " + "; ".join(parts) if parts else "Error by iteration"


def _compare(a: Sequence[Run], b: Sequence[Run]) -> str:
    """Difference of two nets' final training errors, against twice its sampling error (binomial, all seeds' images)."""
    p, q = (final(runs, "train").mean() / 100 for runs in (a, b))
    images = [sum(run.config["eval_images"] for run in runs) for runs in (a, b)]
    noise = 2 * np.sqrt(p * (1 - p) / images[0] + q * (1 - q) / images[1])
    if abs(p - q) < noise:
        return f"{a[0].net} and {b[0].net} alike (within {100 * noise:.1f} points of noise)"
    return f"{a[0].net} {100 * abs(p - q):.1f} points {'above' if p > q else 'below'} {b[0].net}"


def _caption(runs: Sequence[Run]) -> str:
    def each(key: str) -> str:
        return " / ".join(dict.fromkeys(str(r.config[key]) for r in runs))

    data = " / ".join(dict.fromkeys(r.data["name"] for r in runs))
    return (
        f"{data}, {each('iterations')} iterations, batch {each('batch_size')}, lr {each('lr')}; errors in evaluation "
        f"mode on {each('eval_images')} images (train dashed, test solid); thin: training batches"
    )


def table(runs: Sequence[Run]) -> str:
    """Training and test error at the end, a line for each network: mean, and the range over seeds."""
    lines = [["net", "seeds", "iterations", "train error %", "test error %", "minutes"]]
    for net, group in by_net([run for run in runs if run.evals]).items():
        cells = []
        for which in ("train", "test"):
            e = final(group, which)
            cells.append(f"{e.mean():.1f}" + (f" ({e.min():.1f} to {e.max():.1f})" if len(e) > 1 else ""))
        minutes = float(np.mean([run.evals[-1]["seconds"] for run in group])) / 60
        reached = min(run.evals[-1]["iteration"] for run in group)
        lines.append([net, str(len(group)), str(reached), *cells, f"{minutes:.1f}"])
    return columns(lines, left=1)


def save_sheet(sheet: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Write a contact sheet with the name of each class above its column.

    Parameters
    ----------
    sheet : ndarray of shape (H, W, 3), uint8
    classes : list of str
    path : Path
    """
    with mpl.rc_context(STYLE):
        H, W, _ = sheet.shape
        figure = Figure(figsize=(W / 40, H / 40 + 0.3), layout="constrained")
        axes = figure.subplots()
        axes.imshow(sheet, interpolation="nearest")
        axes.set_xticks((np.arange(len(classes)) + 0.5) * W / len(classes), classes)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, labelsize=9)
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_visible(False)
        figure.savefig(path, dpi=110)
