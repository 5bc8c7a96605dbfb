"""Fine-tuning: freeze parts of a network, and give it the weights of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minires.errors import InputError
from minires.layers.base import Array, Layer
from minires.layers.core import BatchNorm
from minires.layers.frozen import Frozen, FrozenBatchNorm
from minires.nets.network import Network
from minires.text import did_you_mean, shown

NORMS = ("train", "frozen")  # what becomes of batch norm outside the frozen parts
HEADS = ("keep", "new")


def freeze(net: Network, parts: Sequence[str] = (), norms: str = "train") -> Network:
    """
    Freeze parts of a network in place: training does not change their arrays by a bit.

    Batch norm in a frozen part uses its running statistics, see `FrozenBatchNorm`. Frozen parts at
    the beginning of the network, with nothing trained before them, are left out of backward.

    Parameters
    ----------
    net : Network
        Not fused yet.
    parts : list of str
        Dotted names of layers, such as "stage1" or "stage2.block1".
    norms : {"train", "frozen"}
        "frozen" freezes every batch norm of the network, as the paper does for detection.

    Returns
    -------
    net : Network

    Raises
    ------
    InputError
        If a part does not exist, nothing is left to train, or `norms` is unknown.
    """
    if norms not in NORMS:
        raise InputError(f"batch norm must be one of {', '.join(NORMS)}, got {norms!r}")
    layers = dict(net.named_layers())
    for part in parts:
        if part not in layers or not part:
            raise InputError(
                f"{net.title} has no part {shown(part)!r} to freeze: its parts are "
                f"{', '.join(net.children)}{did_you_mean(part, net.children)}"
            )
        for _, layer in layers[part].named_layers():
            layer.frozen = True
    for layer in layers.values():
        _freeze_norms(layer, all_of_them=norms == "frozen")
    for name, child in net.children.items():
        if any(layer.params and not layer.frozen for _, layer in child.named_layers()):
            break
        net.children[name] = Frozen(child)
    if not trained_parameters(net):
        raise InputError(
            f"{net.title} has nothing left to train: {', '.join(parts)} are all of its parts; "
            "freeze fewer"
        )
    return net


def _freeze_norms(layer: Layer, all_of_them: bool) -> None:
    """Replace batch norms among the children of a layer."""
    for key, child in layer.children.items():
        if type(child) is BatchNorm and (child.frozen or all_of_them):
            frozen = FrozenBatchNorm(child)
            layer.children[key] = frozen
            for name, value in vars(layer).items():
                if value is child:
                    setattr(layer, name, frozen)


def trained_parameters(net: Layer) -> dict[str, Array]:
    """The parameters that training changes: `net.parameters()` without those that are frozen."""
    return {
        f"{name}.{key}" if name else key: value
        for name, layer in net.named_layers()
        if not layer.frozen
        for key, value in layer.params.items()
    }


def head_of(net: Network) -> str:
    """Name of the last part of a network that has parameters: the layer that tells classes apart.

    Raises
    ------
    InputError
        If the network has no parameters.
    """
    named = [name for name, child in net.children.items() if child.parameters()]
    if not named:
        raise InputError(f"{net.title} has no parameters, so it has no head to replace")
    return named[-1]


def start_from(net: Network, state: Mapping[str, Array], head: str = "keep") -> Network:
    """
    Load the weights of a trained network into a new one, in place.

    Parameters
    ----------
    net : Network
        New, with its initial weights.
    state : dict of str to ndarray
        As `Layer.state` returns it; of the same network, but maybe with other classes.
    head : {"keep", "new"}
        "new" leaves the last layer with its initial weights.

    Returns
    -------
    net : Network

    Raises
    ------
    InputError
        If the state is of another network, or its head has another number of classes.
    """
    if head not in HEADS:
        raise InputError(f"the head must be one of {', '.join(HEADS)}, got {head!r}")
    own = net.state()
    prefix = f"{head_of(net)}."
    if head == "new":
        fresh = {name: value for name, value in own.items() if name.startswith(prefix)}
        return net.load_state({**state, **fresh})
    for name, value in own.items():
        given = state.get(name)
        if name.startswith(prefix) and given is not None and given.shape != value.shape:
            raise InputError(
                f"{name}: the weights have shape {given.shape}, and {net.title} for these classes "
                f"has {value.shape}; start with a new last layer (--head new)"
            )
    return net.load_state(state)
