"""Claims about the degradation experiment: stated in the code, decided by recorded runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from minires import data
from minires.data import Rows
from minires.errors import InputError, quoted
from minires.lab import wording
from minires.lab.presets import PRESETS
from minires.lab.recorded import final, noise
from minires.lab.relative_steps import STILL, shares
from minires.lab.studies.deepen import deepen
from minires.lab.studies.sensitivity import growth, sensitivity
from minires.lab.verdicts import (
    FILE,
    Group,
    Verdict,
    groups,
    read_verdicts,
    text,
    write_verdicts,
)
from minires.nets.registry import by_name
from minires.ops import default_backend
from minires.runs.checkpoint import load_weights
from minires.runs.config import OPTIONS, Config
from minires.runs.run import Run
from minires.text import shown
from minires.train.progress import bar
from minires.train.rows import evaluation_rows, prepared
from minires.train.step import evaluate

__all__ = [
    "CLAIMS",
    "FILE",
    "Claim",
    "Group",
    "Verdict",
    "judge",
    "load_data",
    "text",
]
# Factor by which plain20's copies must end farther apart than resnet20's.
FARTHER = 100
# A gap of this many standard errors refutes a claim: by chance alone, a gap exceeds 2 of them in
# 1 of 40 runs, and 3 of them in 1 of 700.
REFUTES = 3
SAME = 0.1  # percentage points within which two training errors are the same
DEPTHS = (8, 14, 20, 32)  # of the nets whose sensitivity is measured


@dataclass(frozen=True)
class Claim:
    """A sentence, and the function that decides whether it holds.

    Computed claims take up to a minute. The others read the runs of a preset.
    """

    key: str
    sentence: str
    check: Callable[[Group], Verdict] = field(repr=False)
    computed: bool = False


def _worse(a: Sequence[Run], b: Sequence[Run], which: str) -> float:
    """Mean of `a` minus mean of `b` in the unit of the metric; positive if `a` is worse."""
    gap = float(final(a, which).mean() - final(b, which).mean())
    return gap if a[0].metric.lower_is_better else -gap


def _above(group: Group, upper: str, lower: str) -> Verdict:
    """Claim that `upper` is worse in training than `lower` by the preset's margin, seed by seed."""
    metric = group.metric
    a = group.finished(upper)
    b = group.finished(lower)
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        needed = f"finished runs of {upper} and {lower} with the same seed"
        return Verdict(None, reason=f"needs {needed}")
    gaps = np.array([_worse([a[s]], [b[s]], "train") for s in seeds])
    side = "above" if metric.lower_is_better else "below"
    listed = ", ".join(f"{gap:.2f}" if metric.fraction else f"{gap:.3g}" for gap in gaps)
    numbers = f"{upper} {side} {lower} by {listed} {wording.difference_unit(metric)}".rstrip()
    if not group.preset or not metric.fraction:  # margins are percentage points
        return Verdict(None, numbers)
    margin = group.preset.margin
    held = bool((gaps >= margin).all())
    return Verdict(held, f"{numbers}; at least {margin:g} demanded of each seed")


def _no_overfitting(group: Group) -> Verdict:
    """Claim that plain56 loses no more than plain20 from training to test images."""
    deep, shallow = (list(group.finished(net).values()) for net in ("plain56", "plain20"))
    if not deep or not shallow:
        return Verdict(None, reason="needs finished runs of plain20 and plain56")
    if not group.metric.fraction:
        return Verdict(None)
    if group.runs[0].data["name"].endswith("-fresh"):
        more = _worse(deep, shallow, "test")
        unsure = noise((deep, "test"), (shallow, "test"))
        numbers = f"no image is seen twice, and on new images plain56 is {more:+.1f} points worse"
        return Verdict(bool(more > unsure), f"{numbers}, noise {unsure:.1f}")
    gaps = [final(runs, "test").mean() - final(runs, "train").mean() for runs in (deep, shallow)]
    if not group.metric.lower_is_better:
        gaps = [-gap for gap in gaps]
    measured = [(runs, which) for runs in (deep, shallow) for which in ("test", "train")]
    unsure = noise(*measured, times=REFUTES)
    numbers = f"test minus train: plain56 {gaps[0]:+.1f}, plain20 {gaps[1]:+.1f} points"
    return Verdict(bool(gaps[0] <= gaps[1] + unsure), f"{numbers}; {unsure:.1f} more can be chance")


def _no_vanishing(group: Group) -> Verdict:
    """Claim that every layer's first relative step is at least the share `STILL` of the last one's.

    The first step decides: until then nets of different depth differ in nothing but depth, and
    what comes later depends on what training did to the weights. Later steps are listed.
    """
    plain = [run for run in group.runs if run.family == "plain" and run.done and run.layers]
    if not plain:
        needed = "a finished plain run with gradients recorded layer by layer"
        return Verdict(None, reason=f"needs {needed}")
    deepest = [run for run in plain if run.depth == max(run.depth for run in plain)]
    found = [shares(run) for run in deepest]
    if any(1 not in by_step for by_step in found):
        return Verdict(None, reason="needs a record by layer of the first step")
    first = min(float(by_step[1].min()) for by_step in found)
    later = sorted({step for by_step in found for step in by_step} - {1})
    head = f"{deepest[0].net}, smallest relative step of a layer as a share of the last layer's"
    numbers = f"{head}: {first:.2g} at step 1, {STILL:g} demanded"
    if later:
        numbers += "; later " + ", ".join(_still(step, found) for step in later)
    return Verdict(first >= STILL, numbers)


def _still(step: int, found: Sequence[Mapping[int, np.ndarray]]) -> str:
    """In words, the smallest share at a step, and how many layers are below `STILL`, by seed."""
    values = [by_step[step] for by_step in found if step in by_step]
    smallest = min(float(share.min()) for share in values)
    counts = "/".join(str(int((share < STILL).sum())) for share in values)
    return f"{smallest:.2g} at step {step} ({counts} of {len(values[0])} layers below {STILL:g})"


def _construction(group: Group) -> Verdict:
    """Deepen the trained plain20 to 56 layers; compare the two on the last evaluation's images."""
    found = group.finished("plain20")
    if not found:
        return Verdict(None, reason="needs a finished run of plain20")
    run = found[min(found)]
    if not OPTIONS["task"].is_usual(run.config):
        return Verdict(None, reason=f"needs runs of {OPTIONS['task'].default}")
    weights = load_weights(run.folder)
    if weights is None:
        return Verdict(None, reason=f"needs the weights of {shown(run.folder.name)}")
    config = Config.from_json(run.config)
    dataset = prepared(config, load_data(run, group.data_folder))
    _, rows = evaluation_rows(config, len(dataset.train))
    images = Rows(dataset.train, rows)
    shallow = by_name("plain20").use(default_backend()).load_state(weights)
    batch, _ = images[np.arange(min(config.batch_size, len(rows)))]
    x = dataset.prepare(batch, None)
    deep = deepen(shallow, 56, x)
    logits = shallow.forward(x)
    distance = float(abs(deep.forward(x) - logits).max() / abs(logits).max())
    before, after = (
        100 * evaluate(net, images, dataset.prepare, config.batch_size)[1]
        for net in (shallow, deep)
    )
    errors = f"training error of plain20 {before:.2f} %, of the plain56 made of it {after:.2f} %"
    numbers = f"{errors}; logits apart by {distance:.0e} of the largest"
    return Verdict(abs(after - before) <= SAME, numbers)


def load_data(run: Run, folder: Path | None) -> data.Dataset:
    """The images that a run was trained on.

    Raises
    ------
    InputError
        If the images found here are different ones.
    """
    key = data.key(run.data["name"])
    found = data.load(key, folder if key == "cifar10" else None)
    if found.sha256 != run.data["sha256"]:
        raise InputError(
            f"{run.folder} was trained on other images than those in {found.source}; "
            "name the folder of its images by --data"
        )
    return found


@cache
def _sensitivity() -> Verdict:
    """Claim that a tiny difference grows faster in plain nets than in their residual twins."""
    nets = [f"{family}{depth}" for depth in DEPTHS for family in ("plain", "resnet")]
    distances = {}
    with bar(len(nets)) as progress:
        progress.set_postfix_str("claim (vi)", refresh=False)
        for net in nets:
            distances[net] = sensitivity(net)
            progress.update()
    ratio = distances["plain20"][-1] / distances["resnet20"][-1]
    rates = {net: growth(values) for net, values in distances.items()}
    by_depth = ", ".join(
        f"{rates[f'plain{d}']:.2g} and {rates[f'resnet{d}']:.2g} at {d} layers" for d in DEPTHS
    )
    measured = f"after 10 steps plain20's copies are {ratio:.0e} times as far apart as resnet20's"
    growths = f"growth per step, plain and residual: {by_depth}"
    return Verdict(bool(ratio >= FARTHER), f"{measured}, {FARTHER} demanded; {growths}")


CLAIMS = (
    Claim(
        "i",
        "Deeper is worse: plain-56 has more training error than plain-20.",
        lambda group: _above(group, "plain56", "plain20"),
    ),
    Claim(
        "ii",
        "Shortcuts mend it: resnet-56 has less training error than plain-56.",
        lambda group: _above(group, "plain56", "resnet56"),
    ),
    Claim(
        "iii",
        "It is not overfitting: plain-56 loses no more than plain-20 from training to test images.",
        _no_overfitting,
    ),
    Claim(
        "iv",
        "It does not start with vanishing gradients: the first step turns every layer.",
        _no_vanishing,
    ),
    Claim(
        "v",
        "The solution exists: "
        "plain-56 made of a trained plain-20 and identity layers has plain-20's error.",
        _construction,
        computed=True,
    ),
    Claim(
        "vi",
        "Deep plain nets are sensitive: at learning rate 0.01, "
        "a difference of 1e-14 grows faster than in their residual twins.",
        lambda group: _sensitivity(),
        computed=True,
    ),
)


def judge(
    runs: Sequence[Run], compute: bool = False, data_folder: Path | None = None
) -> dict[str, list[tuple[Claim, Verdict]]]:
    """Decide on every claim for every group of runs that can be judged together.

    If a net was trained twice with the same seed, each experiment folder is its own group.

    Parameters
    ----------
    runs : list of Run
    compute : bool
        Compute the claims that take a minute, and write their verdicts to a file beside the runs.
        Otherwise their verdicts are read from that file.
    data_folder : Path, optional
        Folder of CIFAR-10, if the runs are on it.

    Returns
    -------
    verdicts : dict of str to list of (Claim, Verdict)
        By the title of the group.
    """
    verdicts = {}
    for title, experiment, members in groups(runs):
        folder = members[0].folder.parent
        group = Group(members, data_folder)
        known = read_verdicts(folder)
        rows = []
        for claim in CLAIMS:
            recorded = known.get(title, {}).get(claim.key, _not_computed(folder))
            read = claim.computed and not compute
            rows.append((claim, recorded if read else _decide(claim, group)))
        verdicts[f"{title}, in {shown(experiment)}" if experiment else title] = rows
        if compute:
            decided = {c.key: v for c, v in rows if c.computed and v.held is not None}
            write_verdicts(folder, known | {title: decided})
    return verdicts


def _not_computed(folder: Path) -> Verdict:
    command = f"minires claims {quoted(folder)} --all"
    return Verdict(None, reason=f"takes a minute; ask for it with: {command}")


def _decide(claim: Claim, group: Group) -> Verdict:
    """Verdict on a claim; only runs of a preset can decide claims that read runs."""
    if claim.computed:
        return claim.check(group)
    twice = group.trained_twice()
    if twice:
        return Verdict(None, reason=f"{twice}; give one of the two folders")
    verdict = claim.check(group)
    if verdict.reason or (group.preset and group.metric.fraction):
        return verdict
    if not group.metric.fraction:
        needed = f"a metric that is a fraction of images, which {group.metric.name} is not"
    else:
        needed = f"runs of a preset (--tier {', '.join(PRESETS)})"
    return Verdict(None, verdict.numbers, f"needs {needed}")
