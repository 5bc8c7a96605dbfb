"""Figures, tables, claims and reports take networks and metrics that minires does not know."""

import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from minires import InputError
from minires.errors import quoted
from minires.lab import claims, plots, report, tables, wording
from minires.lab.closing import closing_words
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


# --------------------------------------------------------------------------- artists of figures


def curve(family, depth, seed=0, shift=0.0, **changes):
    """A run of 100 iterations with four training lines and two evaluations."""
    made = run(family, depth, seed=seed, iterations=100, milestones=(50,), **changes)
    lines = [(1, 0.9, 0.1), (40, 0.8, 0.1), (60, 0.6, 0.01), (100, 0.5, 0.01)]
    train = [
        {"kind": "train", "iteration": i, "error": e + shift, "lr": lr, "seconds": 1.0}
        for i, e, lr in lines
    ]
    evals = [
        {"kind": "eval", "iteration": i, "train_error": a + shift, "test_error": b + shift}
        | {"seconds": 60.0}
        for i, a, b in ((50, 0.7, 0.75), (100, 0.4, 0.45))
    ]
    return replace(made, train=train, evals=evals)


def caption(figure):
    """The text below a figure; its first text is the title."""
    (below,) = figure.texts[1:]
    return below.get_text().replace("\n", " ")


def by_label(axes):
    return {line.get_label(): line for line in axes.lines if line.get_label()[0] != "_"}


def test_curves_by_iteration_show_each_value_in_its_style():
    figure = plots.errors([curve("plain", 20), curve("plain", 56, shift=0.05)])
    (axes,) = figure.axes
    thin = [line for line in axes.lines if line.get_alpha() == 0.55]
    assert [line.get_xdata().tolist() for line in thin] == [[1, 40, 60, 100]] * 2
    assert thin[1].get_ydata() == pytest.approx([95, 85, 65, 55])
    assert thin[1].get_linewidth() > thin[0].get_linewidth()
    lines = by_label(axes)
    assert list(lines) == [
        "plain20 train 40.0 %",
        "plain20 test 45.0 %",
        "plain56 train 45.0 %",
        "plain56 test 50.0 %",
    ]
    for label, ends in (("plain56 train 45.0 %", [75, 45]), ("plain56 test 50.0 %", [80, 50])):
        line = lines[label]
        assert line.get_xdata().tolist() == [50, 100]
        assert line.get_ydata() == pytest.approx(ends)
        train = "train" in label
        assert line.get_linestyle() == ("--" if train else "-")
        assert line.get_marker() == ("o" if train else "s")
    shallow, deep = lines["plain20 test 45.0 %"], lines["plain56 test 50.0 %"]
    assert deep.get_linewidth() > shallow.get_linewidth()
    assert sum(deep.get_color()[:3]) < sum(shallow.get_color()[:3])  # darker
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(lines)


def test_axes_by_iteration_have_titles_units_limits_and_marks():
    figure = plots.errors([curve("plain", 20), curve("resnet", 20)])
    left, right = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["plain nets", "residual nets"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["iteration"] * 2
    assert (left.get_ylabel(), right.get_ylabel()) == ("error (%)", "")
    for axes in figure.axes:
        assert axes.get_xlim() == (0, 100)
        assert axes.get_ylim() == (0, 100)
        (mark,) = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert list(mark.get_xdata()) == [50, 50]
        assert [text.get_text() for text in axes.texts] == [" lr/10"]
    below = caption(figure)
    assert figure.get_suptitle().startswith("Training error: resnet20 and plain20 alike")
    assert "toy data, 100 iterations, batch 128, lr 0.01; errors in evaluation mode" in below
    assert "on 1000 images (train dashed, test solid); thin lines: training batches" in below


def test_several_seeds_are_a_mean_and_a_band_and_the_caption_counts_them():
    figure = plots.errors([curve("plain", 20, seed, shift=0.1 * seed) for seed in range(3)])
    (axes,) = figure.axes
    lines = by_label(axes)
    assert lines["plain20 train 50.0 %"].get_ydata() == pytest.approx([80, 50])
    assert axes.lines[0].get_ydata() == pytest.approx([100, 90, 70, 60])
    batches = axes.collections[0].get_paths()[0].vertices
    assert batches[:, 1].min() == pytest.approx(50)
    assert batches[:, 1].max() == pytest.approx(110)
    band = axes.collections[1].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(40)
    assert band[:, 1].max() == pytest.approx(90)
    assert len(axes.collections) == 3  # batches, train, test
    assert "lr 0.01, 3 seeds; errors" in caption(figure)


def test_where_the_seeds_differ_in_number_each_label_counts_them():
    runs = [curve("plain", 20), curve("plain", 20, 1), curve("plain", 56)]
    (axes,) = plots.errors(runs).axes
    assert list(by_label(axes))[::2] == ["plain20 train 40.0 %, 2 seeds", "plain56 train 40.0 %"]


def test_a_run_without_evaluations_is_named_by_its_batches():
    (axes,) = plots.errors([replace(curve("plain", 20), evals=[])]).axes
    assert list(by_label(axes)) == ["plain20"]


def test_points_by_depth_are_means_with_bars_from_the_least_to_the_most():
    runs = [curve("plain", d, seed, shift=0.05 * seed) for d in (20, 56) for seed in range(2)]
    figure = plots.depth([*runs, curve("resnet", 20, shift=-0.1)])
    (axes,) = figure.axes
    assert axes.get_xlabel() == "depth (weighted layers)"
    assert axes.get_ylabel() == "error at the end (%)"
    assert axes.get_xticks().tolist() == [20, 56]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 50
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [
        "plain train: 42.5, 42.5 %",
        "plain test: 47.5, 47.5 %",
        "resnet train: 30.0 %",
        "resnet test: 35.0 %",
    ]
    line, caps, (bars,) = axes.containers[0]
    assert line.get_xdata().tolist() == [20, 56]
    assert line.get_ydata() == pytest.approx([42.5, 42.5])
    assert np.array(bars.get_segments())[:, :, 1] == pytest.approx(np.array([[40, 45]] * 2))
    assert len(caps) == 2
    lines = [container[0] for container in axes.containers]
    assert [line.get_linestyle() for line in lines] == ["--", "-", "--", "-"]
    assert [line.get_marker() for line in lines] == ["o", "s", "o", "s"]
    white = [mpl.colors.same_color(line.get_markerfacecolor(), "white") for line in lines]
    assert white == [True, True, False, False]
    assert figure.get_suptitle().startswith("Plain nets of all depths end alike")


def test_lines_by_layer_are_the_recorded_norms_and_responses():
    plain, residual = run("plain", 20), run("resnet", 20)
    norms = {"conv": 1.0, "stage1.block1.shortcut": 7.0, "stage2.block1.body.conv1": 3.0}
    line = {"kind": "layers", "weight_norm": norms, "gradient_norm": norms}
    stds = {"bn": 0.5, "stage1.block1.body.bn1": 0.25, "stage1.block1.body.bn2": 0.75}
    before = dict.fromkeys(stds, 0.1)
    layers = [
        line | {"iteration": i, "response_std": std} for i, std in ((1, before), (1000, stds))
    ]
    figure = plots.layers([replace(plain, layers=layers), residual])
    first, last, by_layer, by_size = figure.axes
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "gradients at step 1",
        "gradients at step 1,000",
        "last recorded responses by layer",
        "the same responses, sorted by size",
    ]
    assert [len(axes.lines) for axes in figure.axes] == [2, 1, 2, 2]
    assert first.lines[0].get_xdata().tolist() == [1, 2]
    assert first.lines[0].get_drawstyle() == "default"
    assert first.lines[0].get_ydata().tolist() == [1.0, 3.0]  # shortcuts are left out
    assert by_layer.lines[0].get_ydata().tolist() == [0.5, 0.25, 0.75]
    assert by_size.lines[0].get_ydata().tolist() == [0.75, 0.5, 0.25]
    assert first.get_yscale() == last.get_yscale() == "log"
    assert by_layer.get_yscale() == "linear"
    assert by_layer.get_ylim() == pytest.approx((0, 1.05 * 0.75))
    assert (first.get_ylabel(), by_layer.get_ylabel()) == ("gradient norm", "standard deviation")
    assert by_size.get_xlabel() == "layer, largest response first"
    assert [line.get_marker() for line in first.lines] == ["o", ""]
    assert [text.get_text() for text in by_size.get_legend().get_texts()] == ["plain20", "resnet20"]
    assert figure.get_suptitle().replace("\n", " ") == (
        "Mean response plain20 0.50, resnet20 0.60; "
        "in a step, the largest gradient is at most 7 times the smallest"
    )
    assert "one seed; responses: after batch norm, before ReLU" in caption(figure)


def test_lines_by_layer_are_darker_and_wider_with_depth():
    (axes, *_) = plots.layers([run("plain", 20), run("plain", 56)]).axes
    shallow, deep = axes.lines
    assert deep.get_linewidth() > shallow.get_linewidth()
    assert sum(deep.get_color()[:3]) < sum(shallow.get_color()[:3])
    assert shallow.get_label() == "plain20"


def test_responses_of_very_different_size_have_a_logarithmic_axis():
    wide = {"bn": 0.05, "stage1.block1.body.bn1": 0.6}
    made = run("plain", 20)
    figure = plots.layers([replace(made, layers=[made.layers[0] | {"response_std": wide}])])
    assert figure.axes[1].get_yscale() == "log"


def test_a_contact_sheet_names_each_class_above_its_column():
    page = np.zeros((40, 80, 3), np.uint8)
    (axes,) = plots.sheet(page, ["left", "right"]).axes
    assert axes.get_xticks().tolist() == [20, 60]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["left", "right"]
    assert np.array_equal(axes.images[0].get_array(), page)


@pytest.mark.parametrize("kind", plots.FIGURES)
def test_text_in_figures_is_at_least_10_points_and_pictures_have_200_dpi(kind):
    figure = plots.FIGURES[kind]([curve("plain", 20), curve("plain", 56), curve("resnet", 20)])
    sizes = [t.get_fontsize() for t in figure.findobj(mpl.text.Text) if t.get_text()]
    assert min(sizes) >= 10
    with Image.open(io.BytesIO(plots.render(figure, ".png"))) as image:
        width, height = figure.get_size_inches()
        for pixels, inches in zip(image.size, (width, height), strict=True):
            assert abs(pixels - 200 * inches) < 1  # versions of matplotlib round in different ways


def test_families_differ_in_grey_too():
    runs = [curve(family, 20, shift=0.01 * i) for i, family in enumerate("abcd")]
    styles = family_styles([*runs, curve("plain", 20), curve("resnet", 20)]).values()
    assert len({style.marker for style in styles}) == 6
    assert len({style.fill for style in styles}) == 6


def test_names_with_dollar_signs_are_no_formulas():
    strange = Facts("$x$8", "to$y$", 8)
    figure = plots.errors(
        [replace(curve("toy", 8), facts=strange, data={"name": "a$b$\\frac", "sha256": "0"})]
    )
    plots.render(figure, ".svg")
    (axes,) = figure.axes
    assert axes.get_title() == r"to\$y\$"


def test_the_users_settings_of_matplotlib_change_no_figure():
    runs = [curve("plain", 20)]
    expected = plots.render(plots.errors(runs), ".svg")
    mine = {"text.usetex": True, "savefig.bbox": "tight", "font.size": 30, "lines.linewidth": 9}
    with mpl.rc_context(mine):
        assert plots.render(plots.errors(runs), ".svg") == expected
        assert mpl.rcParams["font.size"] == 30  # and they come back


ENVIRONMENTS = {
    "an unknown backend": {"MPLBACKEND": "foo"},
    "a backend of notebooks": {"MPLBACKEND": "agg"},
    "a matplotlibrc with TeX": {"MATPLOTLIBRC": "text.usetex: True\nsavefig.bbox: tight\n"},
    "a broken matplotlibrc": {"MATPLOTLIBRC": "text.usetex True:\nfoo: bar\nbackend: nonsense\n"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_figures_are_drawn_in_any_environment(name, tmp_path):
    changes = dict(ENVIRONMENTS[name])
    if "MATPLOTLIBRC" in changes:
        (tmp_path / "matplotlibrc").write_text(changes["MATPLOTLIBRC"])
        changes["MATPLOTLIBRC"] = str(tmp_path)
    program = (
        "import sys\n"
        "from minires.lab import claims, closing, notebook, tables\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from minires.lab import plots\n"
        "import numpy as np\n"
        "figure = plots.sheet(np.zeros((40, 40, 3), np.uint8), ['a'])\n"
        "print(len(plots.render(figure, '.png')) > 100)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | changes
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert found.stdout == "True\n", found.stderr
    assert "Traceback" not in found.stderr


# ------------------------------------------------------------------------------- closing words


def words(*runs):
    """The closing words in one line each, by their head."""
    found = closing_words(runs, Path("an exp"))
    assert max(map(len, found.splitlines())) < 80
    parts = re.split(r"(?m)^(Result|Meaning|Next): +", found)
    return {
        head: " ".join(text.split()) for head, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_closing_words_say_the_result_its_meaning_and_what_to_do_next():
    runs = [run("plain", 20, 0.3), run("plain", 56, 0.6), run("resnet", 56, 0.25)]
    assert words(*runs) == {
        "Result": "plain56 has 30.0 points more training error than plain20. "
        "With shortcuts, resnet56 has 35.0 points less than plain56.",
        "Meaning": "A deeper net can represent every shallower one: its additional layers may be "
        "identities. So a larger training error is a failure of training, not of the net.",
        "Next": f"minires report {quoted(Path('an exp'))} Lesson 5a explains the experiment: "
        "lessons/05a_degradation.ipynb",
    }
    lines = closing_words(runs, Path("an exp")).splitlines()
    assert lines[-2].endswith(quoted(Path("an exp")))  # a command on one line


def test_closing_words_claim_nothing_that_was_not_seen():
    shallow, deep = run("plain", 20, 0.30), run("plain", 56, 0.33)  # noise: 4.2 points
    alike = words(shallow, deep)
    assert alike["Result"] == (
        "plain56 has 3.0 points more training error than plain20; chance alone explains 4.2 points."
    )
    better = words(shallow, run("plain", 56, 0.2))
    assert better["Result"] == "plain56 has 10.0 points less training error than plain20."
    assert better["Meaning"] == alike["Meaning"]
    assert alike["Meaning"].startswith("These runs do not show the degradation problem.")
    assert alike["Meaning"].endswith("The smallest preset has 280 iterations.")
    longer = [run("plain", depth, 0.3, iterations=280) for depth in (20, 56)]
    longer = [replace(r, evals=[r.evals[0] | {"iteration": 280}]) for r in longer]
    assert "preset" not in words(*longer)["Meaning"]
    helpless = words(shallow, run("plain", 56, 0.6), run("resnet", 56, 0.6))
    assert helpless["Result"].endswith("Shortcuts did not help: resnet56 is not better.")


@pytest.mark.parametrize(
    "runs",
    [
        [run("plain", 20)],
        [run("resnet", 20), run("resnet", 56)],
        [run("plain", 20, metric=RMSE), run("plain", 56, 0.9, metric=RMSE)],
        [run("plain", 20, metric=ACCURACY), run("plain", 56, 0.9, metric=ACCURACY)],
        [run("plain", 20), run("plain", 20, lr=0.1), run("plain", 56, 0.9)],
        [run("plain", 20), replace(run("plain", 56, 0.9), evals=[])],
    ],
    ids=["one", "no plain pair", "no fraction", "accuracy", "two recipes", "not finished"],
)
def test_closing_words_without_a_pair_repeat_the_message(runs):
    found = words(*runs)
    assert found["Result"] == f"{tables.message(runs)}."
    assert found["Meaning"].startswith("The degradation problem shows when")


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
    advice = "give the folders of one metric only, such as exp/plain8-seed0"
    with pytest.raises(InputError, match=rf"same metric, got error .* and rmse .*{advice}"):
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


def test_runs_with_different_metrics_are_judged_apart_and_the_reason_is_said():
    judged = claims.judge([run("plain", 20), run("plain", 56, metric=RMSE)])
    assert "(iv): needs a metric that is a fraction of images, which rmse is not" in claims.text(
        judged
    )
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
