"""One step of gradient descent, and one evaluation.

This is the last of the four files that the README recommends reading. In shapes, N is the number of
images in a batch, H of rows, W of columns, C of channels. `x` holds prepared images, `labels` their
classes.

To train from Python, without run folders:

    import minires
    from minires.data import load, training_batch
    from minires.optim import SGD
    from minires.train.step import evaluate, train_step

    data = load("shapes10")
    net = minires.resnet(20).use("numba")
    sgd = SGD(net.parameters())
    for iteration in range(100):
        x, labels = training_batch(data, seed=0, iteration=iteration, batch_size=64)
        loss, error = train_step(net, sgd, x, labels, lr=0.01)
    print(evaluate(net, data.test, data.prepare))
"""

from __future__ import annotations

import numpy as np

from minires.data.dataset import Prepare, Split
from minires.layers.base import Array
from minires.nets.network import Network
from minires.optim import SGD


def train_step(
    net: Network, optimizer: SGD, x: Array, labels: Array, lr: float
) -> tuple[float, float]:
    """Take one step of gradient descent; return the batch's loss and error before the step.

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C)
    labels : ndarray of shape (N,), int64
    lr : float

    Raises
    ------
    FloatingPointError
        If the loss is not finite; no weight is changed then.
    """
    logits = net.forward(x, train=True)  # (N, classes)
    loss, dlogits = net.ops.softmax_cross_entropy(logits, labels)
    if not np.isfinite(loss):
        raise FloatingPointError("the loss is not finite")
    net.backward(dlogits)
    optimizer.step(net.gradients(), lr)
    return float(loss), float((logits.argmax(axis=1) != labels).mean())


def evaluate(
    net: Network, split: Split, prepare: Prepare, batch_size: int = 128
) -> tuple[float, float]:
    """Mean loss and error of the network in evaluation mode, without augmentation.

    Parameters
    ----------
    split : Split
        Images and labels, such as `dataset.test`.
    prepare : callable
        `prepare(images, None)` makes a batch of them, such as `dataset.prepare`.
    batch_size : int
    """
    loss = wrong = 0.0
    for start in range(0, len(split), batch_size):
        images, labels = split[np.arange(start, min(start + batch_size, len(split)))]
        logits = net.forward(prepare(images, None))  # (N, classes)
        loss += float(net.ops.softmax_cross_entropy(logits, labels)[0]) * len(logits)
        wrong += float((logits.argmax(axis=1) != labels).sum())
    return loss / len(split), wrong / len(split)
