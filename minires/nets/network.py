"""A network: named layers, one after the other, under a title."""

from __future__ import annotations

from minires.layers.base import Layer, Sequential


class Network(Sequential):
    """A sequence of named layers that classifies images of shape (N, H, W, 3).

    Attributes
    ----------
    title : str
        Such as "resnet56".
    """

    def __init__(self, title: str, **layers: Layer) -> None:
        super().__init__(**layers)
        self.title = title
        for name, layer in self.named_layers():
            layer.name = f"{title} {name}".strip()

    def __repr__(self) -> str:
        return f"<{self.title}: {sum(p.size for p in self.parameters().values()):,} parameters, {self.backend}>"
