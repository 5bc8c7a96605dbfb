"""A network: named layers, one after the other, and the facts that identify it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from minires.errors import InputError
from minires.layers.base import Layer, Sequential

# Deeper networks are refused before they fill the memory. The paper's deepest one has 1,202 layers;
# a residual network for CIFAR-10 of this depth takes about 2 GB while it is trained.
MOST_LAYERS = 10_000


@dataclass(frozen=True)
class Facts:
    """Identity of a network, known without building it and written to config.json.

    Attributes
    ----------
    name : str
        The canonical name, such as "resnet20" or "resnet20B".
    family : str
        Such as "plain" or "resnet": networks that differ only in depth and `variant`.
    depth : int
        Weighted layers, at most `MOST_LAYERS`.
    input_shape : tuple of int
        (H, W, C) of one image.
    classes : int
    paper : str
        Where the network was published.
    variant : str
        The rest of the name, such as "B" for projection shortcuts.

    Raises
    ------
    InputError
        If the depth is above `MOST_LAYERS`.
    """

    name: str
    family: str
    depth: int
    input_shape: tuple[int, ...] = (32, 32, 3)
    classes: int = 10
    paper: str = ""
    variant: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.depth, int) and self.depth > MOST_LAYERS:
            raise InputError(too_deep(self.family, self.depth))

    @property
    def kind(self) -> str:
        """The name without its depth: "plain", "resnet", "resnetB"."""
        return self.family + self.variant

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"input_shape": list(self.input_shape)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`.

        Raises
        ------
        InputError
            If a fact is missing, unknown, or of another type.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"the facts of a network must be a dict, got {values!r}")
        names = {f.name for f in fields(cls)}
        wrong = sorted(names ^ set(values)) or [n for n in names if not _is_fact(n, values[n])]
        if wrong:
            raise InputError(
                f"the facts of a network must be {sorted(names)}, with sizes of at least 1; "
                f"wrong: {sorted(wrong)}"
            )
        return cls(**{**values, "input_shape": tuple(values["input_shape"])})


def too_deep(family: str, depth: int | str) -> str:
    """Message for a network that is too deep to be built."""
    shown = str(depth) if len(str(depth)) <= 20 else f"a number of {len(str(depth))} digits"
    return (
        f"a network may have at most {MOST_LAYERS:,} layers, because its weights and activations "
        f"must fit into memory; got depth {shown} for {family}; choose a smaller depth"
    )


def _is_fact(name: str, value: Any) -> bool:
    """Whether a JSON value can be the fact of that name: a size of at least 1, or text."""
    if name == "input_shape":
        return isinstance(value, list) and bool(value) and all(_is_fact("side", v) for v in value)
    if name in ("depth", "classes", "side"):
        return type(value) is int and 1 <= value < 2**31
    return isinstance(value, str)


class Network(Sequential):
    """A sequence of named layers that computes logits (N, classes) from images (N, H, W, C).

    Parameters
    ----------
    facts : Facts
    **layers : Layer
        By name, in order.

    Attributes
    ----------
    facts : Facts
    title : str
        The canonical name, such as "resnet56".
    """

    def __init__(self, facts: Facts, **layers: Layer) -> None:
        super().__init__(**layers)
        self.facts = facts
        for name, layer in self.named_layers():
            layer.name = f"{facts.name} {name}".strip()

    @property
    def title(self) -> str:
        """The canonical name of the network."""
        return self.facts.name

    def __repr__(self) -> str:
        parameters = sum(p.size for p in self.parameters().values())
        return f"<{self.title}: {parameters:,} parameters, {self.backend}>"
