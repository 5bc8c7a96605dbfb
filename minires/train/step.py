"""One step of gradient descent, and one evaluation."""

from __future__ import annotations

import numpy as np

from minires.data import normalise
from minires.layers.base import Array
from minires.nets.network import Network
from minires.optim import SGD


def train_step(
    net: Network, optimizer: SGD, x: Array, labels: Array, lr: float
) -> tuple[float, float]:
    """One step of gradient descent; return the loss and the error of the batch before it.

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C)
    labels : ndarray of shape (N,), int64
    lr : float
    """
    logits = net.forward(x, train=True)
    loss, dlogits = net.ops.softmax_cross_entropy(logits, labels)
    if not np.isfinite(loss):
        raise FloatingPointError("the loss is not finite")
    net.backward(dlogits)
    optimizer.step(net.gradients(), lr)
    return float(loss), float((logits.argmax(axis=1) != labels).mean())


def evaluate(
    net: Network, images: Array, labels: Array, mean: Array, batch_size: int
) -> tuple[float, float]:
    """Mean loss and error of the network in evaluation mode, images as they are: no crop, no flip.

    Parameters
    ----------
    images : ndarray of shape (N, H, W, C), uint8
    labels : ndarray of shape (N,)
    mean : ndarray of shape (H, W, C)
        Per-pixel mean of the training images.
    """
    loss = wrong = 0.0
    for i in range(0, len(images), batch_size):
        part = slice(i, i + batch_size)
        logits = net.forward(normalise(images[part], mean))
        loss += float(net.ops.softmax_cross_entropy(logits, labels[part])[0]) * len(logits)
        wrong += float((logits.argmax(axis=1) != labels[part]).sum())
    return loss / len(images), wrong / len(images)
