"""Recorded ablations of lesson 7a: the piece that a run lacks is read from its own config."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest

from minires.data import shapes10
from minires.lab.recorded import find_runs
from minires.runs.config import Config

pytestmark = pytest.mark.lessons  # they need what lessons need


@pytest.fixture(scope="module")
def ablations():
    import ablations

    return ablations


@pytest.fixture(scope="module")
def whole(ablations):
    (run, *_) = ablations.recorded_arms()[ablations.WHOLE]
    return run


def made(run, seed, error, **changes):
    """A run with other settings, which ended with this error."""
    last = run.evals[-1] | {"test_error": error}
    return replace(run, config=run.config | {"seed": seed} | changes, evals=[last])


def test_runs_are_grouped_by_the_settings_that_differ_from_the_whole_recipe(ablations, whole):
    runs = [made(whole, seed, 0.25) for seed in (2, 0, 1)]
    for arm, (_, changes) in ablations.ARMS.items():
        runs += [made(whole, seed, 0.3, **changes) for seed in (1, 0) if arm != ablations.WHOLE]
    groups = ablations.by_arm(runs[::-1])
    assert list(groups) == list(ablations.ARMS)
    for arm, group in groups.items():
        seeds = [0, 1, 2] if arm == ablations.WHOLE else [0, 1]
        assert [run.config["seed"] for run in group] == seeds
        for run in group:
            assert ablations.changes(run, whole) == ablations.ARMS[arm][1]


def test_an_unfinished_run_does_not_count_and_an_unknown_change_is_named(ablations, whole):
    unfinished = replace(made(whole, 0, 0.3, momentum=0.0), evals=[])
    assert ablations.by_arm([whole, unfinished])["no-momentum"] == []
    with pytest.raises(ValueError, match="batch_size"):
        ablations.by_arm([whole, made(whole, 0, 0.3, batch_size=64)])
    with pytest.raises(ValueError, match="whole recipe, got none"):
        ablations.by_arm([made(whole, 0, 0.3, momentum=0.0)])


def every_run(ablations, whole, error=0.3):
    """Runs of every arm and seed; the whole recipe has an error of 25 %."""
    return [
        made(whole, seed, error if changes else 0.25, **changes)
        for _, changes in ablations.ARMS.values()
        for seed in ablations.SEEDS
    ]


def test_what_is_not_recorded_yet_is_said_in_one_line(ablations, whole):
    runs = every_run(ablations, whole)
    assert ablations.so_far(ablations.by_arm(runs)) == ""
    two = [run for run in runs if run.config != runs[4].config]
    assert ablations.so_far(ablations.by_arm(two)) == "So far 26 of 27 runs are recorded."
    no_arm = ablations.so_far(ablations.by_arm([r for r in runs if r.config["augment"]]))
    assert no_arm == ("So far 24 of 27 runs are recorded. Without a run yet: no crops and flips.")
    first = [run for run in runs if run.config["seed"] == 0]
    assert ablations.so_far(ablations.by_arm(first)) == (
        "So far 9 of 27 runs are recorded, one run each: no verdict yet."
    )


def test_one_run_of_an_arm_gets_no_verdict_and_an_arm_without_runs_no_words(ablations, whole):
    arms = ablations.by_arm([made(whole, 0, 0.25), made(whole, 0, 0.35, momentum=0.0)])
    words = ("worse", "alike", "better")
    assert ablations.verdict(arms, "no-momentum", *words) == "**open**: one run so far"
    assert ablations.in_words(arms, "no-momentum") == "+10.0 points of test error, one run each"
    assert ablations.sorted_by_evidence(arms) == {"Too few runs to tell": ["no-momentum"]}
    assert ablations.sentence(arms, "no-drops") == ""


def test_arms_are_sorted_by_what_their_runs_can_say(ablations, whole):
    runs = [run for run in every_run(ablations, whole) if run.config["momentum"]]
    errors = {0.0: (0.2, 0.21, 0.2), 0.5: (0.24, 0.26, 0.25)}
    runs += [made(whole, k, e, momentum=0.0) for k, e in enumerate(errors[0.0])]
    runs = [run for run in runs if run.config["augment"]]
    runs += [made(whole, k, e, augment=False) for k, e in enumerate(errors[0.5])]
    found = ablations.sorted_by_evidence(ablations.by_arm(runs))
    assert found.pop("Better than the whole recipe with every run") == ["no-momentum"]
    assert found.pop("Runs overlap with those of the whole recipe") == ["no-augment"]
    (worse,) = found.values()
    assert sorted(worse) == sorted(
        {*ablations.ARMS} - {ablations.WHOLE, "no-momentum", "no-momentum-lr1", "no-augment"}
    )


@pytest.mark.parametrize(
    ("errors", "clear"),
    [((0.26, 0.28, 0.27), False), ((0.31, 0.33, 0.32), True), ((0.2, 0.1, 0.2), True)],
)
def test_groups_are_told_apart_if_all_runs_lie_on_one_side(ablations, whole, errors, clear):
    runs = [made(whole, seed, error) for seed, error in enumerate((0.25, 0.27, 0.3))]
    runs += [made(whole, seed, error, momentum=0.0) for seed, error in enumerate(errors)]
    difference, found, chance = ablations.compare(ablations.by_arm(runs), "no-momentum")
    assert difference == pytest.approx(100 * (np.mean(errors) - np.mean([0.25, 0.27, 0.3])))
    assert (found, chance) == (clear, 2 / comb(6, 3))
    told = ablations.verdict(ablations.by_arm(runs), "no-momentum", "worse", "alike", "better")
    assert told == ("alike" if not clear else "worse" if difference > 0 else "better")
    few = ablations.verdict(ablations.by_arm(runs[:-1]), "no-momentum", "worse", "alike", "better")
    assert few == "**open**: too few runs"


def test_the_chance_is_that_of_random_groups(ablations):
    rng = np.random.default_rng(0)
    groups = rng.standard_normal((20_000, 6))
    one_side = (groups[:, :3].min(1) > groups[:, 3:].max(1)) | (
        groups[:, :3].max(1) < groups[:, 3:].min(1)
    )
    assert one_side.mean() == pytest.approx(2 / comb(6, 3), abs=4 * (0.1 * 0.9 / 20_000) ** 0.5)


def test_recorded_runs_are_finished_and_in_the_folder_of_their_arm(ablations):
    runs = find_runs([ablations.FOLDER])
    assert all(run.done for run in runs)
    assert all(Config.from_json(run.config).to_json() == run.config for run in runs)
    for arm, group in ablations.by_arm(runs).items():
        assert [run.folder.name for run in group] == [
            f"{arm}-seed{run.config['seed']}" for run in group
        ]
        assert all(run.config["seed"] in ablations.SEEDS for run in group)


def test_the_recorder_can_train_every_arm_and_changes_its_piece_alone(ablations):
    from record_ablations import config

    data = shapes10.dataset(train=4000, test=2000)
    full = config(data, "full", 0).to_json()
    for arm, (_, changes) in ablations.ARMS.items():
        recipe = config(data, arm, 0).to_json()
        assert {name for name in full if full[name] != recipe[name]} == set(changes)


def test_what_the_recorder_trains_is_what_was_recorded(ablations):
    from record_ablations import config

    data = shapes10.dataset(train=4000, test=2000)
    for arm, group in ablations.recorded_arms().items():
        for run in group:
            asked = config(data, arm, run.config["seed"]).to_json()
            same = {name: run.config[name] for name in ("dataset", "backend")}
            assert asked | same == run.config


def test_the_title_says_how_many_pieces_were_recorded_until_all_are(ablations, whole):
    from draw_recipe import message

    runs = [made(whole, 0, 0.25), made(whole, 0, 0.35, momentum=0.0)]
    title = message(ablations.by_arm(runs))
    assert title.endswith(
        "no momentum costs the most of the 1 recorded so far, +10.0 points (one run each)"
    )
    title = message(ablations.by_arm(every_run(ablations, whole)))
    assert title.endswith("costs the most, +5.0 points")
    assert "no missing piece costs" in message(ablations.by_arm(every_run(ablations, whole, 0.2)))
