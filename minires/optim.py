"""Stochastic gradient descent with momentum, and the paper's learning rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from minires.errors import InputError

Array = np.ndarray

PART = 1 << 15  # values of a parameter that are updated together


class SGD:
    """Momentum and weight decay: v <- momentum v + (g + weight_decay w), then w <- w - lr v.

    The velocity is a sum of gradients, without the learning rate: when the rate drops, the steps
    shrink at once.

    Parameters
    ----------
    parameters : dict of str to ndarray
        Live arrays, which `step` changes in place. Weight decay applies to all of them, also to
        batch norm's gamma and beta: the paper names no exception, and public reproductions of its
        results do the same.
    momentum, weight_decay : float
        The paper's 0.9 and 1e-4 (section 3.4).

    Attributes
    ----------
    velocity : dict of str to ndarray
        v by the name of its parameter.
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
        """Take one step with every parameter, at learning rate `lr`.

        Raises
        ------
        InputError
            If a gradient is missing or has another shape; then nothing changes.
        """
        self._check(gradients)
        for name, parameter in self.parameters.items():
            for w, v, g in _parts(parameter, self.velocity[name], np.asarray(gradients[name])):
                v *= self.momentum
                v += g + self.weight_decay * w
                w -= lr * v

    def _check(self, gradients: Mapping[str, Array]) -> None:
        for name, w in self.parameters.items():
            if name not in gradients or np.shape(gradients[name]) != w.shape:
                got = (
                    np.shape(gradients[name]) if name in gradients else "none; call backward first"
                )
                raise InputError(
                    f"step: expected a gradient of shape {w.shape} for {name}, got {got}"
                )


def _parts(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Yield matching parts of equal arrays, as views: all parts of one turn fit into a cache."""
    first = arrays[0]
    if first.size <= PART or not all(a.flags.c_contiguous for a in arrays):
        yield arrays
        return
    flat = [a.reshape(-1) for a in arrays]
    for i in range(0, first.size, PART):
        yield tuple(a[i : i + PART] for a in flat)


def step_schedule(lr: float, milestones: Sequence[int], iteration: int) -> float:
    """Learning rate at `iteration` (from 0): `lr` divided by 10 at every milestone reached.

    The paper's CIFAR-10 schedule is lr 0.1 with milestones (32000, 48000) of 64000 iterations.
    """
    return lr / 10 ** sum(iteration >= m for m in milestones)


def paper_milestones(iterations: int) -> tuple[int, ...]:
    """Milestones at half and three quarters: the paper's 32,000 and 48,000 of 64,000 iterations.

    A run of fewer than 2,000 iterations has none: it is too short to lower the rate.
    """
    return (iterations // 2, iterations * 3 // 4) if iterations >= 2000 else ()


def paper_warmup(depth: int, lr: float) -> float | None:
    """Warm-up rate of the paper (section 4.2): 0.01 from 110 layers on, as 0.1 is too large there.

    None for fewer layers, and for an `lr` that is no larger than 0.01.
    """
    return 0.01 if depth >= 110 and lr > 0.01 else None


class Plateau:
    """Divide the learning rate by 10 whenever a metric has stopped to improve.

    The paper lowers its rate on ImageNet "when the error plateaus" (section 3.4) and does not say
    when that is. Here it is `patience` iterations without a value that is better than all before;
    then the count begins again.

    Parameters
    ----------
    patience : int
        Iterations, 1 or more.
    lower_is_better : bool
        Of the metric.

    Attributes
    ----------
    best : float or None
        The best value so far.
    since : int
        Iteration of the best value, or of the last division if that was later.
    divisions : int
        How often the rate was divided.
    """

    def __init__(self, patience: int, lower_is_better: bool = True) -> None:
        if patience < 1:
            raise InputError(f"patience must be at least 1 iteration, got {patience}")
        self.patience, self.lower_is_better = patience, lower_is_better
        self.best: float | None = None
        self.since = self.divisions = 0

    def observe(self, iteration: int, value: float) -> None:
        """Take note of the metric that was measured after `iteration` iterations."""
        sign = 1 if self.lower_is_better else -1
        if self.best is None or sign * value < sign * self.best:
            self.best, self.since = value, iteration
        elif iteration - self.since >= self.patience:
            self.divisions += 1
            self.since = iteration

    def lr(self, lr: float) -> float:
        """The learning rate `lr` after the divisions so far."""
        return lr / 10**self.divisions

    def state(self) -> dict[str, float | int | None]:
        """Everything that later rates depend on, for a checkpoint."""
        return {"best": self.best, "since": self.since, "divisions": self.divisions}

    def load_state(self, state: Mapping[str, float | int | None]) -> None:
        """Continue from what `state` returned.

        Raises
        ------
        InputError
            If it is something else.
        """
        counts = [state.get("since"), state.get("divisions")]
        best = state.get("best")
        sensible = best is None or isinstance(best, float)
        if not sensible or not all(type(n) is int and 0 <= n < 2**63 for n in counts):
            raise InputError(f"expected the state of a plateau, got {dict(state)}")
        self.best = best
        self.since, self.divisions = counts  # type: ignore[assignment]  # checked above
