"""The timing of ranks: they take real steps, and the model is the one that is described."""

import pytest
import specks

from minires import InputError, plugins
from minires.bench import ranks
from minires.bench.ranks import Row


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
        ["measured", "1", "8", "100", "%", "0", "%"],
        ["measured", "2", "13", "80", "%", "20", "%"],
        ["prediction", "8", "16", "25", "%", "75", "%"],
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


def test_two_ranks_are_timed(run_cli, plugin):
    words = ["--nets", "speck", "--backend", "numpy", "--batch-size", 8, "--rounds", 2]
    code, out, err = run_cli("--plugin", plugin, "bench", *words, "--ranks", "1,2")
    assert code == 0, err
    assert out.count("measured") == out.count("prediction") == 2
