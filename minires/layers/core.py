"""A layer is an op with its parameters, their gradients, and the cache for backward.

The letters: a batch has N images of H rows and W columns with C channels; a convolution has K
filters of KH rows and KW columns and makes outputs of OH rows and OW columns. `dx` is the gradient
of the loss with respect to `x`, `dw` that with respect to `w`. Images are (N, H, W, C).

Every layer has the same parts in the same order: what it owns, forward, backward, and `describe`,
which says what it does to one image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.layers.base import Array, Layer, Rng, check_integers
from minires.layers.describe import Description, Shape, image, step, windows
from minires.ops.geometry import Pair, output_size, pair


class Conv2d(Layer):
    """Convolution, see `ops.conv2d_forward`; by default without bias, as batch norm has one.

    w ~ N(0, 2 / (KH KW K)): He initialisation by fan-out, which keeps the variance of the gradients
    (arXiv 1502.01852). With groups, an input reaches K / groups filters, and that is its fan-out.

    Parameters
    ----------
    C, K : int
        Input channels, filters.
    size, stride, pad : int, or pair of int
        Size of the kernel, step, zeros on each side; a pair is (rows, columns).
    groups : int
        Each group of K / groups filters sees its own C / groups channels.
    bias : bool
        Add a number per filter, 0 at first.
    rng : Generator or seed
        Draws the initial weights.

    Attributes
    ----------
    input_gradient : bool
        Set it to False in the first convolution of a network: backward then leaves out the
        gradient of the images and returns None. `nets.fuse.fuse` does this.
    """

    def __init__(
        self,
        C: int,
        K: int,
        size: int | Pair = 3,
        stride: int | Pair = 1,
        pad: int | Pair = 0,
        *,
        groups: int = 1,
        bias: bool = False,
        rng: Rng,
    ) -> None:
        super().__init__()
        check_integers("Conv2d", 1, C=C, K=K, groups=groups)
        check_integers("Conv2d", 1, pairs=True, size=size, stride=stride)
        check_integers("Conv2d", 0, pairs=True, pad=pad)
        if C % groups or K % groups:
            raise InputError(
                f"{C} channels and {K} filters must both be divisible by groups, got "
                f"groups={groups}; choose a common divisor, such as {math.gcd(C, K)}"
            )
        KH, KW = pair(size)
        std = np.sqrt(2 / (KH * KW * (K // groups)))
        w = std * np.random.default_rng(rng).standard_normal((KH, KW, C // groups, K))
        self.stride, self.pad, self.groups = stride, pad, groups
        self.input_gradient = True
        self.params = {"w": w.astype(np.float32)}
        if bias:
            self.params["b"] = np.zeros(K, np.float32)

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        y, cache = self.ops.conv2d_forward(x, self.params["w"], self.stride, self.pad, self.groups)
        self._keep(cache, train)
        return y + self.params["b"] if "b" in self.params else y

    def backward(self, dy: Array) -> Any:  # noqa: D102
        dx, self.grads["w"] = self.ops.conv2d_backward(dy, self._pop(), self.input_gradient)
        if "b" in self.params:
            self.grads["b"] = dy.sum(axis=0).sum(axis=(0, 1))  # images first: short float32 sums
        return dx

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        KH, KW, C, K = self.params["w"].shape
        H, W = image(self.name, x_shape, C * self.groups)
        stride = pair(self.stride)
        pad = pair(self.pad)
        OH = output_size(H, KH, stride[0], pad[0])
        OW = output_size(W, KW, stride[1], pad[1])
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        kind = f"conv {KH}x{KW}{step(stride)}{groups}"
        macs = OH * OW * KH * KW * C * K  # C is that of one group
        return Description(kind, (OH, OW, K), macs, window=(KH, KW), stride=stride)


class BatchNorm(Layer):
    """Batch normalisation: by the batch's statistics in training, by the running ones otherwise.

    running <- (1 - momentum) running + momentum batch, with the unbiased variance (Ioffe & Szegedy
    2015, algorithm 2). `recompute_statistics` replaces these by plain averages over batches of
    training images, as the authors of the ResNet paper did.

    Parameters
    ----------
    C : int
        Channels.
    eps, momentum : float
    """

    def __init__(self, C: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        check_integers("BatchNorm", 1, C=C)
        if not (0 <= eps < math.inf and 0 < momentum <= 1):
            raise InputError(
                "BatchNorm: eps must be a small number such as 1e-5 and momentum in (0, 1], got "
                f"eps={eps!r} and momentum={momentum!r}"
            )
        self.eps, self.momentum = eps, momentum
        self.params = {"gamma": np.ones(C, np.float32), "beta": np.zeros(C, np.float32)}
        self.buffers = {
            "running_mean": np.zeros(C, np.float32),
            "running_var": np.ones(C, np.float32),
        }

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        gamma, beta = self.params["gamma"], self.params["beta"]
        if not train:
            mean, var = self.buffers["running_mean"], self.buffers["running_var"]
            return self.ops.batchnorm_inference(x, gamma, beta, mean, var, self.eps)
        y, mean, var, cache = self.ops.batchnorm_forward(x, gamma, beta, self.eps)
        self._follow(x, mean, var)
        self._keep(cache, train)
        return y

    def _follow(self, x: Array, mean: Array, var: Array) -> None:
        """Move the running statistics towards those of the batch."""
        M = x.size // x.shape[-1]  # values in a channel
        if M < 2:
            raise InputError(
                f"{self.name}: training needs at least 2 values per channel, got {x.shape}; "
                "use more images"
            )
        for key, batch in (("running_mean", mean), ("running_var", var * (M / (M - 1)))):
            running = self.buffers[key]
            running[...] = (1 - self.momentum) * running + self.momentum * batch

    def backward(self, dy: Array) -> Array:  # noqa: D102
        dx, self.grads["gamma"], self.grads["beta"] = self.ops.batchnorm_backward(dy, self._pop())
        return dx

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        return Description("batch norm", x_shape)


class ReLU(Layer):
    """Rectifier: y = max(x, 0)."""

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        y, cache = self.ops.relu_forward(x)
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        return self.ops.relu_backward(dy, self._pop())

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        return Description("relu", x_shape, listed=False)


class Identity(Layer):
    """The layer that does nothing: y = x. It is the shortcut between equal shapes."""

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        return x

    def backward(self, dy: Array) -> Array:  # noqa: D102
        return dy

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        return Description("identity", x_shape, listed=False)


class MaxPool(Layer):
    """Largest value of each window, see `ops.max_pool_forward`.

    Parameters
    ----------
    size, stride, pad : int
    """

    def __init__(self, size: int, stride: int, pad: int = 0) -> None:
        super().__init__()
        check_integers("MaxPool", 1, size=size, stride=stride)
        check_integers("MaxPool", 0, pad=pad)
        if pad > size // 2:
            raise InputError(
                f"MaxPool: pad must be at most size // 2 = {size // 2}, got {pad}: a window would "
                "lie in the border"
            )
        self.size, self.stride, self.pad = size, stride, pad

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        y, cache = self.ops.max_pool_forward(x, self.size, self.stride, self.pad)
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        return self.ops.max_pool_backward(dy, self._pop())

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        return windows("max pool", self.name, x_shape, self.size, self.stride, self.pad)


class GlobalAvgPool(Layer):
    """Average over each image: (N, H, W, C) -> (N, C)."""

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        y, cache = self.ops.global_avg_pool_forward(x)
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        return self.ops.global_avg_pool_backward(dy, self._pop())

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        image(self.name, x_shape)
        return Description("average pool", x_shape[2:], window=None)


class Linear(Layer):
    """Fully connected layer y = x @ w + b, with w ~ N(0, 1 / C) as no ReLU follows, and b = 0.

    Parameters
    ----------
    C, K : int
        Features in and out.
    rng : Generator or seed
        Draws the initial weights.
    """

    def __init__(self, C: int, K: int, *, rng: Rng) -> None:
        super().__init__()
        check_integers("Linear", 1, C=C, K=K)
        w = np.sqrt(1 / C) * np.random.default_rng(rng).standard_normal((C, K))
        self.params = {"w": w.astype(np.float32), "b": np.zeros(K, np.float32)}

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        y, cache = self.ops.linear_forward(x, self.params["w"], self.params["b"])
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        dx, self.grads["w"], self.grads["b"] = self.ops.linear_backward(dy, self._pop())
        return dx

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        C, K = self.params["w"].shape
        if x_shape != (C,):
            raise InputError(f"{self.name}: expected {C} features (C,), got {x_shape}")
        return Description("linear", (K,), C * K, window=None)


# ----------------------------------------------------------------- what is done with a network


def recompute_statistics(
    net: Layer, batches: Iterable[Array], weigh: Callable[[Array], int] = len
) -> None:
    """Replace every running statistic by its average over `batches`, as the paper does.

    Batch k is averaged in with momentum n_k / (n_1 + ... + n_k), where n_k is its number of images.
    This turns the moving average into a mean over images: each batch counts in proportion to its
    size. The statistics of a small last batch are still a poor estimate, so cut the images into
    batches of equal size (`data.even_batches`). Weights do not change. A network without batch norm
    is left as it is, at once.

    Parameters
    ----------
    net : Layer
    batches : iterable of ndarray
    weigh : callable
        n_k of a batch. Version 0.1 gave all batches the same weight: `lambda x: 1`.
    """
    norms = [layer for _, layer in net.named_layers() if isinstance(layer, BatchNorm)]
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    total = 0
    try:
        for x in batches:
            total += weigh(x)
            for norm in norms:
                norm.momentum = weigh(x) / total
            net.forward(x, train=True)
            net.forget()
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
