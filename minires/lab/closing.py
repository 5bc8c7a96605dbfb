"""Closing words of the experiment: the result, its meaning, and the next step."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from minires.errors import quoted
from minires.lab import tables, wording
from minires.lab.presets import PRESETS
from minires.lab.recorded import by_net, final, noise
from minires.runs.run import Run

WIDTH = 79
LESSON = "lessons/05a_degradation.ipynb"
DEGRADATION = (
    "A deeper net can represent every shallower one: its additional layers may be identities. "
    "So a larger training error is a failure of training, not of the net."
)
NO_DEGRADATION = (
    "These runs do not show the degradation problem. It needs more iterations, deeper plain nets, "
    "or more evaluation images."
)
NO_PAIR = (
    "The degradation problem shows when a plain net is compared with a deeper one on the same "
    "images."
)


def closing_words(runs: Sequence[Run], folder: Path) -> str:
    """Three short paragraphs for the end of `minires degradation`.

    Parameters
    ----------
    runs : list of Run
        At least one.
    folder : Path
        Folder of the experiment, which the printed `minires report` command names.
    """
    result, meaning = _result(runs)
    paragraphs = [("Result", result), ("Meaning", meaning)]
    lines = [_wrapped(f"{head + ':':9}{words}") for head, words in paragraphs]
    report = f"minires report {quoted(folder)}"
    lines.append(f"{'Next:':9}{report}\n{'':9}Lesson 5a explains the experiment: {LESSON}")
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=" " * 9, break_long_words=False)


def _result(runs: Sequence[Run]) -> tuple[str, str]:
    """Result and meaning in words."""
    nets = [group for group in by_net(runs).values() if all(run.done for run in group)]
    plain = sorted((g for g in nets if g[0].family == "plain"), key=lambda g: g[0].depth)
    one_recipe = len({group[0].net for group in nets}) == len(nets)
    metric = runs[0].metric
    if len(plain) < 2 or not one_recipe or not metric.fraction or not metric.lower_is_better:
        return f"{tables.message(runs)}.", NO_PAIR
    deep, shallow = plain[-1], plain[0]
    gap, chance = _gap(deep, shallow)
    points = wording.difference(metric, abs(gap))
    side = "more" if gap > 0 else "less"
    difference = f"{points} {side} training {metric.name} than {shallow[0].net}"
    if gap > chance:
        return f"{deep[0].net} has {difference}.{_shortcuts(nets, deep)}", DEGRADATION
    unsure = f"chance alone explains {wording.difference(metric, chance)}"
    note = f"; {unsure}" if gap >= -chance else ""
    smallest = PRESETS["quick"].iterations
    short = max(run.config["iterations"] for run in runs) < smallest
    advice = f" The smallest preset has {smallest} iterations." if short else ""
    return f"{deep[0].net} has {difference}{note}.", NO_DEGRADATION + advice


def _gap(a: Sequence[Run], b: Sequence[Run]) -> tuple[float, float]:
    """How much worse `a` is than `b` in training, and the part of it that can be chance."""
    gap = float(final(a, "train").mean() - final(b, "train").mean())
    return gap, noise((a, "train"), (b, "train"))


def _shortcuts(nets: Sequence[Sequence[Run]], deep: Sequence[Run]) -> str:
    """Sentence about the residual twin of the deep plain net, "" if there is none."""
    twins = [g for g in nets if g[0].family == "resnet" and g[0].depth == deep[0].depth]
    if not twins:
        return ""
    gap, chance = _gap(deep, twins[0])
    metric = deep[0].metric
    net = twins[0][0].net
    if gap <= chance:
        return f" Shortcuts did not help: {net} is not better."
    return f" With shortcuts, {net} has {wording.difference(metric, gap)} less than {deep[0].net}."
