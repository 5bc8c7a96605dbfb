"""Figures are measured: where their parts lie, and in which style they are drawn."""

import itertools
import os
import re
import sys
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from test_lab_extending import RMSE, curve, run

from minires import InputError
from minires.lab import plots
from minires.lab.families import family_styles
from minires.lab.figure import (
    Figure,
    _import_matplotlib,
    check_format,
    drawing,
    finish,
    shades,
)
from minires.lab.layer_plot import turning

FOUR = [curve(family, depth) for family in ("plain", "resnet") for depth in (20, 56)]
SIZES = {  # width and height in inches, of figures of all four runs and of the first
    "errors": ((1.2 + 2 * 4.9, 5.6), (1.2 + 4.9, 5.6)),
    "depth": ((7, 4.6 + 4 * 0.2), (7, 4.6 + 0.2)),
    "layers": ((11, 7.2), (11, 7.2)),
}


def extents(figure, *artists):
    """Boxes (left, bottom, right, top) of artists, as shares of the figure's width and height."""
    with drawing():
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw_without_rendering()
        boxes = [artist.get_tightbbox(renderer).extents for artist in artists]
    width, height = figure.bbox.size
    return np.array(boxes) / [width, height, width, height]


@pytest.mark.parametrize("runs", [FOUR, FOUR[:1]], ids=["four runs", "one run"])
@pytest.mark.parametrize("kind", plots.FIGURES)
def test_the_parts_of_a_figure_fill_it_and_do_not_overlap(kind, runs):
    figure = plots.FIGURES[kind](runs)
    assert figure.get_size_inches() == pytest.approx(SIZES[kind][len(runs) == 1])
    title, caption, *panels = extents(figure, *figure.texts, *figure.axes)
    everything = np.array([title, caption, *panels])
    assert (everything >= 0).all()
    assert (everything <= 1).all()
    tops, bottoms = [p[3] for p in panels], [p[1] for p in panels]
    assert 0 <= title[1] - max(tops) < 0.03
    assert 0 <= min(bottoms) - caption[3] < 0.03
    assert title[0] == pytest.approx(1 - title[2])  # centred
    assert caption[[2, 1]] == pytest.approx([0.995, 0.005])  # at the right
    for a, b in itertools.combinations(panels, 2):
        assert a[2] <= b[0] or a[1] >= b[3], (a, b)  # beside it or above it
    assert max(p[2] for p in panels) > 0.98


@pytest.mark.parametrize("kind", ["errors", "depth"])
def test_legends_are_below_the_axes_and_centred(kind):
    figure = plots.FIGURES[kind](FOUR)
    for axes in figure.axes:
        legend, label, frame = extents(figure, axes.get_legend(), axes.xaxis.label, axes.patch)
        assert 0 <= label[1] - legend[3] < 0.04
        assert legend[0] + legend[2] == pytest.approx(frame[0] + frame[2])
        assert not axes.get_legend().get_frame_on()


@pytest.mark.parametrize("width", [5.0, 8.0])
def test_titles_and_captions_are_wrapped_where_the_figure_ends(width):
    words = " ".join(["word", "longer", "a", "of it"] * 40)
    with drawing():
        figure = Figure(figsize=(width, 4), layout="constrained")
        figure.subplots()
        finish(figure, words, words)
    for text, limit in zip(figure.texts, (int(10 * width), int(12.5 * width)), strict=True):
        lines = text.get_text().split("\n")
        assert " ".join(lines) == words
        assert max(map(len, lines)) <= limit
        for line, following in itertools.pairwise(lines):
            assert len(f"{line} {following.split()[0]}") > limit


@pytest.mark.parametrize("kind", plots.FIGURES)
def test_fonts_spines_and_grids_are_the_same_in_every_figure(kind):
    figure = plots.FIGURES[kind](FOUR)
    title, caption = figure.texts
    assert (title.get_fontsize(), caption.get_fontsize(), caption.get_color()) == (13, 10, "0.35")
    for axes in figure.axes:
        assert axes.title.get_fontsize() == 12
        assert axes.xaxis.label.get_fontsize() == axes.yaxis.label.get_fontsize() == 11
        assert {text.get_fontsize() for text in axes.texts} <= {10}
        assert {s for s, spine in axes.spines.items() if spine.get_visible()} == {"left", "bottom"}
        horizontal, vertical = axes.yaxis.get_gridlines(), axes.xaxis.get_gridlines()
        assert {(line.get_visible(), line.get_alpha()) for line in horizontal} == {(True, 0.25)}
        assert not any(line.get_visible() for line in vertical)
        for text in axes.get_legend().get_texts() if axes.get_legend() else ():
            assert text.get_fontsize() == 10


def legend_of(axes):
    legend = axes.get_legend()
    return legend.handlelength, legend.columnspacing, legend._ncols


def test_curves_get_wider_up_to_a_limit_and_their_details_are_fixed():
    runs = [curve("plain", depth, seed) for depth in (8, 14, 20, 56) for seed in range(2)]
    (axes,) = plots.errors(runs).axes
    widths = [1.2, 2.1, 3, 3]
    lines = [
        line for line in axes.lines if line.get_linestyle() == "-" and line.get_marker() == "s"
    ]
    assert [line.get_linewidth() for line in lines] == pytest.approx(widths)
    assert {(line.get_markersize(), line.get_clip_on()) for line in lines} == {(4, False)}
    thin = [line for line in axes.lines if line.get_alpha() == 0.55]
    assert [line.get_linewidth() for line in thin] == pytest.approx([0.7 * w for w in widths])
    (mark,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert (mark.get_linewidth(), mark.get_color()) == (0.8, "0.5")
    (text,) = axes.texts
    assert (text.get_position(), text.get_color()) == ((50, 0.01), "0.35")
    assert text.get_transform() == axes.get_xaxis_transform()
    assert len(axes.collections) == 12  # a band around each line
    assert {band.get_alpha() for band in axes.collections} == {0.15}
    assert {tuple(band.get_linewidth()) for band in axes.collections} == {(0,)}
    assert legend_of(axes) == (2.5, 1, 2)


def test_a_legend_has_two_columns_of_nets_and_one_of_recipes():
    (axes,) = plots.errors([curve("plain", 20)]).axes
    assert legend_of(axes)[2] == 1
    recipes = [curve("plain", 20), curve("plain", 20, lr=0.1), curve("resnet", 20)]
    figure = plots.errors(recipes)
    assert [legend_of(axes)[2] for axes in figure.axes] == [1, 1]
    assert figure.get_size_inches() == pytest.approx((11, 5.6 + 0.4 * 3 / 2))


def test_panels_share_an_axis_and_ticks_are_few_whole_numbers():
    figure = plots.errors(FOUR)
    left, right = figure.axes
    assert left.get_shared_y_axes().joined(left, right)
    for axes, most in [(a, 5) for a in figure.axes] + [(a, 6) for a in plots.layers(FOUR).axes]:
        locator = axes.xaxis.get_major_locator()
        assert locator.tick_values(0, most).tolist() == list(range(most + 1))
        assert len(locator.tick_values(0, most + 1)) < most + 1
        assert locator.tick_values(0, 1).tolist() == [0, 1]


def test_batches_are_drawn_as_the_mean_of_a_25th_of_them():
    errors = np.linspace(0.9, 0.4, 75) + 0.05 * (-1) ** np.arange(75)
    lines = [
        {"kind": "train", "iteration": i, "error": e, "lr": 0.1, "seconds": 1.0}
        for i, e in enumerate(errors.tolist(), start=1)
    ]
    (axes,) = plots.errors([replace(curve("plain", 20), train=lines)]).axes
    drawn = axes.lines[0].get_ydata()
    expected = [100 * errors[max(0, end - 3) : end].mean() for end in range(1, 76)]
    np.testing.assert_allclose(drawn, expected, rtol=1e-9)


def test_points_by_depth_have_room_and_details_are_fixed():
    (axes,) = plots.depth(FOUR).axes
    assert axes.get_xlim() == pytest.approx((20 - 0.12 * 36, 56 + 0.12 * 36))
    assert axes.get_ylim() == pytest.approx((0, 1.08 * 45))
    assert legend_of(axes)[0] == 4
    for line, caps, _ in axes.containers:
        assert {cap.get_markersize() for cap in caps} == {6}  # twice the cap size of 3
        assert mpl.colors.same_color(line.get_markerfacecoloralt(), "white") or (
            line.get_fillstyle() == "full"
        )
    (nothing,) = plots.depth([run("plain", 20, train=0.0, test=0.0)]).axes
    assert nothing.get_ylim() == (0, 1)  # percent


def test_kinds_of_one_family_have_shades_of_its_colour_in_order():
    runs = [curve("plain", depth, lr=lr) for depth in (20, 56) for lr in (0.01, 0.1)]
    runs.append(curve("resnet", 20))
    (axes,) = plots.depth(runs).axes
    styles = family_styles(runs)
    light, dark = shades(styles["plain"], 2)
    (other,) = shades(styles["resnet"], 1)
    lines = [container[0] for container in axes.containers]
    expected = [light, light, dark, dark, other, other]
    np.testing.assert_array_equal([line.get_color() for line in lines], expected)
    assert [len(line.get_xdata()) for line in lines] == [2, 2, 2, 2, 1, 1]


def test_shades_reach_from_medium_to_dark():
    style = next(iter(family_styles(FOUR).values()))
    colours = mpl.colormaps[style.colormap]
    np.testing.assert_array_equal(shades(style, 1), colours([0.8]))
    np.testing.assert_array_equal(shades(style, 2), colours([0.5, 0.95]))
    np.testing.assert_allclose(shades(style, 3), colours([0.5, 0.725, 0.95]))


def test_lines_by_layer_have_fixed_details():
    figure = plots.layers([run("plain", 20), run("plain", 56), run("resnet", 20)])
    first, by_layer, by_size = figure.axes
    for axes in figure.axes:
        assert [line.get_linewidth() for line in axes.lines] == pytest.approx([1, 1.6, 1])
        assert {line.get_markersize() for line in axes.lines} == {3}
    assert by_size.get_legend().get_frame().get_alpha() == 0.8
    assert by_size.get_legend()._ncols == 2
    assert first.get_legend() is by_layer.get_legend() is None
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "layer, from the input",
        "layer, from the input",
        "layer, largest response first",
    ]
    assert by_layer.get_shared_y_axes().joined(by_layer, by_size)


def test_steps_are_panels_of_equal_width_that_share_an_axis():
    made = run("plain", 20)
    steps = [made.layers[0] | {"iteration": i} for i in (1, 10, 100)]
    figure = plots.layers([replace(made, layers=steps)])
    *gradients, by_layer, by_size = figure.axes
    assert len(gradients) == 3
    assert gradients[0].get_shared_y_axes().joined(gradients[0], gradients[2])
    spans = [(*axes.get_subplotspec().colspan,) for axes in figure.axes]
    assert spans == [(0, 1), (2, 3), (4, 5), (0, 1, 2), (3, 4, 5)]
    rows = [(*axes.get_subplotspec().rowspan,) for axes in figure.axes]
    assert rows == [(0,), (0,), (0,), (1,), (1,)]
    assert {axes.get_ylabel() for axes in (*gradients[1:], by_size)} == {""}
    assert by_layer.get_subplotspec().get_gridspec().get_geometry() == (2, 6)


def test_without_responses_the_gradients_are_all_there_is():
    figure = plots.layers([run("plain", 20, responses=False)])
    (axes,) = figure.axes
    assert figure.get_size_inches() == pytest.approx((11, 4.2))
    assert axes.get_subplotspec().get_gridspec().get_geometry() == (1, 2)
    assert "responses" not in figure.texts[1].get_text()


@pytest.mark.parametrize(
    ("smallest", "scale"), [(0.06, "linear"), (0.0599, "log"), (0.01, "log"), (0.6, "linear")]
)
def test_responses_that_differ_by_more_than_ten_have_a_logarithmic_axis(smallest, scale):
    stds = {"bn": smallest, "stage1.block1.body.bn1": 0.6}
    made = run("plain", 20)
    figure = plots.layers([replace(made, layers=[made.layers[0] | {"response_std": stds}])])
    assert {axes.get_yscale() for axes in figure.axes[1:]} == {scale}
    if scale == "linear":
        assert [axes.get_ylim() for axes in figure.axes[1:]] == [pytest.approx((0, 0.63))] * 2


def test_the_first_seed_and_the_last_record_are_shown():
    first, second = run("plain", 20), run("plain", 20, seed=1)
    line = first.layers[0]
    other = line | {"gradient_norm": dict.fromkeys(line["gradient_norm"], 9.0)}
    figure = plots.layers([first, replace(second, layers=[other])])
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.5, 0.7]
    without = [line | {"iteration": 1, "response_std": {}}, line | {"iteration": 2}]
    assert len(plots.layers([replace(first, layers=without)]).axes) == 4
    records = [line | {"iteration": i} for i in (1, 2)] + [
        line | {"iteration": 3, "response_std": {}}
    ]
    assert len(plots.layers([replace(first, layers=records)]).axes) == 3


def turned(family, share, seed=0):
    """A run whose first layer of two turned by this share of the last, and later by twice it."""
    made = run(family, 20, seed=seed)
    names = ("conv", "stage1.block1.body.conv1")
    lines = [
        made.layers[0] | {"iteration": i, "weight_norm": dict.fromkeys(names, 1.0)}
        | {"gradient_norm": dict(zip(names, (times * share, 1.0), strict=True))}
        for i, times in ((10, 1), (100, 1), (2000, 2))
    ]  # fmt: skip
    return replace(made, layers=lines)


def test_relative_steps_are_panels_by_step_with_a_thin_line_for_each_other_seed():
    runs = [turned("plain", 0.004), turned("plain", 0.02, seed=1), turned("resnet", 0.5)]
    figure = turning(runs)
    assert figure.get_size_inches() == pytest.approx((11, 4.6))
    left, middle, right = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["step 10", "step 100", "step 2,000"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["relative step, last layer = 1", "", ""]
    assert left.get_shared_y_axes().joined(left, right)
    for axes, times in ((left, 1), (middle, 1), (right, 2)):
        firsts = [0.004 * times, 0.02 * times, 0.5 * times, 0.01]
        assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx(firsts)
        assert [line.get_linewidth() for line in axes.lines] == [1, 0.8, 1, 1.2]
        assert axes.lines[-1].get_linestyle() == ":"
        assert axes.get_yscale() == "log"
        assert axes.get_xlabel() == "place: input 0, loss 1"
    assert left.get_legend() is middle.get_legend() is None
    labels = [text.get_text() for text in right.get_legend().get_texts()]
    assert labels == ["plain20", "resnet20"]
    title, caption = (text.get_text().replace("\n", " ") for text in figure.texts)
    assert title == (
        "Layers of plain20 below 1 % of the last one's step, by seed: "
        "1/0 of 2 at step 10, 1/0 at step 100, 1/0 at step 2,000"
    )
    assert caption.endswith("; thin: other seeds; dotted: 1 % of the last layer's")
    (caption,) = (text.get_text().replace("\n", " ") for text in turning(runs[1:]).texts[1:])
    assert caption.endswith("; one seed; dotted: 1 % of the last layer's")


def test_a_sheet_is_as_large_as_its_page_and_has_no_frame():
    page = np.zeros((84, 170, 3), np.uint8)
    figure = plots.sheet(page, ["a", "b", "c"])
    (axes,) = figure.axes
    assert figure.get_size_inches() == pytest.approx((170 / 40, 84 / 40 + 0.3))
    assert axes.get_xticks() == pytest.approx([170 / 6, 85, 170 * 5 / 6])
    assert not any(spine.get_visible() for spine in axes.spines.values())
    assert axes.get_yticks().size == 0
    tick = axes.xaxis.get_major_ticks()[0]
    assert tick.label2.get_visible()
    assert not tick.label1.get_visible()
    assert tick.label2.get_fontsize() == 10
    assert tick.tick2line.get_markersize() == 0
    assert axes.images[0].get_interpolation() == "nearest"


def test_what_cannot_be_drawn_is_refused_with_advice(tmp_path):
    with pytest.raises(InputError, match="measured its rmses yet; train longer, or draw --kind"):
        plots.depth([replace(run("plain", 20, metric=RMSE), evals=[])])
    with pytest.raises(InputError, match="without gradients and responses by layer; train them"):
        plots.layers([replace(run("plain", 20), layers=[])])
    with pytest.raises(InputError, match=re.escape("must end in .png, .svg, .pdf, got a.gif")):
        check_format(tmp_path.__class__("a.gif"))
    with pytest.raises(InputError, match="must end in"):
        plots.save(plots.sheet(np.zeros((40, 40, 3), np.uint8), ["a"]), tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ending", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")]
)
def test_a_saved_figure_has_the_format_of_its_name_and_the_same_bytes_every_time(
    tmp_path, ending, start
):
    figure = plots.sheet(np.zeros((40, 40, 3), np.uint8), ["a"])
    plots.save(figure, tmp_path / f"a{ending}")
    content = (tmp_path / f"a{ending}").read_bytes()
    assert content.startswith(start)
    assert content == plots.render(plots.sheet(np.zeros((40, 40, 3), np.uint8), ["a"]), ending)
    assert b"Date" not in content


@pytest.mark.parametrize(
    ("choice", "used"), [("svg", "svg"), ("no such backend", "pdf"), ("", "pdf"), (None, "pdf")]
)
def test_the_users_choice_of_a_backend_is_kept(choice, used, monkeypatch):
    monkeypatch.setitem(mpl.rcParams, "backend", "pdf")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    if choice is not None:
        monkeypatch.setenv("MPLBACKEND", choice)
    assert _import_matplotlib() is mpl
    assert os.environ.get("MPLBACKEND") == choice
    assert mpl.rcParams["backend"] == used


def test_a_matplotlib_that_cannot_be_imported_is_one_message(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"cannot be imported \(.*\); check the file matplotlibrc"):
        _import_matplotlib()
    assert os.environ["MPLBACKEND"] == "svg"
