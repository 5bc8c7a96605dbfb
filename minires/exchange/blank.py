"""Networks whose weights are loaded right after they are built: nothing is drawn for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.nets import registry
from minires.nets.network import Facts, Network


class Zeros(np.random.Generator):
    """A generator whose normal draws are zeros."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def standard_normal(self, size: Any = None, *_: Any, **__: Any) -> Any:
        """Zeros of that shape."""
        return np.zeros(() if size is None else size)


def blank(facts: Facts) -> Network:
    """The network of these facts with convolutions and linear layers of zeros."""
    return registry.make(facts, rng=Zeros())
