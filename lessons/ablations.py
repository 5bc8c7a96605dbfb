"""The recorded ablations of lesson 7a: which piece of the recipe each run lacks, and what it costs."""

from math import comb

import numpy as np
from style import RECORDS

from minires.lab.presets import preset_name
from minires.lab.recorded import final, find_runs

FOLDER = RECORDS / "ablations-cifar10"
WHOLE = "full"
SEEDS = (0, 1, 2)
# start of the folders' names -> the piece that is missing, and the settings that differ
ARMS = {
    WHOLE: ("the whole recipe", {}),
    "no-momentum": ("no momentum", {"momentum": 0.0}),
    "no-momentum-lr1": (
        "no momentum, rate times 10",
        {"momentum": 0.0, "lr": 1.0, "warmup_lr": 0.1},
    ),
    "no-weight-decay": ("no weight decay", {"weight_decay": 0.0}),
    "no-augment": ("no crops and flips", {"augment": False}),
    "no-mean": ("mean not subtracted", {"subtract_mean": False}),
    "no-drops": ("rate never divided", {"milestones": []}),
    "normal-init": ("initial weights N(0, 0.01²)", {"init": "normal"}),
    "moving-average": ("moving averages", {"bn_images": 0}),
}
NAMES = {arm: name for arm, (name, _) in ARMS.items()}


def changes(run, whole):
    """Settings of a run that differ from those of a run with the whole recipe."""
    own = {name: value for name, value in run.config.items() if value != whole.config[name]}
    own.pop("seed", None)
    return own


def by_arm(runs):
    """Group finished runs by the piece that they lack, in the order of `ARMS`.

    Raises
    ------
    ValueError
        If no run has the whole recipe, or if a run lacks something that has no name in `ARMS`.
    """
    done = [run for run in runs if run.done]
    # a preset does not say how batch norm is evaluated
    recomputed = [run for run in done if run.config["bn_images"]]
    whole = next((run for run in recomputed if preset_name(run) == "lesson"), None)
    if whole is None:
        raise ValueError("expected a finished run of the whole recipe, got none")
    groups = {arm: [] for arm in ARMS}
    for run in sorted(done, key=lambda run: run.config["seed"]):
        own = changes(run, whole)
        arms = [arm for arm, (_, lacking) in ARMS.items() if lacking == own]
        if not arms:
            raise ValueError(f"expected changes that are in ARMS, got {own} ({run.folder.name})")
        groups[arms[0]].append(run)
    return groups


def recorded_arms():
    """The recorded runs by arm; an arm that was not recorded is an empty list."""
    return by_arm(find_runs([FOLDER]))


def missing(arms):
    """Sentences on arms that lack seeds; "" if none does."""
    lacking = []
    for arm, group in arms.items():
        seeds = [k for k in SEEDS if k not in {run.config["seed"] for run in group}]
        if seeds:
            of = f" (seed {', '.join(map(str, seeds))})" if group else ""
            lacking.append(f"*{NAMES[arm]}*{of}")
    return f"Not recorded: {'; '.join(lacking)}." if lacking else ""


def compare(arms, arm, which="test"):
    """Compare an arm with the whole recipe.

    Returns
    -------
    difference : float
        Of the mean errors, in points.
    clear : bool
        Whether every run of the arm is worse than every run of the whole recipe, or every one
        better.
    chance : float
        Probability of that for two groups of this size that do not differ.
    """
    own, whole = final(arms[arm], which), final(arms[WHOLE], which)
    clear = bool(own.min() > whole.max() or own.max() < whole.min())
    return float(own.mean() - whole.mean()), clear, 2 / comb(len(own) + len(whole), len(own))


def told_apart(arms, arm, which="test"):
    """Whether all runs lie on one side, in groups so large that this is an accident of 1 in 10."""
    _, clear, chance = compare(arms, arm, which)
    return clear and chance <= 0.1


def verdict(arms, arm, worse, alike, better):
    """The words that fit the test errors of an arm, compared with those of the whole recipe."""
    if not arms[arm] or compare(arms, arm)[2] > 0.1:
        return "**open**: too few runs"
    if not told_apart(arms, arm):
        return alike
    return worse if compare(arms, arm)[0] > 0 else better


def compared(arms):
    """Arms that were recorded, without the whole recipe, the highest mean test error first."""
    found = [arm for arm, group in arms.items() if group and arm != WHOLE]
    return sorted(found, key=lambda arm: -np.mean(final(arms[arm], "test")))


def in_words(arms, arm):
    """The measured difference of an arm, and whether the seeds agree on it."""
    if not arms[arm]:
        return "not recorded"
    difference, clear, chance = compare(arms, arm)
    count = f"{len(arms[arm])} against {len(arms[WHOLE])} runs"
    if chance > 0.5:
        return f"{difference:+.1f} points of test error, {count}: too few to tell"
    said = "all on one side" if clear else "they overlap"
    return f"{difference:+.1f} points of test error; {count}, {said}"
