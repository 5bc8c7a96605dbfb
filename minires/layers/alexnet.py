"""The layers of AlexNet and of the networks around it: an op, and what it keeps for backward.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS
2012. Sections in this file are those of the paper.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from minires.errors import InputError
from minires.layers.base import Array, Layer, check_integers
from minires.layers.describe import Description, Shape, windows
from minires.ops import checks


class LocalResponseNorm(Layer):
    """Divide by a power of the squares of neighbouring channels (section 3.3).

    See `ops.local_response_norm_forward`. With the paper's constants, which are the defaults, and
    activations of deviation 1, it is nearly a multiplication by 2^-0.75 = 0.595: alpha is so small
    that channels compete only if their activations are about 100.

    Parameters
    ----------
    n : int
        Channels in a window, odd.
    k, alpha, beta : float
        The paper's alpha is not divided by n; Caffe's and PyTorch's is.
    """

    def __init__(self, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75) -> None:
        super().__init__()
        self.k, self.alpha, self.beta = checks.response_constants(self.name, n, k, alpha, beta)
        self.n = n

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        y, cache = self.ops.local_response_norm_forward(x, self.n, self.k, self.alpha, self.beta)
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        return self.ops.local_response_norm_backward(dy, self._pop())

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        if x_shape[-1] < self.n:
            raise InputError(
                f"{self.name}: expected at least n = {self.n} channels, got {x_shape}; "
                "choose a smaller odd n"
            )
        return Description(f"local response norm, {self.n} channels", x_shape)


class Dropout(Layer):
    """In training, set each element to 0 with probability `rate`, and scale up the others.

    y = x * mask, see `ops.dropout_mask`; the mean of y is x. At test time, y = x. The paper
    (section 4.2) does not scale in training, and multiplies by 1 - rate = 0.5 at test time. Both
    have the same means; here nothing is left to do at test time.

    A mask is a function of the seeds that `reseed` was given and of the layer's name. The training
    loop reseeds at every iteration, so a run that is resumed draws the same masks.

    Parameters
    ----------
    rate : float
        In [0, 1).

    Raises
    ------
    InputError
        In training, if `reseed` was never called and the rate is above 0.
    """

    draws: ClassVar[bool] = True

    def __init__(self, rate: float = 0.5) -> None:
        super().__init__()
        checks.dropout_rate(self.name, rate)
        self.rate = float(rate)

    def mask(self, shape: Shape, dtype: np.dtype) -> Array:
        """Return the mask of this iteration for an input of that shape: 0 or 1 / (1 - rate)."""
        if self.rate == 0:
            return np.ones(shape, dtype)
        u = self.random().random(shape, np.float32).astype(dtype)
        return self.ops.dropout_mask(u, self.rate)

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        if not train:
            return x
        y, cache = self.ops.dropout_forward(x, self.mask(x.shape, x.dtype))
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        return self.ops.dropout_backward(dy, self._pop())

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        return Description(f"dropout {self.rate:g}", x_shape)


class Tanh(Layer):
    """Hyperbolic tangent: y = tanh(x), the activation that the paper replaces (section 3.1)."""

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        y, cache = self.ops.tanh_forward(x)
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        return self.ops.tanh_backward(dy, self._pop())

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        return Description("tanh", x_shape, listed=False)


class AvgPool(Layer):
    """Mean of each window, see `ops.avg_pool_forward`.

    Parameters
    ----------
    size, stride, pad : int
    """

    def __init__(self, size: int, stride: int, pad: int = 0) -> None:
        super().__init__()
        check_integers("AvgPool", 1, size=size, stride=stride)
        check_integers("AvgPool", 0, pad=pad)
        if pad > size // 2:
            raise InputError(
                f"AvgPool: pad must be at most size // 2 = {size // 2}, got {pad}: a window would "
                "lie in the border"
            )
        self.size, self.stride, self.pad = size, stride, pad

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        y, cache = self.ops.avg_pool_forward(x, self.size, self.stride, self.pad)
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        return self.ops.avg_pool_backward(dy, self._pop())

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        return windows("average pool", self.name, x_shape, self.size, self.stride, self.pad)


class Flatten(Layer):
    """Make one row of features of each image: (N, H, W, C) -> (N, H W C)."""

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        self._keep((x.shape,), train)
        return x.reshape(len(x), -1)

    def backward(self, dy: Array) -> Array:  # noqa: D102
        (shape,) = self._pop()
        return dy.reshape(shape)

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        return Description("flatten", (math.prod(x_shape),), window=None)
