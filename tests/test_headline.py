"""Titles of figures say what the recorded runs show about depth."""

from pathlib import Path

import pytest

from minires.lab import plots
from minires.lab.headline import headline
from minires.lab.recorded import find_runs

RECORDS = Path(__file__).parents[1] / "lessons" / "runs"
TITLES = {
    "quarter-cifar10": "Deeper plain nets (+20.6 points) are worse on the training images; "
    "residual nets (-2.2 points) are better",
    "quick-shapes10-fresh": "Deeper plain nets (+52.3 points) are worse on new images; "
    "residual nets of all depths end alike",
    "lesson-110": "Training error: resnet110 39.0 points below plain110",
}


@pytest.mark.parametrize("folder", TITLES)
@pytest.mark.parametrize("kind", ["errors", "depth"])
def test_a_figure_has_its_message_as_title(folder, kind):
    runs = find_runs([RECORDS / folder])
    assert headline(runs) == TITLES[folder]
    assert plots.FIGURES[kind](runs).get_suptitle().replace("\n", " ") == TITLES[folder]


def test_unfinished_runs_and_different_recipes_are_not_compared():
    quick = find_runs([RECORDS / "quick-cifar10"])
    both = quick + find_runs([RECORDS / "lesson-cifar10"])
    assert headline(both).startswith("Training error: plain20")
