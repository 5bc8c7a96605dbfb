"""Fit the identity with stacks of convolution, batch norm and ReLU, with and without shortcuts.

The paper supposes that solvers "might have difficulties in approximating identity mappings by
multiple nonlinear layers" (section 3.1). Here blocks of two layers are trained to give out what
they get, x, by gradient descent on the squared distance.
"""

from __future__ import annotations

import numpy as np

from minires.layers.base import Array, Layer, Sequential
from minires.layers.core import Identity
from minires.nets.resnet import PlainBlock, ResidualBlock, basic_body
from minires.ops import default_backend
from minires.optim import SGD


def fit_identity(
    layers: int,
    shortcuts: bool,
    *,
    lr: float,
    steps: int = 300,
    channels: int = 16,
    seed: int = 0,
) -> Array:
    """Error of each step in fitting y = x on random inputs, new ones at each step.

    The inputs are max(z, 0) of standard normal z, 32 images of 8x8 pixels. The loss is half the
    squared distance of y and x, summed over an image, mean over the images.

    Parameters
    ----------
    layers : int
        Even: a block has two layers.
    shortcuts : bool
        Residual blocks; otherwise their plain twins.
    lr : float
        SGD with momentum 0.9, without weight decay.
    steps : int
    channels : int
    seed : int
        Seed of the weights and the inputs.

    Returns
    -------
    errors : ndarray of shape (steps,)
        Mean of (y - x)^2, divided by the variance of x: 1 is the error of the best constant.
    """
    rng = np.random.default_rng(seed)
    bodies = [basic_body(channels, channels, 1, rng) for _ in range(layers // 2)]
    blocks: list[Layer] = [
        ResidualBlock(body, Identity()) if shortcuts else PlainBlock(body) for body in bodies
    ]
    net = Sequential(**{f"block{i + 1}": block for i, block in enumerate(blocks)})
    net.use(default_backend())
    optimizer, errors = SGD(net.parameters(), weight_decay=0.0), []
    for _ in range(steps):
        x = np.maximum(rng.standard_normal((32, 8, 8, channels)), 0).astype(np.float32)
        away = net.forward(x, train=True) - x
        errors.append(float((away * away).mean() / x.var()))
        net.backward(away / np.float32(len(x)))
        optimizer.step(net.gradients(), lr)
    return np.array(errors)
