"""The recorded ablations of lesson 7a: which piece of the recipe each run lacks, and what it costs."""

from math import comb

import numpy as np
from style import RECORDS

from minires.lab.presets import preset_name
from minires.lab.recorded import final, find_runs

FOLDER = RECORDS / "ablations-cifar10"
WHOLE = "full"
SEEDS = (0, 1, 2)
# start of the folders' names -> the piece that is missing, and what differs in config.json
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


def complete(arms):
    """Whether every arm has a run of every seed."""
    return all({run.config["seed"] for run in group} >= set(SEEDS) for group in arms.values())


def so_far(arms):
    """Sentences on what was recorded until now; "" if everything was."""
    if complete(arms):
        return ""
    sizes = {len(group) for group in arms.values() if group}
    done, total = sum(map(len, arms.values())), len(ARMS) * len(SEEDS)
    said = f"So far {done} of {total} runs are recorded"
    if 1 in sizes:
        said += ", one run each: no verdict yet" if sizes == {1} else "; one run allows no verdict"
    empty = [NAMES[arm] for arm, group in arms.items() if not group]
    return f"{said}." + (f" Without a run yet: {'; '.join(empty)}." if empty else "")


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
    _, clear, _ = compare(arms, arm, which)
    return clear and not too_few(arms, arm)


def too_few(arms, arm):
    """Whether groups of this size would be told apart by accident more often than 1 in 10."""
    return compare(arms, arm)[2] > 0.1


def sorted_by_evidence(arms):
    """Recorded arms, the costliest first, by what their runs can say; no empty groups."""
    groups = {
        "Worse than the whole recipe with every run (red in the figure)": [],
        "Better than the whole recipe with every run": [],
        "Runs overlap with those of the whole recipe": [],
        "Too few runs to tell": [],
    }
    worse, better, overlap, few = groups.values()
    for arm in compared(arms):
        if too_few(arms, arm):
            few.append(arm)
        elif told_apart(arms, arm):
            (worse if compare(arms, arm)[0] > 0 else better).append(arm)
        else:
            overlap.append(arm)
    return {words: names for words, names in groups.items() if names}


def verdict(arms, arm, worse, alike, better):
    """The words that fit the test errors of an arm, compared with those of the whole recipe."""
    if min(len(arms[arm]), len(arms[WHOLE])) == 1:
        return "**open**: one run so far"
    if too_few(arms, arm):
        return "**open**: too few runs"
    if not told_apart(arms, arm):
        return alike
    return worse if compare(arms, arm)[0] > 0 else better


def compared(arms):
    """Arms that were recorded, without the whole recipe, the highest mean test error first."""
    found = [arm for arm, group in arms.items() if group and arm != WHOLE]
    return sorted(found, key=lambda arm: -np.mean(final(arms[arm], "test")))


def in_words(arms, arm):
    """The measured difference of a recorded arm, and whether the seeds agree on it."""
    difference, clear, _ = compare(arms, arm)
    counts = [len(arms[arm]), len(arms[WHOLE])]
    points = f"{difference:+.1f} points of test error"
    if counts == [1, 1]:
        return f"{points}, one run each"
    if too_few(arms, arm):
        return f"{points}, {counts[0]} against {counts[1]} runs: too few to tell"
    said = "all on one side" if clear else "they overlap"
    return f"{points}; {counts[0]} against {counts[1]} runs, {said}"


def sentence(arms, arm):
    """A sentence on the record of an arm; "" if it was not recorded."""
    return f"Recorded: *{NAMES[arm]}*, {in_words(arms, arm)}." if arms[arm] else ""
