"""Figures, tables, claims and reports take networks and metrics that minires does not know."""

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from minires import InputError
from minires.lab import claims, plots, report, tables, wording
from minires.lab.families import family_styles, panels
from minires.lab.recorded import by_net, distinguishing, final, metric_of, noise
from minires.nets.network import Facts
from minires.runs.config import Config
from minires.runs.metric import ERROR, Metric
from minires.runs.run import Run
from minires.text import plural

RMSE = Metric("rmse", "m", 10.0)
ACCURACY = Metric("accuracy", "%", 100.0, lower_is_better=False, fraction=True)


def run(family, depth, train=0.5, test=0.6, metric=ERROR, seed=0, responses=True, **changes):
    """A finished run, its metric recorded as `train` and `test`."""
    name = f"{family}{depth}"
    config = Config(name, "toy data", 20, lr=0.01, seed=seed, eval_images=1000)
    config = replace(config, **changes)
    lines = [
        {"kind": "train", "iteration": i, metric.name: train, "lr": 0.01, "seconds": 6.0}
        for i in (1, 20)
    ]
    measured = {f"train_{metric.name}": train, f"test_{metric.name}": test}
    values = {"conv": 0.5, "stage1.block1.body.conv1": 0.7}
    layer = {"gradient_norm": values, "weight_norm": values}
    layer["response_std"] = values if responses else {}
    return Run(
        folder=Path("exp") / f"{name}-seed{seed}",
        config=config.to_json(),
        facts=Facts(name, family, depth),
        metric=metric,
        data={"name": "toy data", "sha256": "0" * 64},
        provenance={},
        continued=[],
        train=lines,
        evals=[{"kind": "eval", "iteration": 20, "seconds": 6.0, **measured}],
        layers=[{"kind": "layers", "iteration": 1, **layer}],
    )


# ---------------------------------------------------------------------------------- new families


def test_a_new_family_has_a_panel_and_a_colour_of_its_own():
    figure = plots.errors([run("plain", 8), run("resnet", 8), run("toy", 8)])
    assert [axes.get_title() for axes in figure.axes] == ["plain nets", "residual nets", "toy"]
    for axes, colormap in zip(figure.axes, ("Reds", "Blues", "Greens"), strict=True):
        (expected,) = mpl.colormaps[colormap]([0.8])
        assert all(np.allclose(line.get_color(), expected) for line in axes.lines)


def test_new_families_take_colours_in_the_order_in_which_they_appear():
    runs = [run(family, 8) for family in ("zebra", "ant", "plain")]
    styles = family_styles(runs)
    assert list(styles) == ["plain", "zebra", "ant"]
    assert [style.colormap for style in styles.values()] == ["Reds", "Greens", "Purples"]
    four = family_styles([run(family, 8) for family in "abcd"])
    assert len({style.colormap for style in four.values()}) == 4


def test_residual_nets_for_imagenet_are_drawn_as_residual_nets():
    (members,) = panels([run("resnet", 20), run("imagenet-resnet", 18)]).values()
    assert [member.depth for member in members] == [20, 18]


def test_a_new_family_has_a_line_of_its_own_by_depth():
    runs = [run("plain", 8), run("plain", 14), run("toy", 8), run("toy", 14)]
    (axes,) = plots.depth(runs).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0] == "plain train: 50.0, 50.0 %"
    assert labels[2] == "toy train: 50.0, 50.0 %"


def test_a_new_family_is_compared_by_depth_and_with_the_plain_net():
    runs = [run("plain", 8), run("toy", 8, 0.3), run("toy", 14, 0.2)]
    expected = "toy14 10.0 points below toy8; toy8 20.0 points below plain8"
    assert tables.message(runs) == f"Training error: {expected}"


def test_networks_without_batch_norm_have_gradients_but_no_responses():
    runs = [run("toy", 8, responses=False)]
    figure = plots.layers(runs)
    assert [axes.get_title() for axes in figure.axes] == ["gradients at step 1"]
    assert tables.layers_message(runs).startswith("In a step, the largest gradient")


# ----------------------------------------------------------------------------------- new metrics


def test_the_table_and_the_message_name_the_metric_and_its_unit():
    runs = [run("plain", 8, 0.5, 0.6, RMSE), run("plain", 14, 0.7, 0.8, RMSE)]
    head, first, _ = tables.table_lines(runs)
    assert head[3:5] == ["train rmse m", "test rmse m"]
    assert first[3:5] == ["5", "6"]
    assert tables.message(runs) == "Training rmse: plain14 2 m above plain8"
    assert tables.message(runs[:1]) == "Training rmse: plain8 5 m"


def test_equal_values_without_a_known_sampling_error_are_alike():
    runs = [run("plain", 8, metric=RMSE), run("plain", 14, metric=RMSE)]
    assert tables.message(runs) == "Training rmse: plain14 and plain8 alike"


def test_only_fractions_are_drawn_from_0_to_100():
    (axes,) = plots.errors([run("plain", 8, metric=RMSE)]).axes
    assert axes.get_ylabel() == "rmse (m)"
    assert axes.get_ylim()[1] < 10
    (axes,) = plots.errors([run("plain", 8, metric=ACCURACY)]).axes
    assert axes.get_ylabel() == "accuracy (%, higher is better)"
    assert axes.get_ylim() == (0, 100)


def test_the_figure_by_depth_names_the_metric():
    (axes,) = plots.depth([run("plain", 8, metric=RMSE), run("plain", 14, metric=RMSE)]).axes
    assert axes.get_ylabel() == "rmse at the end (m)"
    with pytest.raises(InputError, match="has measured its rmses yet"):
        plots.depth([replace(run("plain", 8, metric=RMSE), evals=[])])


@pytest.mark.parametrize(
    "draw", [plots.errors, plots.depth, tables.message, tables.table, tables.evaluation_note]
)
def test_runs_with_different_metrics_are_refused(draw):
    with pytest.raises(InputError, match=r"same metric, got error .* and rmse"):
        draw([run("plain", 8), run("plain", 14, metric=RMSE)])


def test_noise_is_known_of_fractions_only():
    assert noise(([run("plain", 8, metric=ACCURACY)], "train")) == pytest.approx(
        100 * 2 * (0.5 * 0.5 / 1000) ** 0.5
    )
    with pytest.raises(InputError, match="rmse is unknown: it is not a fraction"):
        noise(([run("plain", 8, metric=RMSE)], "train"))


def test_final_values_have_the_unit_of_the_metric():
    assert final([run("plain", 8, metric=RMSE)], "test") == pytest.approx([6.0])


def test_the_report_names_the_metric():
    html = report.page([run("plain", 8, metric=RMSE)], {})
    assert "<h2>Rmses at the end</h2>" in html
    assert "<title>Training rmse: plain8 5 m</title>" in html
    assert "error" not in html.split("<h2>Claims</h2>")[0].split("</style>")[1].split("data:")[0]


def test_a_metric_without_sampling_error_decides_no_claim():
    runs = [run("plain", d, t, 0.9, RMSE) for d, t in ((20, 0.5), (56, 0.8))]
    (rows,) = claims.judge(runs).values()
    found = {claim.key: verdict for claim, verdict in rows if claim.key in ("i", "ii", "iii")}
    assert {verdict.held for verdict in found.values()} == {None}
    assert found["i"].numbers.startswith("plain56 above plain20 by 3 m")
    needed = "needs a metric that is a fraction of images, which rmse is not"
    assert found["i"].reason == found["iii"].reason == needed


@pytest.mark.parametrize(("plain56", "held"), [(0.2, True), (0.7, False)])
def test_where_higher_is_better_the_worse_net_is_the_lower_one(plain56, held):
    tier = {"iterations": 280, "batch_size": 64, "augment": False}
    runs = [
        replace(made, evals=[made.evals[0] | {"iteration": 280}])
        for made in (
            run("plain", 20, 0.6, metric=ACCURACY, **tier),
            run("plain", 56, plain56, metric=ACCURACY, **tier),
        )
    ]
    (rows,) = claims.judge(runs).values()
    (verdict,) = (verdict for claim, verdict in rows if claim.key == "i")
    assert verdict.held is held
    assert verdict.numbers.startswith("plain56 below plain20 by ")


def test_runs_with_different_metrics_are_judged_apart():
    judged = claims.judge([run("plain", 20), run("plain", 56, metric=RMSE)])
    ends = [title.split(", ", 3)[3].split(" on ")[0] for title in judged]
    assert ends == ["errors", "rmses"]


# ---------------------------------------------------------------------------------------- wording


def test_a_metric_is_worded_with_its_unit():
    assert wording.amounts(ERROR, [30, 40.04]) == "30.0, 40.0 %"
    assert wording.difference(ERROR, 3) == "3.0 points"
    assert wording.difference(RMSE, 0.12345) == "0.123 m"
    assert wording.column_head(Metric("loss"), "train") == "train loss"
    assert wording.axis_label(Metric("score", lower_is_better=False)) == "score (higher is better)"
    assert wording.axis_label(Metric("loss")) == "loss"


@pytest.mark.parametrize(
    ("noun", "expected"), [("error", "errors"), ("loss", "losses"), ("accuracy", "accuracies")]
)
def test_plurals_are_regular(noun, expected):
    assert plural(noun) == expected


def test_the_fewest_settings_that_tell_recipes_apart_are_named():
    recipes = [{"a": 1, "b": 1, "c": 0}, {"a": 1, "b": 2, "c": 0}, {"a": 2, "b": 3, "c": 0}]
    assert distinguishing(recipes) == ("b",)
    assert distinguishing(recipes[:1]) == ()
    crossed = [{"a": a, "b": b} for a in (0, 1) for b in (0, 1)]
    assert distinguishing(crossed) == ("a", "b")
    runs = [run("plain", 8), run("plain", 8, lr=0.1), run("plain", 14)]
    assert list(by_net(runs)) == ["plain8, lr 0.01", "plain8, lr 0.1", "plain14"]
    assert metric_of(runs) == ERROR
