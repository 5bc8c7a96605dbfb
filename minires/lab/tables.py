"""Recorded runs as tables and as sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minires.lab.recorded import by_net, final, noise, recipe
from minires.runs.run import Run
from minires.text import columns

FAMILIES = {
    "plain": "Reds",
    "resnet": "Blues",
}  # the colours of the paper's figures 1 and 6, kept across the lessons


def layers_message(runs: Sequence[Run]) -> str:
    """What the figure by layers shows, in numbers: mean responses, and how far gradients of one step are apart."""
    means = [(run.net, np.mean(list(run.layers[-1]["response_std"].values()))) for run in runs]
    parts = ", ".join(f"{net} {mean:.2f}" for net, mean in means)
    norms = [line["gradient_norm"].values() for run in runs for line in run.layers]
    if min(map(min, norms)) == 0:
        return f"Mean response {parts}; some layers get no gradient at all"
    span = max(max(n) / min(n) for n in norms)
    return f"Mean response {parts}; in a step, the largest gradient is at most {span:.3g} times the smallest"


def _common(group: Sequence[Run], lines: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations that all runs of a group have reached, and `key` there in percent: (steps,), (runs, steps)."""
    tables = [{m["iteration"]: 100 * m[key] for m in getattr(run, lines)} for run in group]
    shared = sorted(set.intersection(*(set(t) for t in tables)))
    return np.array(shared), np.array([[t[i] for i in shared] for t in tables]).reshape(
        len(group), len(shared)
    )


BY_ITERATION = "Error by iteration"


def message(runs: Sequence[Run]) -> str:
    """What the figure shows, in one sentence with its numbers, or that the differences are within the noise."""
    groups = by_net([run for run in runs if run.evals])
    sizes = {
        (r["data"], r["sha256"], r["iterations"], r["batch_size"], r["lr"])
        for r in map(recipe, runs)
    }
    if len(sizes) > 1 or any(title != group[0].net for title, group in groups.items()):
        return "Errors of several recipes"
    if not all(run.done for group in groups.values() for run in group):
        return "Errors of runs still in progress"
    depths = {
        f: sorted((g[0].depth, net) for net, g in groups.items() if g[0].family == f)
        for f in FAMILIES
    }
    pairs = [
        (found[-1][1], found[0][1])
        for found in depths.values()
        if len({depth for depth, _ in found}) > 1
    ]
    twins = [(r, p) for d, p in depths["plain"] for e, r in depths["resnet"] if d == e]
    parts = [_compare(groups[a], groups[b]) for a, b in pairs + twins[-1:]]
    return "Training error: " + "; ".join(parts) if parts else BY_ITERATION


def _compare(a: Sequence[Run], b: Sequence[Run]) -> str:
    """Difference of two nets' final training errors, against the noise of sampling images."""
    gap, unsure = (
        final(a, "train").mean() - final(b, "train").mean(),
        noise((a, "train"), (b, "train")),
    )
    if abs(gap) <= unsure:
        return f"{a[0].net} and {b[0].net} alike (within {unsure:.1f} points of noise)"
    return f"{a[0].net} {abs(gap):.1f} points {'above' if gap > 0 else 'below'} {b[0].net}"


def _caption(runs: Sequence[Run]) -> str:
    def each(key: str) -> str:
        return " / ".join(dict.fromkeys(str(r.config[key]) for r in runs))

    data = " / ".join(dict.fromkeys(r.data["name"] for r in runs))
    warm = " / ".join(dict.fromkeys(f"{r.config['warmup_lr'] or 'none'}" for r in runs))
    rate = f"lr {each('lr')}" + (f" (warm-up {warm})" if warm != "none" else "")
    return f"{data}, {each('iterations')} iterations, batch {each('batch_size')}, {rate}"


def _how(runs: Sequence[Run]) -> str:
    images = " / ".join(dict.fromkeys(str(run.config["eval_images"]) for run in runs))
    return f"errors in evaluation mode on {images} images (train dashed, test solid)"


def table(runs: Sequence[Run]) -> str:
    """`table_lines` for the terminal."""
    return columns(table_lines(runs), left=1)


def table_lines(runs: Sequence[Run]) -> list[list[str]]:
    """Errors where all seeds of a network have arrived, a line for each: mean and range; minutes are those of steps."""
    lines = [["net", "seeds", "iterations", "train error %", "test error %", "training minutes"]]
    for net, group in by_net([run for run in runs if run.evals]).items():
        cells = []
        for which in ("train", "test"):
            reached, errors = _common(group, "evals", f"{which}_error")
            if len(reached):
                e = errors[:, -1]
                cells.append(
                    f"{e.mean():.1f}" + (f" ({e.min():.1f} to {e.max():.1f})" if len(e) > 1 else "")
                )
        if len(reached):  # damaged lines may leave seeds without an evaluation in common
            seconds = [
                line["seconds"]
                for run in group
                for line in run.evals
                if line["iteration"] == reached[-1]
            ]
            lines.append(
                [net, str(len(group)), str(reached[-1]), *cells, f"{np.mean(seconds) / 60:.1f}"]
            )
    return lines
