"""The small training of lessons 7a and 7b: ResNet-8 on half-size pictures of shapes10."""

import copy

import numpy as np

from minires.data import batch_indices, crop_and_flip, normalise, per_pixel_mean, shapes10, stream
from minires.layers import recompute_statistics
from minires.optim import SGD
from minires.train.step import train_step

TRAINING, TEST = slice(0, 5120), slice(5120, 6120)
FULL_SIZE, LABELS = shapes10.images(6120, np.random.default_rng(7))
HALF_SIZE = FULL_SIZE[:, ::2, ::2]  # (6120, 16, 16, 3), to be quick
MEAN = per_pixel_mean(HALF_SIZE[TRAINING])


def train(
    net,
    steps,
    lr=0.1,
    mean=MEAN,
    augment=False,
    momentum=0.9,
    decay=1e-4,
    seed=0,
    first=0,
    watch=None,
):
    """Train with the recipe, a piece at each argument; return the error of each batch in percent.

    `watch(step)` is called after each step, and `first` steps are already done.
    """
    sgd, found = SGD(net.parameters(), momentum, decay), []
    for i in range(first, first + steps):
        rows = batch_indices(seed, i, 64, 5120)
        x = normalise(HALF_SIZE[rows], mean)
        if augment:
            x = crop_and_flip(x, stream(seed, "augment", i), pad=2)
        found.append(100 * train_step(net, sgd, x, LABELS[rows], lr)[1])
        if watch:
            watch(i + 1)
    return np.array(found)


def logits(net, mean=MEAN, recompute=True):
    """Logits of the 1,000 test pictures, with recomputed statistics or with moving averages."""
    if recompute:
        net = copy.deepcopy(net)  # the net itself does not change
        recompute_statistics(net, np.split(normalise(HALF_SIZE[:640], mean), 5))
    return net.forward(normalise(HALF_SIZE[TEST], mean))


def wrong(net, mean=MEAN, recompute=True):
    """Whether each of the 1,000 test pictures is classified wrongly."""
    return logits(net, mean, recompute).argmax(axis=1) != LABELS[TEST]
