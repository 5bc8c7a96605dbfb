"""The race of ReLU against tanh: its runs, its results, and what it says about them."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from minires import InputError
from minires.cli import options as cli_options
from minires.lab.figure import SMALL, render
from minires.lab.race import arms, figures, results, run
from minires.lab.race.arms import ABLATIONS, ARMS, Arm, Plan
from minires.nets import registry
from minires.runs import checkpoint
from minires.runs.config import Config
from minires.runs.metric import ERROR
from minires.runs.run import Run, read_run
from minires.train.stopping import Interrupted

TOY = Plan(
    ("relu", "tanh", "colour"),
    seeds=2,
    iterations=6,
    target=0.8,
    eval_every=2,
    images=16,
    bn_images=8,
    batch_size=8,
    ablation_iterations=4,
    ablation_evaluations=2,
)
TRIED = (0.02, 0.1)
RATES = (0.004, 0.02, 0.1)


@pytest.fixture(scope="module", autouse=True)
def fewer_rates():
    """Two rates for each arm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "ARMS", {k: replace(arm, rates=TRIED) for k, arm in ARMS.items()})
        patch.setattr(arms, "ARMS", run.ARMS)
        yield


@pytest.fixture(scope="module")
def raced(shapes, tmp_path_factory, fewer_rates):
    """A race that ran without a stop."""
    out = tmp_path_factory.mktemp("race")
    return out, run.run(TOY, out, shapes, quiet=True)


def content(folders):
    """Weights and measurements of runs, without their times."""
    found = {}
    for folder in folders:
        weights = {k: a.tobytes() for k, a in checkpoint.load_weights(folder).items()}
        lines = [{**line, "seconds": 0} for line in read_run(folder).evals]
        found[folder.name] = (weights, lines)
    return found


# -------------------------------------------------------------------------------------------- runs


def test_a_race_tries_every_rate_and_runs_every_seed_at_the_best(raced):
    out, folders = raced
    lanes, groups = results.read([out])
    assert [lane.arm for lane in lanes] == ["relu", "tanh"]
    expected = {f"{arm}-lr{lr:g}-seed0" for arm in ("relu", "tanh") for lr in TRIED}
    expected |= {f"{lane.arm}-lr{lane.best:g}-seed1" for lane in lanes}
    expected |= {f"{name}-seed{seed}" for name in ("baseline", "colour") for seed in (0, 1)}
    assert {folder.name for folder in folders} == expected
    assert {p.name for p in out.iterdir()} == expected
    for lane in lanes:
        assert list(lane.rates) == list(TRIED)
        assert list(lane.seeds) == [0, 1]
    assert {name: len(runs) for name, runs in groups.items()} == {"baseline": 2, "colour": 2}


def test_every_run_of_the_race_is_unregularised_and_ends_at_the_target(raced):
    for lane in results.read([raced[0]])[0]:
        for one in [*lane.rates.values(), *lane.seeds.values()]:
            config = one.config
            assert (config["augment"], config["weight_decay"], config["milestones"]) == (
                False,
                0,
                [],
            )
            assert (config["until"], config["eval_images"], config["momentum"]) == (0.8, 16, 0.9)
            assert one.done
            assert one.provenance["versions"]
            for line in one.evals[:-1]:
                assert line["train_error"] > 0.8
            assert (one.evals[-1]["train_error"] <= 0.8) == (one.reached is not None)


def test_ablations_differ_from_the_baseline_in_one_thing(shapes):
    base = arms.ablation(TOY, shapes, "baseline", 0).config
    assert base.until is None
    for name in ABLATIONS:
        config = arms.ablation(TOY, shapes, name, 0).config
        differing = {k for k, v in config.to_json().items() if base.to_json()[k] != v}
        expected = {"baseline": set(), "colour": {"pca_colour"}}
        assert differing == expected.get(name, {"net"}), name


def test_a_finished_race_is_left_as_it_is(raced, shapes, monkeypatch):
    out, folders = raced
    before = content(folders)
    monkeypatch.setattr(run, "train", lambda *_: pytest.fail("nothing is left to train"))
    assert run.run(TOY, out, shapes, quiet=True) == folders
    assert content(folders) == before


def test_an_interrupted_race_ends_with_the_same_bits(raced, shapes, tmp_path, monkeypatch):
    """It is stopped while it tries rates, then while it runs seeds, then in the ablations."""
    original = run.train
    said = []
    for calls in (2, 3, 3):
        left = iter(range(calls))

        def train(*arguments, left=left):
            if next(left, None) is None:
                raise Interrupted("stopped")
            return original(*arguments)

        monkeypatch.setattr(run, "train", train)
        with pytest.raises(Interrupted):
            run.run(TOY, tmp_path, shapes, quiet=True, say=said.append)
    monkeypatch.setattr(run, "train", original)
    folders = run.run(TOY, tmp_path, shapes, quiet=True, say=said.append)
    assert content(folders) == content(raced[1])
    assert [line.partition(":")[0] for line in said] == [
        "Training rates",
        "Training rates",
        "Training seeds at the best rates",
        "Training seeds at the best rates",
        "Training ablations",
        "Training ablations",
    ]


def test_a_rate_that_diverges_is_a_result(shapes, tmp_path, monkeypatch):
    tall = replace(ARMS["relu"], rates=(0.02, 1e30))
    monkeypatch.setattr(run, "ARMS", {"relu": tall})
    monkeypatch.setattr(arms, "ARMS", {"relu": tall})
    said = []
    plan = replace(TOY, arms=("relu",), seeds=1)
    folders = run.run(plan, tmp_path, shapes, quiet=True, say=said.append)
    assert any("rate 1e+30, seed 0: diverged after" in line for line in said)
    (lane,), _ = results.read(folders)
    assert lane.best == 0.02
    assert results.in_words(lane.rates[1e30]) == "diverged"
    assert "1e+30: diverged" in results.text([lane], {})


def test_a_folder_of_another_experiment_is_refused_before_any_training(shapes, tmp_path):
    other = Config("resnet8", "shapes10", 2, batch_size=4, eval_images=8, bn_images=0)
    plan = replace(TOY, arms=("relu",))
    from minires.train.loop import train

    train(other, tmp_path / "resnet8-seed0", shapes)
    before = sorted(tmp_path.rglob("*"))
    for out in (tmp_path, tmp_path / "resnet8-seed0"):
        with pytest.raises(InputError, match=r"something else, .*; choose another --out"):
            run.run(plan, out, shapes, quiet=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_race_of_another_size_in_the_same_folder_is_refused(raced, shapes):
    with pytest.raises(InputError, match="holds another run: iterations 6 there, 8 asked for"):
        run.run(replace(TOY, iterations=8), raced[0], shapes, quiet=True)


@pytest.mark.parametrize("chosen", [("relu", "thah"), ("lrn",), ()])
def test_unknown_arms_are_refused(chosen):
    with pytest.raises(InputError, match=r"the arms are relu, .*got|at least one arm"):
        Plan(chosen)


# ----------------------------------------------------------------------------------------- results


def made(arm, lr=0.02, seed=0, ended=None, error=0.3, iterations=5000, done=True, **changes):
    """A recorded run: it reached the target at iteration `ended`, or ended with `error`."""
    name = ARMS[arm].net
    recipe = {"until": 0.25, "eval_images": 100, "eval_every": 50} | changes
    config = Config(name, "shapes10", iterations, lr=lr, seed=seed, **recipe)
    at, last = (ended, 0.2) if ended else (iterations if done else 50, error)
    evals = [{"iteration": at, "train_error": last, "test_error": last + 0.1, "seconds": 1.0}]
    evals = [{"iteration": 25, "train_error": 0.9, "test_error": 0.9, "seconds": 0.5}, *evals]
    origin = {"name": "shapes10", "sha256": "0" * 64}
    facts = registry.facts(name)
    folder = Path(f"{arm}-{lr}-{seed}")
    return Run(folder, config.to_json(), facts, ERROR, origin, {}, [], evals, evals, [])


def lane(arm, *ends, best=0.02, rates=RATES):
    seeds = {s: made(arm, best, s, ended=end) for s, end in enumerate(ends)}
    tried = {lr: seeds[0] if lr == best else made(arm, lr) for lr in rates}
    return results.Lane(arm, tried, best, seeds)


def test_the_best_rate_is_the_first_at_the_target_then_the_lowest_error():
    runs = [made("relu", 0.1, ended=300), made("relu", 0.2, ended=250), made("relu", 0.3)]
    assert results.best_rate(runs) == 0.2
    missed = [made("relu", 0.1, error=0.5), made("relu", 0.2, error=0.4)]
    assert results.best_rate([*missed, made("relu", 0.3, error=0.3, done=False)]) == 0.2


def test_ratios_are_taken_seed_by_seed():
    found = results.ratio([lane("relu", 100, 200), lane("tanh", 400, 500)], "tanh")
    assert found.values == (4.0, 2.5)
    assert not found.least
    assert str(found) == "3.2 times (2.5 to 4.0)"


def test_a_target_that_tanh_misses_makes_the_ratio_a_lower_bound():
    lanes = [lane("relu", 500, 1000), lane("tanh", 2000, None)]
    found = results.ratio(lanes, "tanh")
    assert found.values == (4.0, 5.0)
    assert found.least
    assert (
        "Tanh needs more than 4.5 times (4.0 to 5.0) the iterations of ReLU without batch norm"
        in results.message(lanes)
    )
    assert results.in_words(lanes[1].seeds[1]) == "> 5,000"


def test_without_its_rival_an_arm_has_no_ratio():
    assert results.ratio([lane("tanh", 500)], "tanh") is None
    assert results.ratio([lane("relu", 500), lane("tanh", 500)], "relu") is None
    assert results.ratio([lane("relu", None), lane("tanh", 500)], "tanh") is None
    assert "tanh 500" in results.message([lane("tanh", 500)])


@pytest.mark.parametrize(("best", "side"), [(RATES[0], "lowest"), (RATES[-1], "highest")])
def test_a_best_rate_at_the_edge_is_said_loudly(best, side):
    shown = results.text([lane("relu", 100, best=best)], {})
    assert f"WARNING: the best rate of ReLU, {best:g}, is the {side} of those tried" in shown
    assert "WARNING" not in results.text([lane("relu", 100)], {})


def ablated():
    """Two seeds of a baseline, of one ablation that is worse with both, and of one that is not."""
    errors = {"baseline": (0.3, 0.32), "no-lrn": (0.35, 0.34), "dropout": (0.31, 0.31)}
    return {
        name: [made("relu", seed=s, error=e, until=None) for s, e in enumerate(values)]
        for name, values in errors.items()
    }


def test_an_ablation_is_compared_with_the_baseline_of_the_same_seed():
    groups = ablated()
    worse, mixed = (results.change(groups, name, "test") for name in ("no-lrn", "dropout"))
    assert worse.values.round(6).tolist() == [5.0, 2.0]
    assert worse.clear
    assert mixed.values.round(6).tolist() == [1.0, -1.0]
    assert not mixed.clear
    assert results.ablation_message(groups) == (
        "test error, points from the baseline: no response normalisation +3.5; "
        "no clear change in 2 seeds: dropout"
    )


# ----------------------------------------------------------------------------------------- figures


def texts(figure):
    from matplotlib.text import Text

    return [t for t in figure.findobj(Text) if t.get_text().strip()]


@pytest.mark.parametrize("kind", ["race", "one arm", "ablations"])
def test_figures_state_their_message_and_are_legible(kind):
    lanes = [lane("relu", 100, 200), lane("tanh", 2000, None)]
    if kind == "ablations":
        figure, said = figures.ablations(ablated()), "no response normalisation +3.5"
    elif kind == "race":
        figure, said = figures.race(lanes), "more than 22.5 times (20.0 to 25.0)"
    else:
        figure, said = figures.race(lanes[:1]), "ReLU 100"
    assert said in " ".join(figure.get_suptitle().split())
    assert render(figure, ".png")
    assert min(t.get_fontsize() for t in texts(figure)) >= SMALL


@pytest.mark.lessons
def test_lesson_9_tells_how_to_race_without_a_record_and_shows_one_that_is_there(monkeypatch):
    import tricks

    shown = []
    monkeypatch.setattr(tricks, "say", shown.append)
    monkeypatch.setattr(tricks, "show", lambda figure, alt: shown.append(alt))
    tricks.draw_race([])
    tricks.draw_ablations({})
    assert shown == []  # no empty promise
    assert tricks.RACE_COMMAND in tricks.race_in_words([], {})
    assert "ecorded by" not in tricks.race_in_words([], {})
    lanes = [lane("relu", 100, 200), lane("tanh", 2000, None)]
    assert tricks.race_in_words(lanes, ablated()).endswith(f"Recorded by `{tricks.RACE_COMMAND}`:")
    tricks.draw_race(lanes)
    tricks.draw_ablations(ablated())
    assert "more than 22.5 times" in shown[0]
    assert "no response normalisation +3.5" in shown[-1]


# ---------------------------------------------------------------------------------------- commands


@pytest.fixture
def typed(run_cli, monkeypatch, shapes, tmp_path):
    """Type `minires race ...` at a toy size."""
    monkeypatch.setattr(cli_options, "prepare", lambda *_: None)
    monkeypatch.setattr("minires.data.load", lambda *_: shapes)
    common = arms._common
    monkeypatch.setattr(arms, "_common", lambda *a: common(*a) | {"batch_size": 8})

    def run(*words):
        toy = ("--iterations", 2, "--eval-images", 8, "--backend", "numpy", "-q")
        return run_cli("race", "--out", tmp_path / "race", *toy, *words)

    return run


def test_the_command_prints_tables_draws_figures_and_gives_json(typed, tmp_path):
    code, out, err = typed("--arms", "relu,no-lrn", "--seeds", 1)
    assert (code, err) == (0, "")
    assert "WARNING: the best rate of ReLU" in out  # of two rates, each is at the edge
    assert "no response normalisation" in out
    assert (tmp_path / "race" / "race.png").exists()
    assert (tmp_path / "race" / "ablations.png").exists()
    code, out, _ = typed("--arms", "relu,no-lrn", "--seeds", 1, "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found["race"]["relu"]["iterations_by_rate"]) == {f"{lr:g}" for lr in TRIED}
    assert set(found["ablations_error_percent"]) == {"baseline", "no-lrn"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--arms", "relu,thah"), "'thah'; did you mean tanh or tanh-bn?"),
        (("--arms", ","), "--arms expects at least one name"),
        (("--seeds", "0"), "--seeds"),
        (("--backend", "cuda"), "--backend must be one of numpy, numba"),
        (("--dataset", "mnist"), "--dataset must be one of"),
    ],
)
def test_bad_input_is_one_line(typed, tmp_path, words, message):
    code, _, err = typed(*words)
    assert code == 2
    assert message in err
    assert not (tmp_path / "race").exists()


def test_a_folder_of_another_experiment_is_refused_before_images_are_read(run_cli, monkeypatch):
    monkeypatch.setattr("minires.data.load", lambda *_: pytest.fail("nothing is read"))
    other = Path(__file__).parents[1] / "lessons" / "runs" / "quick-shapes10"
    code, _, err = run_cli("race", "--out", other, "--backend", "numpy")
    assert code == 2
    assert "holds runs of something else" in err
    assert "choose another --out" in err


def test_the_rates_of_each_arm_rise_by_about_the_same_factor():
    for arm in [Arm(a.title, a.net, a.rates) for a in ARMS.values()]:
        assert len(arm.rates) == 5
        steps = [b / a for a, b in zip(arm.rates, arm.rates[1:], strict=False)]
        assert all(2 <= step <= 3 for step in steps)
        assert math.isclose(arms.ABLATION_RATE, ARMS["relu"].rates[2])
