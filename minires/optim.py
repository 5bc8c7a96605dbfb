"""How weights follow gradients: stochastic gradient descent with momentum, and learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from minires.errors import InputError

Array = np.ndarray


class SGD:
    """Momentum and weight decay: v <- momentum v + (g + weight_decay w), then w <- w - lr v.

    The velocity holds gradients, not steps: when the learning rate drops, the steps shrink at once.

    Parameters
    ----------
    parameters : dict of str to ndarray
        Live arrays, changed in place by `step`. All of them decay, batch norm's gamma and beta
        too: the paper names no exception, and public reproductions of its errors do the same.
    momentum, weight_decay : float
        The paper's 0.9 and 1e-4 (section 3.4).

    Attributes
    ----------
    velocity : dict of str to ndarray
        v under the names of the parameters.
    """

    def __init__(
        self, parameters: Mapping[str, Array], momentum: float = 0.9, weight_decay: float = 1e-4
    ) -> None:
        if not 0 <= momentum < 1:
            raise InputError(f"momentum must lie in [0, 1), got {momentum}")
        if not 0 <= weight_decay < float("inf"):
            raise InputError(f"weight_decay must be a number of at least 0, got {weight_decay}")
        self.parameters, self.momentum, self.weight_decay = dict(parameters), momentum, weight_decay
        self.velocity = {name: np.zeros_like(w) for name, w in self.parameters.items()}

    def step(self, gradients: Mapping[str, Array], lr: float) -> None:
        """Change every parameter by its gradient, at learning rate `lr`.

        Raises
        ------
        InputError
            If a gradient is missing or of another shape; nothing is changed then.
        """
        self._check(gradients)
        for name, w in self.parameters.items():
            v = self.velocity[name]
            v *= self.momentum
            v += gradients[name] + self.weight_decay * w
            w -= lr * v

    def _check(self, gradients: Mapping[str, Array]) -> None:
        for name, w in self.parameters.items():
            if name not in gradients or gradients[name].shape != w.shape:
                got = gradients[name].shape if name in gradients else "none; call backward before"
                raise InputError(
                    f"step: expected a gradient of shape {w.shape} for {name}, got {got}"
                )


def step_schedule(lr: float, milestones: Sequence[int], iteration: int) -> float:
    """Learning rate at `iteration` (from 0): `lr` divided by 10 at every milestone reached.

    The paper's CIFAR-10 schedule is lr 0.1 with milestones (32000, 48000) of 64000 iterations.
    """
    return lr / 10 ** sum(iteration >= m for m in milestones)


def paper_milestones(iterations: int) -> tuple[int, ...]:
    """Half and three quarters of the way, as the paper's 32,000 and 48,000 of 64,000 iterations.

    Below 2,000 iterations there are none: too short to anneal.
    """
    return (iterations // 2, iterations * 3 // 4) if iterations >= 2000 else ()


def paper_warmup(depth: int, lr: float) -> float | None:
    """The paper's warm-up rate (section 4.2): 0.01 from 110 layers on, where 0.1 is too large."""
    return 0.01 if depth >= 110 and lr > 0.01 else None
