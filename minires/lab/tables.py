"""Recorded runs as tables and as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from minires.lab import wording
from minires.lab.families import family_styles
from minires.lab.recorded import by_net, final, metric_of, noise
from minires.runs.metric import Metric
from minires.runs.run import Run
from minires.text import columns, plural, sentence_case


def layers_message(runs: Sequence[Run]) -> str:
    """Message of the figure by layers: mean responses, and the range of one step's gradients."""
    means = [
        f"{run.net} {np.mean(list(run.layers[-1]['response_std'].values())):.2f}"
        for run in runs
        if run.layers[-1]["response_std"]
    ]
    responses = [f"Mean response {', '.join(means)}"] if means else []
    norms = [line["gradient_norm"].values() for run in runs for line in run.layers]
    gradients = "some layers get no gradient at all"
    if min(map(min, norms)) > 0:
        span = max(max(n) / min(n) for n in norms)
        times = f"{span:,.0f}" if span >= 100 else f"{span:.3g}"
        gradients = f"in a step, the largest gradient is at most {times} times the smallest"
    return sentence_case("; ".join([*responses, gradients]))


def common(group: Sequence[Run], lines: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations that all runs of a group have reached, and a metric there.

    Parameters
    ----------
    group : list of Run
    lines : {"train", "evals"}
    key : str
        Such as "error" or "test_error".

    Returns
    -------
    iterations : ndarray of shape (steps,)
    values : ndarray of shape (runs, steps)
        In the unit of the metric.
    """
    tables = [
        {line["iteration"]: run.metric.scale * line[key] for line in getattr(run, lines)}
        for run in group
    ]
    shared = sorted(set.intersection(*(set(t) for t in tables)))
    values = np.array([[t[i] for i in shared] for t in tables])
    return np.array(shared), values.reshape(len(group), len(shared))


def message(runs: Sequence[Run]) -> str:
    """The message of a figure of these runs: one sentence with its numbers.

    Networks whose difference is within the noise of sampling images are called alike. If the runs
    cannot be compared, the sentence lists their latest values.
    """
    metric = metric_of(runs)
    groups = by_net([run for run in runs if run.evals])
    if not groups:
        return f"No {metric.name} has been measured yet"
    if not all(run.done for group in groups.values() for run in group):
        return f"Still training: {_listed(groups, metric)}"
    parts = [_compare(groups[a], groups[b]) for a, b in _pairs(groups)] if one_recipe(runs) else []
    if not parts:
        return sentence_case(_listed(groups, metric))
    return f"Training {metric.name}: {'; '.join(parts)}"


def one_recipe(runs: Sequence[Run]) -> bool:
    """Whether these runs can be compared: the same data and recipe, and a net occurs once."""
    groups = by_net([run for run in runs if run.evals])
    same = len({_size(run) for run in runs}) == 1
    return same and all(title == group[0].net for title, group in groups.items())


def _listed(groups: Mapping[str, Sequence[Run]], metric: Metric) -> str:
    """The latest training value of each network that all its seeds have."""
    values = {}
    for net, group in groups.items():
        _, found = common(group, "evals", f"train_{metric.name}")
        if found.size:
            values[net] = wording.amounts(metric, [found[:, -1].mean()])
    return f"training {metric.name}: {'; '.join(f'{net} {value}' for net, value in values.items())}"


def _size(run: Run) -> tuple:
    """Key that two runs share if they can be compared."""
    settings = ("iterations", "batch_size", "lr")
    return run.data["name"], run.data["sha256"], *(run.config[name] for name in settings)


def _pairs(groups: Mapping[str, Sequence[Run]]) -> list[tuple[str, str]]:
    """Names of the networks that `message` compares.

    In each family, it compares the deepest with the shallowest. Then it compares each family with
    the first one, at the largest depth that both have.
    """
    families = family_styles([group[0] for group in groups.values()])
    depths = {
        family: sorted(
            (group[0].depth, net) for net, group in groups.items() if group[0].family == family
        )
        for family in families
    }
    deep = [(nets[-1][1], nets[0][1]) for nets in depths.values() if nets[-1][0] > nets[0][0]]
    first, *others = depths.values() if depths else [[]]
    twins = []
    for nets in others:
        same = [(net, other) for d, other in first for e, net in nets if d == e]
        twins += same[-1:]
    return deep + twins


def difference(a: Sequence[Run], b: Sequence[Run]) -> tuple[float, float]:
    """Difference of two networks' final training metrics, and its noise; 0 if it is unknown."""
    gap = final(a, "train").mean() - final(b, "train").mean()
    return float(gap), noise((a, "train"), (b, "train")) if a[0].metric.fraction else 0.0


def _compare(a: Sequence[Run], b: Sequence[Run]) -> str:
    """Difference of two networks' final training metrics, against its noise where it is known."""
    metric = a[0].metric
    gap, unsure = difference(a, b)
    if abs(gap) <= unsure:
        within = f" (within {wording.difference(metric, unsure)} of noise)"
        return f"{a[0].net} and {b[0].net} alike{within if metric.fraction else ''}"
    side = "above" if gap > 0 else "below"
    return f"{a[0].net} {wording.difference(metric, abs(gap))} {side} {b[0].net}"


def caption(runs: Sequence[Run]) -> str:
    """Data and recipe of these runs in one line; where values differ, all are listed."""

    def each(key: str) -> str:
        return " / ".join(dict.fromkeys(str(r.config[key]) for r in runs))

    data = " / ".join(dict.fromkeys(r.data["name"] for r in runs))
    warm = " / ".join(dict.fromkeys(f"{r.config['warmup_lr'] or 'none'}" for r in runs))
    rate = f"lr {each('lr')}" + (f" (warm-up {warm})" if warm != "none" else "")
    return f"{data}, {each('iterations')} iterations, batch {each('batch_size')}, {rate}"


def evaluation_note(runs: Sequence[Run]) -> str:
    """How the metric was measured, and which line style shows which images."""
    images = " / ".join(dict.fromkeys(str(run.config["eval_images"]) for run in runs))
    values = plural(metric_of(runs).name)
    return f"{values} in evaluation mode on {images} images (train dashed, test solid)"


def table(runs: Sequence[Run]) -> str:
    """`table_lines` for the terminal."""
    return columns(table_lines(runs), left=1)


def table_lines(runs: Sequence[Run]) -> list[list[str]]:
    """Head, and a line for each network: the metric at the last iteration that all seeds reached.

    Cells show the mean over the seeds and its range. The minutes are those of training steps.
    """
    metric = metric_of(runs)
    heads = [wording.column_head(metric, which) for which in ("train", "test")]
    lines = [["net", "seeds", "iterations", *heads, "training minutes"]]
    for net, group in by_net([run for run in runs if run.evals]).items():
        line = _table_line(net, group)
        if line:
            lines.append(line)
    return lines


def _table_line(net: str, group: Sequence[Run]) -> list[str]:
    """Cells of one network; none if damaged lines left no evaluation that all its seeds have."""
    metric = group[0].metric
    cells = []
    for which in ("train", "test"):
        reached, values = common(group, "evals", f"{which}_{metric.name}")
        if not len(reached):
            return []
        end = values[:, -1]
        least, mean, most = (wording.number(metric, v) for v in (end.min(), end.mean(), end.max()))
        cells.append(f"{mean} ({least} to {most})" if len(end) > 1 else mean)
    seconds = [
        line["seconds"] for run in group for line in run.evals if line["iteration"] == reached[-1]
    ]
    minutes = f"{np.mean(seconds) / 60:.1f}"
    return [net, str(len(group)), str(reached[-1]), *cells, minutes]
