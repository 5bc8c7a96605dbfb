"""Measure what lesson 11 says about trained networks, and write it to runs/why.json.

`python lessons/record_why.py` takes some minutes. It needs CIFAR-10; the weights are those of seed 0 in
runs/lesson-cifar10. `python lessons/record_why.py recomputed` writes runs/why-recomputed.json: changed
networks whose batch-norm statistics were recomputed.
"""

import json
import sys

import numpy as np
from style import RECORDS

from minires import plain, resnet
from minires.data import ArraySplit, load
from minires.lab.studies.blocks import exchanged, gradients_by_path, without_blocks
from minires.lab.studies.slices import direction, losses_along
from minires.layers import recompute_statistics
from minires.ops import default_backend
from minires.runs.checkpoint import load_weights
from minires.train.step import evaluate

IMAGES = 1000  # test images for errors
SLICE = 250  # training images for a slice
STATISTICS = 1000  # training images for recomputed statistics
DISTANCES = np.linspace(-1, 1, 21)


def trained(make):
    """The recorded network."""
    net = make(20, rng=0).use(default_backend())
    net.load_state(load_weights(RECORDS / "lesson-cifar10" / f"{net.title}-seed0"))
    return net


def test_error(net, data):
    """Error on the first test images, in percent."""
    test = ArraySplit(*data.test[np.arange(IMAGES)])
    return round(100 * evaluate(net, test, data.prepare, 250)[1], 2)


def recomputed(make, data):
    """Errors without a block and with two exchanged, batch norm's statistics recomputed."""
    x = data.prepare(data.train[np.arange(STATISTICS)][0], None)

    def error(net):
        recompute_statistics(net, np.split(x, STATISTICS // 250))
        return test_error(net, data)

    net = trained(make)
    found = {
        "removed": {name: error(changed) for name, changed in without_blocks(net)},
        "exchanged": {name: error(changed) for name, changed in exchanged(net)},
    }
    return found | {"error": error(net)}


def record(make, data):
    """Errors without a block and with two exchanged, slices and paths of one trained network."""
    net = trained(make)

    def error(net):
        return test_error(net, data)

    images, labels = data.train[np.arange(SLICE)]
    x = data.prepare(images, None)
    found = {
        "error": error(net),
        "removed": {name: error(changed) for name, changed in without_blocks(net)},
        "exchanged": {name: error(changed) for name, changed in exchanged(net)},
        "slices": [
            [round(v, 4) for v in losses_along(net, direction(net, seed), DISTANCES, x, labels)]
            for seed in range(2)
        ],
    }
    if make is resnet:
        parts = gradients_by_path(net, x[:64], labels[:64])
        found["paths"] = [float(f"{np.linalg.norm(part):.4g}") for part in parts]
    return found


def main():
    """Measure both networks, and write the file."""
    data = load("cifar10")
    about = {"data": data.name, "images": IMAGES}
    if sys.argv[1:] == ["recomputed"]:
        measure, name = recomputed, "why-recomputed.json"
        about |= {"statistics": STATISTICS}
    else:
        measure, name = record, "why.json"
        about |= {"slice": SLICE, "distances": DISTANCES.tolist()}
    found = {make.__name__ + "20": measure(make, data) for make in (plain, resnet)}
    text = json.dumps(about | found, indent=1)
    (RECORDS / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
