"""Norms of gradients, weights and responses, layer by layer."""

from __future__ import annotations

import numpy as np

from minires.layers.base import Layer
from minires.layers.core import BatchNorm


def by_layer(net: Layer) -> dict[str, dict[str, float]]:
    """Norms of the convolutions' gradients and weights, and responses of the batch norms.

    A response is the standard deviation of batch norm's output, before ReLU or addition (the
    paper's figure 7). No forward pass is needed: in channel c the mean is beta and the variance
    gamma^2 var / (var + eps), so over a batch and all channels the variance is the mean of the
    channels' variances plus the variance of their means.

    Returns
    -------
    record : dict
        "gradient_norm", "weight_norm" and "response_std", each by the dotted names of the layers in
        network order. After a training step, the weights are those after the step.
    """
    kernels = {name: dw for name, dw in net.gradients().items() if dw.ndim == 4}
    gradients = {name.removesuffix(".w"): np.linalg.norm(dw) for name, dw in kernels.items()}
    weights = {name.removesuffix(".w"): np.linalg.norm(net.parameters()[name]) for name in kernels}
    responses = {}
    for name, layer in net.named_layers():
        if isinstance(layer, BatchNorm):
            var = layer.buffers["running_var"]
            within = layer.params["gamma"] ** 2 * (var / (var + layer.eps))
            responses[name] = np.sqrt(within.mean() + layer.params["beta"].var())
    record = {"gradient_norm": gradients, "weight_norm": weights, "response_std": responses}
    return {
        kind: {name: float(f"{v:.6g}") for name, v in values.items()}
        for kind, values in record.items()
    }
