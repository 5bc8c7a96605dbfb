"""The timing of ranks: they take real steps, and the model is the one that is described."""

import json

import pytest
import specks

from minires import InputError, plugins
from minires.bench import ranks
from minires.bench.ranks import Row
from minires.lab import rank_plot


def test_the_model_divides_the_work_and_moves_every_gradient_through_rank_0():
    measured = [Row(1, 8.0, 0.0), Row(2, 5.0, 1.0)]
    size = 100
    assert ranks.passing(2, size) == 100 + 2 * 100  # one gradient in, two out
    assert ranks.passing(3, size) == 2 * 100 + 2 * 3 * 100
    eight, many = ranks.predict(measured, size)
    assert eight == Row(8, 8 / 8 + 7 * 9 * 100 / 300, 21.0, prediction=True)
    assert (many.ranks, many.prediction) == (64, True)
    assert ranks.predict(measured[:1], size) == []


def test_the_table_says_what_is_measured_and_what_is_predicted():
    rows = [Row(1, 2.0, 0.0), Row(2, 1.25, 0.25), Row(8, 1.0, 0.75, prediction=True)]
    lines = ranks.table("speck", rows, 16).splitlines()
    assert [line.split()[1:] for line in lines[1:]] == [
        ["measured", "1", "8.00", "100", "%", "0", "%"],
        ["measured", "2", "12.8", "80", "%", "20", "%"],
        ["prediction", "8", "16.0", "25", "%", "75", "%"],
    ]


@pytest.mark.parametrize("listed", ["", "2,4", "1,3", "1,x", "1,-2", "0,1"])
def test_numbers_of_ranks_that_cannot_share_a_batch_are_refused(listed):
    with pytest.raises(InputError, match="--ranks: expected 1 and other numbers"):
        ranks.counts(listed, 16)


@pytest.fixture
def plugin(monkeypatch):
    monkeypatch.setattr(plugins, "LOADED", [])
    yield specks.__file__
    specks.unregister()


def test_two_ranks_are_timed_and_drawn(run_cli, plugin, tmp_path):
    words = ["--nets", "speck", "--backend", "numpy", "--batch-size", 8, "--rounds", 2, "--quiet"]
    words += ["--figure", tmp_path / "ranks.png", "--out", tmp_path / "ranks.json"]
    code, out, err = run_cli("--plugin", plugin, "bench", *words, "--ranks", "1,2")
    assert code == 0, err
    assert (out.count("measured"), out.count("prediction")) == (2, 1)
    assert err == ""
    assert (tmp_path / "ranks.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "ranks.json").read_text())["ranks"]
    assert [row["ranks"] for row in rows] == [1, 2, 8]  # no more machines than images


def test_the_figure_tells_predictions_from_measurements():
    measured, predicted = {1: 80.0, 2: 120.0}, {2: 150.0, 4: 200.0, 8: 100.0, 64: 2.0}
    figure = rank_plot.speeds("speck", measured, predicted, "caption")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    drawn = {
        name.split(":")[0]: [*zip(*line.get_data(), strict=True)] for name, line in lines.items()
    }
    assert drawn["measured"] == [*measured.items()]
    assert drawn["prediction of a model"] == [*predicted.items()]
    assert figure._suptitle.get_text().replace("\n", " ") == (
        "speck: 2 ranks train 1.5 times as fast as one; predicted: 2.5 times on 4 machines, "
        "less than 0.1 times on 64"
    )
    written = {text.xy: text.get_text() for text in axes.texts}
    assert written == {
        (1, 80): "80",
        (2, 120): "120",
        (4, 200): "200",
        (8, 100): "100",
        (64, 2): "2",
    }
    assert min(text.get_fontsize() for text in axes.texts) >= 10


def test_one_rank_alone_is_drawn_without_a_prediction():
    assert (
        rank_plot.message("speck", {1: 80.0}, {})
        == "speck: one rank trains on 80 images per second"
    )
    assert len(rank_plot.speeds("speck", {1: 80.0}, {}, "").axes[0].lines) == 2


def test_a_figure_without_ranks_or_in_an_unknown_format_is_refused(run_cli, tmp_path):
    code, _, err = run_cli("bench", "--figure", tmp_path / "a.png")
    assert (code, "--figure draws the numbers of --ranks" in err) == (2, True)
    code, _, err = run_cli("bench", "--ranks", "1,2", "--figure", tmp_path / "a.gif")
    assert (code, "must end in .png" in err) == (2, True)
    missing = tmp_path / "missing" / "a.png"
    code, _, err = run_cli("bench", "--ranks", "1,2", "--figure", missing)
    assert (code, "there is no folder" in err) == (2, True)
    assert not missing.parent.exists()


@pytest.mark.parametrize(("batch", "advice"), [(16, "1,2,4"), (15, "1,3,5"), (7, "1,7"), (1, "1")])
def test_the_numbers_of_ranks_that_are_advised_divide_the_batch(batch, advice):
    with pytest.raises(InputError, match=f"write {advice}$"):
        ranks.counts("2", batch)
    assert ranks.counts(advice, batch)
