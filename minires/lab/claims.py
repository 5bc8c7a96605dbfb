"""What is claimed of the experiment, written down before it is run, and a program that says whether it holds."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from minires import data
from minires.data import Rows
from minires.errors import InputError, quoted
from minires.lab.presets import TIERS, Tier, tier_name
from minires.lab.recorded import final, noise
from minires.lab.studies.deepen import deepen
from minires.lab.studies.sensitivity import butterfly, growth
from minires.nets.registry import by_name
from minires.ops import default_backend
from minires.runs.checkpoint import load_weights
from minires.runs.config import Config
from minires.runs.files import make_folder, write_whole
from minires.runs.run import Run
from minires.train.loop import initial_net
from minires.train.state import evaluation_rows
from minires.train.step import evaluate

APART = 100  # times: "orders of magnitude" are two at least
# Of the last layer's gradient: what the first of 22 layers gets where each halves the variance on its way. A net
# learned with that, and one of 30 layers did not (He et al. 2015, arXiv 1502.01852, section 2.2).
LEARNED = 2.0**-11
REFUTES = (
    3  # sampling errors: chance alone goes beyond two in one run of 40, beyond three in one of 700
)
FILE = "claims.json"


@dataclass(frozen=True)
class Verdict:
    """Whether a claim held, None where it was not measured, and the numbers behind that."""

    held: bool | None
    numbers: str

    def __str__(self) -> str:
        return {True: "held", False: "NOT HELD", None: "not measured"}[self.held]


@dataclass(frozen=True)
class Group:
    """Runs of one experiment: same data, same iterations; and where its images are, for claims that need them."""

    runs: list[Run]
    data_folder: Path | None = None

    @property
    def tier(self) -> Tier | None:
        """Tier of these runs, if they have its size and recipe."""
        name = tier_name(self.runs[0])
        return TIERS[name] if name else None

    def finished(self, net: str) -> dict[int, Run]:
        """Finished runs of a net by their seeds."""
        return {run.config["seed"]: run for run in self.runs if run.net == net and run.done}


@dataclass(frozen=True)
class Claim:
    """A sentence, and the function that decides on it; `computed` ones take seconds, the others read runs of a tier."""

    key: str
    sentence: str
    check: Callable[[Group], Verdict] = field(repr=False)
    computed: bool = False


def _above(group: Group, upper: str, lower: str) -> Verdict:
    """Training error of `upper` above that of `lower` by the margin of the tier, seed by seed."""
    a, b = group.finished(upper), group.finished(lower)
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return Verdict(None, f"needs finished runs of {upper} and {lower} with the same seed")
    gaps = np.array([final([a[s]], "train")[0] - final([b[s]], "train")[0] for s in seeds])
    numbers = f"{upper} above {lower} by {', '.join(f'{gap:.2f}' for gap in gaps)} points"
    if not group.tier:
        return Verdict(None, numbers)
    demanded = group.tier.margin
    return Verdict(
        bool((gaps >= demanded).all()), f"{numbers}; at least {demanded:g} demanded of each seed"
    )


def _no_overfitting(group: Group) -> Verdict:
    deep, shallow = (list(group.finished(net).values()) for net in ("plain56", "plain20"))
    if not deep or not shallow:
        return Verdict(None, "needs finished runs of plain20 and plain56")
    if group.runs[0].data["name"].endswith("-fresh"):
        more = final(deep, "test").mean() - final(shallow, "test").mean()
        unsure = noise((deep, "test"), (shallow, "test"))
        numbers = f"no image seen twice, and plain56 errs {more:+.1f} points more on new images, noise {unsure:.1f}"
        return Verdict(bool(more > unsure), numbers)
    gaps = [final(runs, "test").mean() - final(runs, "train").mean() for runs in (deep, shallow)]
    unsure = noise(
        *[(runs, which) for runs in (deep, shallow) for which in ("test", "train")], times=REFUTES
    )
    numbers = f"test minus train: plain56 {gaps[0]:+.1f}, plain20 {gaps[1]:+.1f} points"
    return Verdict(bool(gaps[0] <= gaps[1] + unsure), f"{numbers}; {unsure:.1f} more can be chance")


def direction_gradients(run: Run) -> dict[int, dict[str, float]]:
    """Norms ||g|| ||w|| by step and layer: gradients with respect to the direction of a convolution's weights.

    Behind a batch norm the length of w means nothing, and g shrinks as it grows. A record has the weights that its step
    left behind; at the first step, which may multiply them, those that the run began with are taken.

    Returns
    -------
    norms : dict
        By recorded step, then by the layers' dotted names in network order.
    """
    config = replace(
        Config.from_json(run.config), backend="numpy"
    )  # a record is read without Numba, too
    began = initial_net(config, run.facts).parameters()
    return {
        line["iteration"]: {
            name: g
            * float(
                np.linalg.norm(began[f"{name}.w"])
                if line["iteration"] == 1
                else line["weight_norm"][name]
            )
            for name, g in line["gradient_norm"].items()
        }
        for line in run.layers
    }


def _no_vanishing(group: Group) -> Verdict:
    """No layer's weights get less of the gradient, by their direction, than a net is known to have learned with."""
    plain = [run for run in group.runs if run.family == "plain" and run.done and run.layers]
    if not plain:
        return Verdict(None, "needs a finished plain run with gradients recorded layer by layer")
    deepest = [run for run in plain if run.depth == max(run.depth for run in plain)]
    smallest: dict[int, float] = {}
    for run in deepest:
        for step, by_layer in direction_gradients(run).items():
            got = list(by_layer.values())
            share = min(got) / got[-1] if got[-1] else 0.0
            smallest[step] = min(share, smallest.get(step, share))
    steps = ", ".join(f"{share:.2g} at step {step}" for step, share in smallest.items())
    numbers = f"{deepest[0].net}, least that a layer gets, of what the last one gets: {steps}; {LEARNED:.2g} demanded"
    return Verdict(min(smallest.values()) >= LEARNED, numbers)


def _construction(group: Group) -> Verdict:
    """Deepen the trained plain-20 to 56 layers and compare the two on the images of the run's last evaluation."""
    found = group.finished("plain20")
    if not found:
        return Verdict(None, "needs a finished run of plain20")
    run = found[min(found)]
    weights = load_weights(run.folder)
    if weights is None:
        return Verdict(None, f"needs the weights of {run.folder.name}")
    dataset = load_data(run, group.data_folder)
    config = Config.from_json(run.config)
    if not config.subtract_mean:
        dataset = dataset.without_mean()
    _, rows = evaluation_rows(config, len(dataset.train))
    images = Rows(dataset.train, rows)
    shallow = by_name("plain20").use(default_backend()).load_state(weights)
    x = dataset.prepare(images[np.arange(min(config.batch_size, len(rows)))][0], None)
    deep = deepen(shallow, 56, x)
    apart = float(abs(deep.forward(x) - shallow.forward(x)).max() / abs(shallow.forward(x)).max())
    errors = [
        100 * evaluate(net, images, dataset.prepare, config.batch_size)[1]
        for net in (shallow, deep)
    ]
    numbers = f"training error of plain20 {errors[0]:.2f} %, of the plain56 made of it {errors[1]:.2f} %; "
    return Verdict(
        abs(errors[1] - errors[0]) <= 0.1, numbers + f"logits apart by {apart:.0e} of the largest"
    )


def load_data(run: Run, folder: Path | None) -> data.Dataset:
    """Images that a run was trained on.

    Raises
    ------
    InputError
        If what is found here is something else.
    """
    key = data.key(run.data["name"])
    found = data.load(key, folder if key == "cifar10" else None)
    if found.sha256 != run.data["sha256"]:
        raise InputError(
            f"{run.folder} was trained on other images than {found.source}; name their folder by --data"
        )
    return found


@cache
def _butterfly() -> Verdict:
    depths = (8, 14, 20, 32)
    nets = [f"{family}{depth}" for depth in depths for family in ("plain", "resnet")]
    distances = {
        net: butterfly(net) for net in tqdm(nets, "claim (vi)", unit=" nets", delay=2, leave=False)
    }
    apart = distances["plain20"][-1] / distances["resnet20"][-1]
    by_depth = ", ".join(
        f"{growth(distances[f'plain{d}']):.2g} and {growth(distances[f'resnet{d}']):.2g} at {d} layers"
        for d in depths
    )
    numbers = f"after 10 steps plain20's copies are {apart:.0e} times as far apart as resnet20's, {APART} demanded; "
    return Verdict(bool(apart >= APART), numbers + f"growth a step, plain and residual: {by_depth}")


CLAIMS = (
    Claim("i", "Deeper is worse: plain-56 errs more than plain-20 on its training images.",
          lambda group: _above(group, "plain56", "plain20")),
    Claim("ii", "Shortcuts mend it: resnet-56 errs less than plain-56 on its training images.",
          lambda group: _above(group, "plain56", "resnet56")),
    Claim("iii", "It is not overfitting: plain-56 loses no more than plain-20 from training to test images.",
          _no_overfitting),
    Claim("iv", "It is not vanishing gradients: every layer of the plain net gets its share.",
          _no_vanishing),
    Claim("v", "The solution exists: plain-56 made of a trained plain-20 and identity layers has plain-20's error.",
          _construction, computed=True),
    Claim("vi", "Deep plain nets train chaotically: a difference of 1e-14 grows faster than in their residual twins.",
          lambda group: _butterfly(), computed=True),
)  # fmt: skip


def judge(
    runs: Sequence[Run], compute: bool = False, data_folder: Path | None = None
) -> dict[str, list[tuple[Claim, Verdict]]]:
    """Every claim on every group of runs with the same images, tier, size and evaluation, by the title of the group.

    Where a net was trained twice with the same seed, each experiment folder is a group of its own.

    Parameters
    ----------
    runs : list of Run
    compute : bool
        Compute the claims that take a minute and write their verdicts to claims.json beside the runs; otherwise what
        was written there is taken.
    data_folder : Path, optional
        Where CIFAR-10 is, if the runs are on it.

    Returns
    -------
    verdicts : dict of str to list of (Claim, Verdict)
    """
    groups: dict[tuple, list[Run]] = defaultdict(list)
    twice = len({(_size(run), run.net, run.config["seed"]) for run in runs}) < len(runs)
    for run in runs:
        groups[_size(run), run.folder.parent if twice else None].append(run)
    titles = [_title(members) for members in groups.values()]
    verdicts = {}
    for ((size, where), members), title in zip(groups.items(), titles, strict=True):
        folder = members[0].folder.parent
        if (
            len({other for (other, _), named in zip(groups, titles, strict=True) if named == title})
            > 1
        ):
            title += ", errors on {} images, statistics of {}, images {:.12}".format(*size[-3:])
        group, known = Group(members, data_folder), _recorded(folder)
        before = known.get(title, {})
        missing = Verdict(
            None, f"takes a minute; ask for it with: minires claims {quoted(folder)} --all"
        )
        rows = [
            (
                claim,
                _decide(claim, group)
                if compute or not claim.computed
                else before.get(claim.key, missing),
            )
            for claim in CLAIMS
        ]
        verdicts[f"{title}, in {where}" if where else title] = rows
        if compute:
            known[title] = {
                claim.key: v for claim, v in rows if claim.computed and v.held is not None
            }
            kept = {
                title: {key: asdict(v) for key, v in found.items()}
                for title, found in known.items()
            }
            make_folder(folder)
            write_whole(folder / FILE, (json.dumps(kept, indent=2) + "\n").encode())
    return verdicts


def _size(run: Run) -> tuple:
    """What runs that are judged together share; the last three are about their evaluation and images."""
    settings = ("iterations", "batch_size", "lr", "eval_images", "bn_images")
    return (
        run.data["name"],
        tier_name(run),
        *(run.config[key] for key in settings),
        run.data["sha256"],
    )


def _title(group: Sequence[Run]) -> str:
    name, tier, iterations, batch_size, lr, *_ = _size(group[0])
    seeds = len({run.config["seed"] for run in group})
    size = f"{iterations} iterations of {batch_size} images at lr {lr}, {seeds} seed{'s' if seeds > 1 else ''}"
    return f"{name}, {tier or 'custom size'}: {size}"


def _decide(claim: Claim, group: Group) -> Verdict:
    """Verdict of a claim; claims that read runs are made of the tiers, and decide nothing about other sizes."""
    folders: dict[tuple[str, int], Path] = {}
    for run in group.runs:
        other = folders.setdefault((run.net, run.config["seed"]), run.folder)
        if other != run.folder and not claim.computed:
            twice = f"{run.net} with seed {run.config['seed']} is in {other.name} and in {run.folder.name}"
            return Verdict(None, f"{twice}; give one of the two folders")
    verdict = claim.check(group)
    if claim.computed or group.tier:
        return verdict
    return Verdict(
        None, f"{verdict.numbers}; it is registered for the tiers only: {', '.join(TIERS)}"
    )


def text(verdicts: Mapping[str, Sequence[tuple[Claim, Verdict]]]) -> str:
    """Verdicts for the terminal."""
    lines = []
    for title, rows in verdicts.items():
        lines.append(f"Claims on {title}")
        for claim, verdict in rows:
            lines += [
                f"  {f'({claim.key})':6}{verdict!s:13} {claim.sentence}",
                f"{'':22}{verdict.numbers}",
            ]
    return "\n".join(lines)


def _recorded(folder: Path) -> dict[str, dict[str, Verdict]]:
    """Verdicts that earlier calls computed, by the title of the group and the key of the claim."""
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
            f"{folder / FILE} is damaged ({e}); remove it, minires claims writes it anew"
        ) from e
