"""Names and layouts of weights: ours, and those of torchvision, timm and Hugging Face.

Our filters are (KH, KW, C, K) and the weights of a linear layer (C, K). PyTorch's are
(K, C, KH, KW) and (K, C).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minires.errors import InputError
from minires.layers.alexnet import Flatten
from minires.nets.network import Network

Array = np.ndarray
STYLES = ("minires", "torchvision", "timm", "huggingface")  # names that can be written
READ_ONLY = ("akamaster",)  # names of github.com/akamaster/pytorch_resnet_cifar10
PREFIXES = ("module.", "model.", "_orig_mod.")  # data parallel, Lightning, torch.compile
COUNTER = "num_batches_tracked"  # of PyTorch's batch norm; it has no effect on the results
LEAVES = {"w": "weight", "b": "bias", "gamma": "weight", "beta": "bias"}


class Part(NamedTuple):
    """One array of a residual or plain network: where it stands, and which it is."""

    stage: int
    block: int
    place: str  # "body", "shortcut", or "" outside the blocks
    kind: str  # "conv", "bn", "fc"
    number: str  # of the layer in the body
    leaf: str


@dataclass(frozen=True)
class Entry:
    """An array of ours under the name, and in the layout, of another library.

    Attributes
    ----------
    name : str
        Its name there.
    split, order : tuple of int
        Ours is reshaped to `split`, and its axes are taken in this order.
    ours, theirs : tuple of int
        The shapes here and there.
    """

    name: str
    split: tuple[int, ...]
    order: tuple[int, ...]
    ours: tuple[int, ...]
    theirs: tuple[int, ...]

    def export(self, a: Array) -> Array:
        """Our array in their layout, maybe as a view."""
        return a.reshape(self.split).transpose(self.order).reshape(self.theirs)

    def load(self, a: Array) -> Array:
        """Their array in our layout, maybe as a view."""
        split = [self.split[axis] for axis in self.order]
        return a.reshape(split).transpose(np.argsort(self.order)).reshape(self.ours)


def _entry(name: str, shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> Entry:
    """An entry whose axes are permuted; by default as those of filters and matrices are."""
    order = order or ((3, 2, 0, 1) if len(shape) == 4 else tuple(range(len(shape)))[::-1])
    return Entry(name, shape, order, shape, tuple(shape[axis] for axis in order))


OURS = re.compile(r"(?:stage(\d+)\.block(\d+)\.(body|shortcut)\.)?(conv|bn|fc)(\d*)\.(\w+)")


def _part(name: str) -> Part | None:
    match = OURS.fullmatch(name)
    if match is None:
        return None
    stage, block, place, *rest = match.groups()
    if bool(place) != bool(rest[1]) and place != "shortcut":
        return None  # the layers of a body have numbers, and those outside the blocks have none
    return Part(int(stage or 0), int(block or 0), place or "", *rest)


def _torchvision(part: Part, fc: str = "fc", shortcut: str = "downsample") -> str:
    if part.kind == "fc":
        return fc
    if part.place == "":
        return f"{part.kind}1"
    block = f"layer{part.stage}.{part.block - 1}"
    if part.place == "body":
        return f"{block}.{part.kind}{part.number}"
    return f"{block}.{shortcut}.{('conv', 'bn').index(part.kind)}"


def _huggingface(part: Part) -> str:
    if part.kind == "fc":
        return "classifier.1"
    layer = {"conv": "convolution", "bn": "normalization"}[part.kind]
    if part.place == "":
        return f"resnet.embedder.embedder.{layer}"
    block = f"resnet.encoder.stages.{part.stage - 1}.layers.{part.block - 1}"
    if part.place == "body":
        return f"{block}.layer.{int(part.number) - 1}.{layer}"
    return f"{block}.shortcut.{layer}"


RESIDUAL: dict[str, Callable[[Part], str]] = {
    "torchvision": _torchvision,
    "timm": _torchvision,
    "huggingface": _huggingface,
    "akamaster": lambda part: _torchvision(part, "linear", "shortcut"),
}


def arrays(net: Network) -> dict[str, Array]:
    """Every array of the network's state, in the order of `Layer.state` but not copied."""
    return {
        f"{name}.{key}": a
        for name, layer in net.named_layers()
        for key, a in (layer.params | layer.buffers).items()
    }


def entries(net: Network, style: str) -> dict[str, Entry]:
    """The arrays of a network's state by our names, each with its name and layout in a style.

    Raises
    ------
    InputError
        If the style is unknown, or has no names for such a network.
    """
    if style not in (*STYLES, *READ_ONLY):
        raise InputError(f"names must be one of {', '.join(STYLES)}, got {style!r}")
    shapes = {name: a.shape for name, a in arrays(net).items()}
    if style == "minires":
        return {name: _entry(name, s, tuple(range(len(s)))) for name, s in shapes.items()}
    parts = {name: _part(name) for name in shapes}
    if all(parts.values()):
        return {
            name: _entry(f"{RESIDUAL[style](part)}.{_leaf(part.leaf)}", shapes[name])
            for name, part in parts.items()
            if part
        }
    places = _stacked(net, style)
    if not places:
        raise InputError(
            f"{style} has no network like {net.title}, so its arrays have no names there; choose "
            "--names minires"
        )
    found = {}
    for name, shape in shapes.items():
        layer, _, leaf = name.rpartition(".")
        place = places[layer]
        there = f"{place.name}.{_leaf(leaf)}"
        if leaf == "w" and place.split:
            found[name] = Entry(there, place.split, (3, 2, 0, 1), shape, place.theirs)
        else:
            found[name] = _entry(there, shape)
    return found


def _leaf(key: str) -> str:
    return LEAVES.get(key, key)


class Place(NamedTuple):
    """A layer under the name of another library, and the layout of a linear layer's weights."""

    name: str
    split: tuple[int, ...] = ()  # (H, W, C, K): PyTorch flattens images as (C, H, W)
    theirs: tuple[int, ...] = ()


def _stacked(net: Network, style: str) -> dict[str, Place]:
    """The layers of AlexNet and VGG in another library: features, `Flatten`, linear layers.

    Empty if the network is not such a stack, or the library has none.
    """
    layers = list(net.children.items())
    flat = next((i for i, (_, layer) in enumerate(layers) if isinstance(layer, Flatten)), 0)
    timm = style == "timm" and net.facts.family == "vgg"
    if (
        not flat
        or any(layer.children for _, layer in layers)
        or not (timm or style == "torchvision")
    ):
        return {}
    shape = net.facts.input_shape
    found = {}
    for i, (name, layer) in enumerate(layers[:flat]):
        found[name] = Place(f"features.{i}")
        shape = layer.describe(shape).y_shape
    linears = [(i, *named) for i, named in enumerate(layers[flat + 1 :]) if named[1].params]
    for number, (i, name, layer) in enumerate(linears, start=1):
        rows, K = layer.params["w"].shape
        H, W, C = shape if number == 1 else (1, 1, rows)
        last = number == len(linears)
        there = f"classifier.{i}"
        if timm:  # hidden linear layers are convolutions there
            there = "head.fc" if last else f"pre_logits.fc{number}"
        theirs = (K, C, H, W) if timm and not last else (K, rows)
        found[name] = Place(there, (H, W, C, K), theirs)
    return found


def recognise(net: Network, names: Iterable[str]) -> str:
    """The style in which the most names of a file are names of the network."""
    there = set(names)

    def known(style: str) -> int:
        try:
            return len(there & {entry.name for entry in entries(net, style).values()})
        except InputError:
            return -1

    return max((*STYLES, *READ_ONLY), key=known)


def without_prefix(state: Mapping[str, Array]) -> dict[str, Array]:
    """The state without prefixes that all names share, such as "module.", and without counters."""
    found = {name: a for name, a in state.items() if not name.endswith(COUNTER)}
    for prefix in PREFIXES * 2:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): a for name, a in found.items()}
    return found


def exported(net: Network, style: str) -> dict[str, Array]:
    """The state of a network under the names, and in the layout, of a style."""
    state = arrays(net)
    found = {}
    for name, entry in entries(net, style).items():
        found[entry.name] = np.ascontiguousarray(entry.export(state[name]))
        if style != "minires" and name.endswith("running_var"):
            counter = entry.name.removesuffix("running_var") + COUNTER
            found[counter] = np.zeros((), np.int64)
    return found
