"""A small network for tests of whole runs: batch norm, a layer that draws numbers, quick steps.

As a file of --plugin it brings what `toys` brings, too.
"""

import numpy as np
import toys

from minires.layers import BatchNorm, Conv2d, GlobalAvgPool, Linear, ReLU
from minires.nets import registry
from minires.nets.network import Facts, Network


def parse(name):
    return Facts(name, "speck", 2, (20, 20, 1), 3, "this file") if name == "speck" else None


def make(facts, rng):
    rng = np.random.default_rng(rng)
    return Network(
        facts,
        conv=Conv2d(facts.input_shape[2], 4, 3, 2, 1, rng=rng),
        bn=BatchNorm(4),
        shrink=toys.SoftShrink(),
        relu=ReLU(),
        pool=GlobalAvgPool(),
        fc=Linear(4, facts.classes, rng=rng),
    )


def register():
    toys.register()
    registry.register("speck", parse, make, "speck")


def unregister():
    registry.unregister("speck")
    toys.unregister()


if __name__.startswith("minires_plugin"):  # imported by `minires --plugin`
    register()
