r"""A user's own file: an op with its layer, a family of networks, a data set and a task.

`--plugin` imports it before the command runs. Try it:

    minires --plugin tests/toys.py train pocket-tiny --dataset bars --task regression \
        --iterations 100 --batch-size 8 --eval-images 40 --no-augment --lr 0.01

No file of minires/ names anything in here.
"""

import zlib

import numpy as np

from minires import data, ops
from minires.data import ArraySplit, Dataset
from minires.layers import Conv2d, GlobalAvgPool, Layer, Linear, ReLU
from minires.layers.describe import Description
from minires.nets import registry
from minires.nets.network import Facts, Network
from minires.runs.metric import Metric
from minires.train import task

# ------------------------------------------------------------------------------------------- op


def soft_shrink_forward(x, threshold):
    """y = x - t where x > t, x + t where x < -t, else 0."""
    y = np.sign(x) * np.maximum(np.abs(x) - threshold, 0)
    return y, (y != 0,)


def soft_shrink_backward(dy, cache):
    """dx = dy where y is not 0."""
    (passed,) = cache
    return dy * passed


class SoftShrink(Layer):
    """The op with its cache. In training its threshold is noisy, so the layer draws numbers."""

    draws = True

    def __init__(self, threshold=0.01):
        super().__init__()
        self.threshold = threshold

    def forward(self, x, train=False):
        threshold = self.threshold
        if train and self.seeds is not None:
            threshold = threshold * self.random().uniform(0.5, 1.5)
        y, cache = self.ops.soft_shrink_forward(x, x.dtype.type(threshold))
        self._keep(cache, train)
        return y

    def backward(self, dy):
        return self.ops.soft_shrink_backward(dy, self._pop())

    def describe(self, x_shape):
        return Description("soft shrink", x_shape)


# --------------------------------------------------------------------------------------- family

WIDTHS = {"tiny": 4, "small": 6}  # names without a number


def parse(name):
    """`pocket-tiny` and `pocket-small`."""
    family, _, size = name.partition("-")
    if family != "pocket" or size not in WIDTHS:
        return None
    return Facts(name, "pocket", 2, (20, 20, 1), 3, "this file", size)


def make(facts, rng):
    rng = np.random.default_rng(rng)
    width = WIDTHS[facts.variant]
    return Network(
        facts,
        conv=Conv2d(facts.input_shape[2], width, 3, 2, 1, rng=rng),
        shrink=SoftShrink(),
        relu=ReLU(),
        pool=GlobalAvgPool(),
        fc=Linear(width, facts.classes, rng=rng),
    )


# ------------------------------------------------------------------------------------- data set


def bars(folder=None):
    """Grey 20x20 images of three classes: a bar at the left, in the middle, at the right."""
    rng = np.random.default_rng(zlib.crc32(b"bars"))

    def split(n):
        labels = rng.integers(0, 3, n)
        images = rng.integers(0, 60, (n, 20, 20, 1), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, 3 + 5 * label : 6 + 5 * label] += 150
        return ArraySplit(images, labels)

    return Dataset("bars", split(120), split(40), ("left", "middle", "right"), "drawn")


# ----------------------------------------------------------------------------------------- task


class Regression:
    """Predict the number of the class as a real number; the loss is the mean squared error."""

    metrics = (Metric("rmse", "classes"),)
    warm_below = None

    def guess(self, data):
        return 1.0

    def step(self, net, optimizer, batch, lr):
        x, targets = batch
        error = net.forward(x, train=True)[:, :1] - targets[:, None]  # (N, 1)
        loss = float((error**2).mean())
        if not np.isfinite(loss):
            raise FloatingPointError("the loss is not finite")
        dy = np.zeros((len(x), net.facts.classes), np.float32)
        dy[:, :1] = 2 * error / len(x)
        net.backward(dy)
        optimizer.step(net.gradients(), lr)
        return {"loss": loss, "rmse": loss**0.5}

    def evaluate(self, net, split, prepare, batch_size):
        total = 0.0
        for start in range(0, len(split), batch_size):
            rows = np.arange(start, min(start + batch_size, len(split)))
            images, targets = split[rows]
            predicted = net.forward(prepare(images, None))[:, 0]
            total += float(((predicted - targets) ** 2).sum())
        return {"loss": total / len(split), "rmse": (total / len(split)) ** 0.5}


def register():
    """Register everything."""
    shrink = {"forward": soft_shrink_forward, "backward": soft_shrink_backward}
    ops.register("shrink", {f"soft_shrink_{way}": op for way, op in shrink.items()})
    registry.register("pocket", parse, make, "pocket-tiny or pocket-small")
    data.register("bars", bars)
    task.register("regression", Regression())


def unregister():
    """Remove everything that `register` added."""
    ops.unregister("shrink")
    registry.unregister("pocket")
    data.unregister("bars")
    task.unregister("regression")


if __name__.startswith("minires_plugin"):  # imported by `minires --plugin`
    register()
