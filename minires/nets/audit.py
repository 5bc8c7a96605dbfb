"""Is it the paper's network? Every layer with its shape, parameters, multiply-adds, receptive field; and the totals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minires.layers.base import Layer, layer_outputs
from minires.layers.core import BatchNorm, Conv2d, GlobalAvgPool, Linear, MaxPool
from minires.nets.network import Network
from minires.nets.resnet import ZeroPadShortcut
from minires.text import columns

# what the paper prints: parameters in table 6, multiply-adds in table 1
PAPER = {
    "resnet20": "0.27M parameters",
    "resnet32": "0.46M parameters",
    "resnet44": "0.66M parameters",
    "resnet56": "0.85M parameters",
    "resnet110": "1.7M parameters",
    "resnet1202": "19.4M parameters",
    "imagenet-resnet18": "1.8e9 multiply-adds",
    "imagenet-resnet34": "3.6e9 multiply-adds",
    "imagenet-resnet50": "3.8e9 multiply-adds",
    "imagenet-resnet101": "7.6e9 multiply-adds",
    "imagenet-resnet152": "11.3e9 multiply-adds",
}


@dataclass(frozen=True)
class Row:
    """One layer: output shape and multiply-adds for one image, parameters, side of the receptive field in pixels."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    macs: int
    field: int | None


def audit(net: Network) -> list[Row]:
    """One row for each layer that has parameters or changes the shape, in network order.

    Multiply-adds are those of convolutions and the linear layer, for one image forward: OH OW KH KW C K and C K. The
    receptive field is the side of the square of input pixels that one output can see along the bodies of the blocks.
    """
    dtype = next(iter(net.parameters().values())).dtype
    outputs = layer_outputs(net, np.zeros((1, *net.facts.input_shape), dtype))
    rows, field, jump = [], 1, 1  # jump: input pixels between two neighbouring outputs
    for name, layer in net.named_layers():
        if not isinstance(
            layer, (Conv2d, BatchNorm, MaxPool, GlobalAvgPool, Linear, ZeroPadShortcut)
        ):
            continue
        shape = outputs[name].shape[1:]
        if isinstance(layer, (Conv2d, MaxPool)) and ".shortcut" not in name:
            size = layer.size if isinstance(layer, MaxPool) else layer.params["w"].shape[0]
            field, jump = field + (size - 1) * jump, jump * layer.stride
        seen = None if ".shortcut" in name or isinstance(layer, (GlobalAvgPool, Linear)) else field
        parameters = sum(p.size for p in layer.params.values())
        rows.append(Row(name, _kind(layer), shape, parameters, _macs(layer, shape), seen))
    return rows


def _macs(layer: Layer, shape: tuple[int, ...]) -> int:
    if not isinstance(layer, (Conv2d, Linear)):
        return 0
    weights = layer.params["w"].size  # each is used once for every output pixel
    return weights * shape[0] * shape[1] if isinstance(layer, Conv2d) else weights


def _kind(layer: Layer) -> str:
    if isinstance(layer, Conv2d):
        KH, KW, _, _ = layer.params["w"].shape
        return f"conv {KH}x{KW}" + (f" /{layer.stride}" if layer.stride > 1 else "")
    names = {
        BatchNorm: "batch norm",
        MaxPool: "max pool",
        GlobalAvgPool: "average pool",
        Linear: "linear",
    }
    return names.get(type(layer), "zero padding")


def macs(net: Network) -> int:
    """Multiply-adds of one image forward."""
    return sum(row.macs for row in audit(net))


def table(net: Network) -> str:
    """Return the audit as text."""
    rows = audit(net)
    lines = [("layer", "kind", "output", "parameters", "multiply-adds", "sees")]
    for r in rows:
        shape = "x".join(map(str, r.shape))
        seen = (
            f"{r.field}x{r.field}"
            if r.field
            else "all"
            if r.kind in ("average pool", "linear")
            else ""
        )
        lines.append(
            (r.name, r.kind, shape, f"{r.parameters:,}", f"{r.macs:,}" if r.macs else "", seen)
        )
    text = [columns(lines, left=3)]
    weighted = sum(
        r.kind.startswith("conv") or r.kind == "linear" for r in rows if ".shortcut" not in r.name
    )
    parameters, total = sum(r.parameters for r in rows), sum(r.macs for r in rows)
    text.append(
        f"{net.title}: {weighted} weighted layers, {parameters:,} parameters, {total:,} multiply-adds an image"
    )
    if net.title in PAPER:
        text.append(f"The paper says: {PAPER[net.title]}")
    return "\n".join(text)
