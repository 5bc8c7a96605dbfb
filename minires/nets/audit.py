"""Compare a network with the paper: shapes, parameters, multiply-adds, receptive fields.

All numbers follow from `Layer.describe`; no image is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from minires.errors import InputError
from minires.layers.base import Layer
from minires.layers.describe import Description, Shape, see_through
from minires.nets.network import Network
from minires.ops.geometry import Pair
from minires.text import columns

# from each network's paper; ResNets: parameters in table 6, multiply-adds in table 1
PAPER = {
    "resnet20": "0.27M parameters",
    "resnet32": "0.46M parameters",
    "resnet44": "0.66M parameters",
    "resnet56": "0.85M parameters",
    "resnet110": "1.7M parameters",
    "resnet1202": "19.4M parameters",
    "imagenet-plain18": "1.8e9 multiply-adds",
    "imagenet-plain34": "3.6e9 multiply-adds",
    "imagenet-resnet18": "1.8e9 multiply-adds",
    "imagenet-resnet34": "3.6e9 multiply-adds",
    "imagenet-resnet50": "3.8e9 multiply-adds",
    "imagenet-resnet101": "7.6e9 multiply-adds",
    "imagenet-resnet152": "11.3e9 multiply-adds",
    "alexnet": "60 million parameters",
    "vgg16": "138 million parameters",
    "vgg19": "144 million parameters",
}


@dataclass(frozen=True)
class Row:
    """One row of the table: a layer.

    Attributes
    ----------
    name, kind : str
    shape : tuple of int
        Output shape of one image.
    parameters, macs : int
        Multiply-adds are those of the forward pass for one image.
    window : pair of int, or None
        Receptive field: rows and columns of the image that one output sees along the main path;
        None if it sees the whole image.
    side : bool
        True beside the main path, such as in a shortcut: `window` has no meaning there.
    """

    name: str
    kind: str
    shape: Shape
    parameters: int
    macs: int
    window: Pair | None
    side: bool

    @property
    def weighted(self) -> bool:
        """Whether the layer counts towards the depth: it multiplies, on the main path."""
        return self.macs > 0 and not self.side

    def cells(self) -> tuple[str, ...]:
        """Texts of the row, one for each column of the table."""
        seen = "all" if self.window is None else "x".join(map(str, self.window))
        return (
            self.name,
            self.kind,
            "x".join(map(str, self.shape)),
            f"{self.parameters:,}",
            f"{self.macs:,}" if self.macs else "",
            "" if self.side else seen,
        )


class _Walk:
    """A walk from the image to the logits; `window` and `stride` belong to the main path."""

    def __init__(self, net: Network) -> None:
        self.layers = dict(net.named_layers())
        self.window: Pair | None = (1, 1)
        self.stride = (1, 1)

    def rows(self, name: str, described: Description, side: bool = False) -> Iterator[Row]:
        """Yield the rows of a layer and of all layers inside it, in network order."""
        layer = self.layers[name]
        parts = described.parts
        _check_parts(layer, parts)
        side = side or described.side
        window, stride = self.window, self.stride
        for key, part in parts.items():
            yield from self.rows(f"{name}.{key}" if name else key, part, side)
        if not side:
            self.window, self.stride = see_through(window, stride, described)
        owned = layer.params if parts else layer.parameters()  # not counted by the parts
        parameters = sum(p.size for p in owned.values())
        macs = described.macs - sum(part.macs for part in parts.values())
        if parameters or macs or (described.listed and not parts):
            yield Row(name, described.kind, described.y_shape, parameters, macs, self.window, side)


def _check_parts(layer: Layer, parts: dict[str, Description]) -> None:
    if parts and set(parts) != set(layer.children):
        raise InputError(
            f"{type(layer).__name__}.describe must describe its children {list(layer.children)} "
            f"in parts, got {list(parts)}"
        )


def audit(net: Network) -> list[Row]:
    """Rows of the layers that have parameters or change the shape, in network order.

    The receptive field follows the main path, along the bodies of the blocks.

    Raises
    ------
    InputError
        If a layer cannot be described.
    """
    return list(_Walk(net).rows("", net.describe(net.facts.input_shape)))


def macs(net: Network) -> int:
    """Multiply-adds of the forward pass for one image: OH OW KH KW C K, or C K if linear."""
    return net.describe(net.facts.input_shape).macs


def table(net: Network) -> str:
    """Return the audit as text."""
    rows = audit(net)
    head = ("layer", "kind", "output", "parameters", "multiply-adds", "sees")
    text = [columns([head, *(row.cells() for row in rows)], left=3)]
    weighted = sum(row.weighted for row in rows)
    parameters = sum(row.parameters for row in rows)
    text.append(
        f"{net.title}: {weighted} weighted layers, {parameters:,} parameters, "
        f"{macs(net):,} multiply-adds per image"
    )
    if net.title in PAPER:
        text.append(f"The paper says: {PAPER[net.title]}")
    return "\n".join(text)
