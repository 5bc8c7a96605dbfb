"""A network: named layers, one after the other, and the facts that identify it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from minires.errors import InputError
from minires.layers.base import Layer, Sequential


@dataclass(frozen=True)
class Facts:
    """What identifies a network, known without building it and written to config.json.

    Attributes
    ----------
    name : str
        The canonical name, such as "resnet20" or "resnet20B".
    family : str
        Such as "plain" or "resnet": the nets of one paper that differ in depth only, but for
        `variant`.
    depth : int
        Weighted layers.
    input_shape : tuple of int
        (H, W, C) of one image.
    classes : int
    paper : str
        Where the network was published.
    variant : str
        What the name says beside family and depth, such as "B" for projection shortcuts.
    """

    name: str
    family: str
    depth: int
    input_shape: tuple[int, ...] = (32, 32, 3)
    classes: int = 10
    paper: str = ""
    variant: str = ""

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
        names = {f.name for f in fields(cls)}
        wrong = sorted(names ^ set(values)) or [n for n in names if not _is_fact(n, values[n])]
        if wrong:
            raise InputError(
                f"the facts of a network must be {sorted(names)}, with sizes of at least 1; "
                f"wrong: {sorted(wrong)}"
            )
        return cls(**{**values, "input_shape": tuple(values["input_shape"])})


def _is_fact(name: str, value: Any) -> bool:
    """Whether a JSON value can be the fact of that name: a size of at least 1, or a text."""
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
