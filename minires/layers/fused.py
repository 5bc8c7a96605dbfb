"""Layers that do the work of several in fewer passes over memory; `nets.fuse.fuse` puts them in."""

from __future__ import annotations

from minires.layers.base import Array
from minires.layers.core import BatchNorm
from minires.layers.describe import Description, Shape


class BatchNormReLU(BatchNorm):
    """Batch normalisation and the ReLU after it: bitwise the same results in fewer passes.

    Parameters
    ----------
    norm : BatchNorm
        Its parameters and running statistics are shared.
    """

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__(len(norm.params["gamma"]), norm.eps, norm.momentum)
        self.params, self.buffers = norm.params, norm.buffers
        self.backend, self.name, self.frozen = norm.backend, norm.name, norm.frozen

    def forward(self, x: Array, train: bool = False) -> Array:  # noqa: D102
        gamma, beta = self.params["gamma"], self.params["beta"]
        if not train:
            mean, var = self.buffers["running_mean"], self.buffers["running_var"]
            return self.ops.batchnorm_relu_inference(x, gamma, beta, mean, var, self.eps)
        y, mean, var, cache = self.ops.batchnorm_relu_forward(x, gamma, beta, self.eps)
        self._follow(x, mean, var)
        self._keep(cache, train)
        return y

    def backward(self, dy: Array) -> Array:  # noqa: D102
        dx, dgamma, dbeta = self.ops.batchnorm_relu_backward(dy, self._pop())
        self.grads["gamma"], self.grads["beta"] = dgamma, dbeta
        return dx

    def describe(self, x_shape: Shape) -> Description:  # noqa: D102
        return Description("batch norm + relu", x_shape)
