"""Results of the race and of the ablations, read from their runs: ratios, tables and sentences.

Nothing here trains, so any recorded race can be read anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minires.lab.race.arms import ABLATIONS, ARMS, BASELINE
from minires.lab.recorded import final
from minires.runs.run import Run, read_run, run_folders
from minires.text import columns, plural, sentence_case


@dataclass(frozen=True)
class Lane:
    """The runs of one arm of the race.

    Attributes
    ----------
    arm : str
        Its key in `ARMS`.
    rates : dict of float to Run
        The runs with seed 0, by learning rate.
    best : float
        The rate whose run reached the target first, see `best_rate`.
    seeds : dict of int to Run
        The runs at the best rate, by seed.
    """

    arm: str
    rates: dict[float, Run]
    best: float
    seeds: dict[int, Run]

    @property
    def title(self) -> str:
        """The arm as tables and figures name it."""
        return ARMS[self.arm].title

    @property
    def edge(self) -> str:
        """The side of the tried rates at which the best one lies, "lowest" or "highest"; or ""."""
        if self.best == min(self.rates):
            return "lowest"
        return "highest" if self.best == max(self.rates) else ""


@dataclass(frozen=True)
class Ratio:
    """Iterations of one arm divided by those of its rival, for each seed that both ran.

    Attributes
    ----------
    arm : str
    values : tuple of float
    least : bool
        Some run of the arm missed the target, so that the values of its seeds are lower bounds.
    """

    arm: str
    values: tuple[float, ...]
    least: bool

    def __str__(self) -> str:
        more = "more than " if self.least else ""
        mean = f"{more}{np.mean(self.values):.1f}"
        if len(self.values) == 1:
            return f"{mean} times"
        return f"{mean} times ({min(self.values):.1f} to {max(self.values):.1f})"


def iterations(run: Run) -> float:
    """Iterations to the target; infinite for a run that missed it or diverged."""
    return math.inf if run.reached is None else run.reached


def in_words(run: Run) -> str:
    """The result of a run: "450", "> 5,000", or "diverged" for a run that did not end."""
    if run.reached is not None:
        return f"{run.reached:,}"
    return f"> {run.config['iterations']:,}" if run.done else "diverged"


def best_rate(tried: Sequence[Run]) -> float:
    """The rate with the fewest iterations to the target; if none got there, the lowest error."""

    def order(run: Run) -> tuple[float, float]:
        error = run.evals[-1][f"train_{run.metric.name}"] if run.done else math.inf
        return iterations(run), error

    return float(min(tried, key=order).config["lr"])


def read(paths: Sequence[Path]) -> tuple[list[Lane], dict[str, list[Run]]]:
    """Lanes of the race, and runs of the ablations by name, in these folders.

    A run belongs to the race if its recipe has a target. Runs without any measurement count: they
    diverged at once.
    """
    runs = [read_run(folder) for folder in run_folders(paths)]
    lanes = []
    for arm, entered in ARMS.items():
        own = [run for run in runs if run.net == entered.net and run.config["until"] is not None]
        rates = {run.config["lr"]: run for run in own if run.config["seed"] == 0}
        if rates:
            best = best_rate(list(rates.values()))
            seeds = {run.config["seed"]: run for run in own if run.config["lr"] == best}
            lanes.append(Lane(arm, dict(sorted(rates.items())), best, dict(sorted(seeds.items()))))
    ablated = {
        name: [
            run
            for run in runs
            if run.config["until"] is None
            and (run.net, run.config["pca_colour"]) == (changed.net, changed.pca_colour)
        ]
        for name, changed in ABLATIONS.items()
    }
    return lanes, {name: group for name, group in ablated.items() if group}


def ratio(lanes: Sequence[Lane], arm: str) -> Ratio | None:
    """Ratio of an arm to its rival, None if either did not run or the rival missed the target."""
    by_arm = {lane.arm: lane for lane in lanes}
    rival = ARMS[arm].rival
    if arm not in by_arm or rival not in by_arm:
        return None
    slow, fast = by_arm[arm].seeds, by_arm[rival].seeds
    shared = [seed for seed in slow if seed in fast and fast[seed].reached is not None]
    if not shared:
        return None
    missed = [seed for seed in shared if slow[seed].reached is None]
    counts = [slow[s].config["iterations"] if s in missed else iterations(slow[s]) for s in shared]
    values = tuple(count / iterations(fast[s]) for count, s in zip(counts, shared, strict=True))
    return Ratio(arm, values, bool(missed))


# ------------------------------------------------------------------------------ tables, sentences


def edge_warnings(lanes: Sequence[Lane]) -> list[str]:
    """A sentence for each arm whose best rate was not bracketed by the rates that were tried."""
    return [
        f"WARNING: the best rate of {lane.title}, {lane.best:g}, is the {lane.edge} of those "
        "tried. A better one may lie beyond it, so its result is not the arm's best."
        for lane in lanes
        if lane.edge
    ]


def message(lanes: Sequence[Lane]) -> str:
    """The message of the race in one sentence: each ratio with its spread over the seeds."""
    parts = []
    for lane in lanes:
        found = ratio(lanes, lane.arm)
        if found:
            given = "with" if ARMS[lane.arm].rival == "relu-bn" else "without"
            parts.append(f"{found} the iterations of ReLU {given} batch norm")
    if parts:
        return f"Tanh needs {', '.join(parts)}"
    reached = [f"{lane.title} {in_words(next(iter(lane.seeds.values())))}" for lane in lanes]
    return f"Iterations to the target: {', '.join(reached)}"


@dataclass(frozen=True)
class Change:
    """Difference of an ablation to the baseline in percentage points, seed by seed.

    `clear` is true if all seeds differ in the same direction.
    """

    values: np.ndarray

    @property
    def clear(self) -> bool:
        """Whether all seeds agree on the sign."""
        return bool((self.values > 0).all() or (self.values < 0).all())

    def __str__(self) -> str:
        mean = f"{self.values.mean():+.1f}"
        if len(self.values) == 1:
            return mean
        return f"{mean} ({self.values.min():+.1f} to {self.values.max():+.1f})"


def change(groups: Mapping[str, Sequence[Run]], name: str, which: str) -> Change | None:
    """Final training or test error of an ablation minus that of the baseline with the same seed."""
    ended = {
        key: {run.config["seed"]: final([run], which)[0] for run in groups.get(key, []) if run.done}
        for key in (name, BASELINE)
    }
    shared = sorted(ended[name].keys() & ended[BASELINE].keys())
    if not shared:
        return None
    return Change(np.array([ended[name][seed] - ended[BASELINE][seed] for seed in shared]))


def ablation_table(groups: Mapping[str, Sequence[Run]]) -> list[list[str]]:
    """Head, and a line for each ablation: final errors in percent, and points from the baseline."""
    lines = [
        ["ablation", "seeds", "train error %", "test error %", "train, points", "test, points"]
    ]
    for name, runs in groups.items():
        ended = [run for run in runs if run.done]
        if not ended:
            continue
        means = [f"{final(ended, which).mean():.1f}" for which in ("train", "test")]
        changes = [change(groups, name, which) for which in ("train", "test")]
        words = ["", ""] if name == BASELINE else [str(c or "") for c in changes]
        lines.append([ABLATIONS[name].title, str(len(ended)), *means, *words])
    return lines


def ablation_message(groups: Mapping[str, Sequence[Run]]) -> str:
    """The ablations' message in one sentence: test errors that changed with every seed."""
    found = {name: change(groups, name, "test") for name in groups if name != BASELINE}
    known = {name: c for name, c in found.items() if c is not None}
    clear = [f"{ABLATIONS[n].title} {c.values.mean():+.1f}" for n, c in known.items() if c.clear]
    unclear = [ABLATIONS[n].title for n, c in known.items() if not c.clear]
    if not known:
        return "No ablation has been measured yet"
    seeds = max(len(c.values) for c in known.values())
    parts = [f"test error, points from the baseline: {', '.join(clear)}"] if clear else []
    if unclear:
        parts.append(f"no clear change in {seeds} {plural('seed')}: {', '.join(unclear)}")
    return "; ".join(parts)


def text(lanes: Sequence[Lane], groups: Mapping[str, Sequence[Run]]) -> str:
    """Tables, messages and warnings for the terminal."""
    parts = []
    if lanes:
        table = "\n".join(_lane_text(lane) for lane in lanes)
        parts += ["\n".join([table, "", f"{message(lanes)}.", *edge_warnings(lanes)])]
    if groups:
        said = sentence_case(ablation_message(groups))
        parts.append(f"{columns(ablation_table(groups), left=1)}\n\n{said}.")
    return "\n\n".join(parts)


def _lane_text(lane: Lane) -> str:
    """Two lines about an arm: its rates, and its seeds at the best one."""
    tried = ", ".join(f"{lr:g}: {in_words(run)}" for lr, run in lane.rates.items())
    ended = ", ".join(in_words(run) for run in lane.seeds.values())
    return f"{lane.title}\n  rates   {tried}\n  best    {lane.best:g}, by seed: {ended}"


def values(lanes: Sequence[Lane], groups: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """The same as plain values, for JSON; iterations are None for a target that was missed."""
    raced = {}
    for lane in lanes:
        found = ratio(lanes, lane.arm)
        raced[lane.arm] = {
            "iterations_by_rate": {f"{lr:g}": run.reached for lr, run in lane.rates.items()},
            "best_rate": lane.best,
            "at_the_edge": lane.edge or None,
            "iterations_by_seed": {seed: run.reached for seed, run in lane.seeds.items()},
            "times_its_rival": list(found.values) if found else None,
            "times_are_lower_bounds": found.least if found else None,
        }
    errors = {
        name: {which: final(runs, which).tolist() for which in ("train", "test")}
        for name, runs in groups.items()
    }
    return {"race": raced, "ablations_error_percent": errors}
