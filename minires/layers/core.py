"""A layer is an op with a memory: its parameters, their gradients, running statistics, and what backward will need.

Every layer has the same three parts in the same order: what it owns, forward, backward.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minires.errors import InputError
from minires.layers.base import Array, Layer, Rng


class Conv2d(Layer):
    """Convolution without bias (the batch norm that follows has one), see `ops.conv2d_forward`.

    w ~ N(0, 2 / (KH KW K)): He initialisation by fan-out, for gradients of even variance (arXiv 1502.01852).

    Parameters
    ----------
    C, K : int
        Input channels, filters.
    size, stride, pad : int
        Rows and columns of the kernel, step, zeros on every side.
    rng : Generator or seed
    """

    def __init__(
        self, C: int, K: int, size: int = 3, stride: int = 1, pad: int = 0, *, rng: Rng = 0
    ) -> None:
        super().__init__()
        self.stride, self.pad = stride, pad
        std = np.sqrt(2 / (size * size * K))
        self.params["w"] = (
            std * np.random.default_rng(rng).standard_normal((size, size, C, K))
        ).astype(np.float32)

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        y, cache = self.ops.conv2d_forward(x, self.params["w"], self.stride, self.pad)
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        dx, self.grads["w"] = self.ops.conv2d_backward(dy, self._pop())
        return dx


class FirstConv2d(Conv2d):
    """The convolution that images go through first: its backward returns an empty array in place of their gradient.

    Training has no use for that one, see `resnet.fuse`.

    Parameters
    ----------
    conv : Conv2d
        Its parameters are shared.
    """

    def __init__(self, conv: Conv2d) -> None:
        Layer.__init__(self)
        self.stride, self.pad = conv.stride, conv.pad
        self.params, self.backend, self.name = conv.params, conv.backend, conv.name

    def backward(self, dy: Array) -> Array:  # noqa: D102
        _, self.grads["w"] = self.ops.conv2d_backward(dy, self._pop(), input_gradient=False)
        return np.empty(0, dy.dtype)


class BatchNorm(Layer):
    """Batch normalisation: by the batch's statistics in training, by the running ones otherwise.

    running <- (1 - momentum) running + momentum batch, with the unbiased variance (Ioffe & Szegedy 2015, algorithm 2).
    `recompute_statistics` replaces them by plain averages over batches of training images, as the paper's authors did.

    Parameters
    ----------
    C : int
        Channels.
    eps, momentum : float
    """

    op = "batchnorm"

    def __init__(self, C: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
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
            return getattr(self.ops, f"{self.op}_inference")(x, gamma, beta, mean, var, self.eps)
        M = x.size // x.shape[-1]  # values in a channel
        if M < 2:
            raise InputError(
                f"{self.name}: training needs 2 values a channel or more, got {x.shape}; use more images"
            )
        y, mean, var, cache = getattr(self.ops, f"{self.op}_forward")(x, gamma, beta, self.eps)
        for key, batch in (("running_mean", mean), ("running_var", var * (M / (M - 1)))):
            running = self.buffers[key]
            running[...] = (1 - self.momentum) * running + self.momentum * batch
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        backward = getattr(self.ops, f"{self.op}_backward")
        dx, self.grads["gamma"], self.grads["beta"] = backward(dy, self._pop())
        return dx


class BatchNormReLU(BatchNorm):
    """Batch normalisation and the ReLU behind it: the same numbers in fewer passes over memory, see `resnet.fuse`.

    Parameters
    ----------
    norm : BatchNorm
        Its parameters and running statistics are shared.
    """

    op = "batchnorm_relu"

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__(len(norm.params["gamma"]), norm.eps, norm.momentum)
        self.params, self.buffers, self.backend, self.name = (
            norm.params,
            norm.buffers,
            norm.backend,
            norm.name,
        )


class ReLU(Layer):
    """Rectifier: y = max(x, 0)."""

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        y, cache = self.ops.relu_forward(x)
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        return self.ops.relu_backward(dy, self._pop())


class MaxPool(Layer):
    """Largest value of each window, see `ops.max_pool_forward`.

    Parameters
    ----------
    size, stride, pad : int
    """

    def __init__(self, size: int, stride: int, pad: int = 0) -> None:
        super().__init__()
        self.size, self.stride, self.pad = size, stride, pad

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        y, cache = self.ops.max_pool_forward(x, self.size, self.stride, self.pad)
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        return self.ops.max_pool_backward(dy, self._pop())


class GlobalAvgPool(Layer):
    """Average over each image: (N, H, W, C) -> (N, C)."""

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        y, cache = self.ops.global_avg_pool_forward(x)
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        return self.ops.global_avg_pool_backward(dy, self._pop())


class Linear(Layer):
    """Fully connected layer y = x @ w + b, with w ~ N(0, 1 / C) as no ReLU follows, and b = 0.

    Parameters
    ----------
    C, K : int
        Features in and out.
    rng : Generator or seed
    """

    def __init__(self, C: int, K: int, *, rng: Rng = 0) -> None:
        super().__init__()
        w = np.sqrt(1 / C) * np.random.default_rng(rng).standard_normal((C, K))
        self.params = {"w": w.astype(np.float32), "b": np.zeros(K, np.float32)}

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        y, cache = self.ops.linear_forward(x, self.params["w"], self.params["b"])
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        dx, self.grads["w"], self.grads["b"] = self.ops.linear_backward(dy, self._pop())
        return dx


# ----------------------------------------------------------------------------------------- what is done with a network


def recompute_statistics(net: Layer, batches: Iterable[Array]) -> None:
    """Replace every running statistic by its plain average over `batches`, the paper's way; weights stay as they are.

    The k-th batch enters with momentum 1/k, which makes the moving average a plain one. A smaller last batch counts as
    much as a full one.
    """
    norms = [layer for _, layer in net.named_layers() if isinstance(layer, BatchNorm)]
    before = [norm.momentum for norm in norms]
    try:
        for k, x in enumerate(batches, start=1):
            for norm in norms:
                norm.momentum = 1 / k
            net.forward(x, train=True)
            net.forget()
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
