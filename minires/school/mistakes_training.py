"""Mistakes in the residual block, the optimiser and the schedule: see `minires.school.mistakes`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray


def _block(dx: Callable[..., Any]) -> Any:
    return lambda self, dy: dx(self.body.backward, self.shortcut.backward, self.relu.backward, dy)


BLOCKS = {
    "with the last ReLU left out": _block(lambda body, short, relu, dy: body(dy) + short(dy)),
    "with the last ReLU left out before the body": _block(
        lambda body, short, relu, dy: body(dy) + short(relu(dy))
    ),
    "with the gradient of the shortcut alone": _block(
        lambda body, short, relu, dy: (short(d := relu(dy)), body(d))[0]
    ),
    "with the body's gradient subtracted": _block(
        lambda body, short, relu, dy: short(d := relu(dy)) - body(d)
    ),
    "with the shortcut's gradient subtracted": _block(
        lambda body, short, relu, dy: body(d := relu(dy)) - short(d)
    ),
    "with the shortcut taken for the identity": _block(
        lambda body, short, relu, dy: body(d := relu(dy)) + d
    ),
    "with the body's and the shortcut's gradients multiplied": _block(
        lambda body, short, relu, dy: body(d := relu(dy)) * short(d)
    ),
}


def _sgd(
    velocity: Callable[..., Any] = lambda m, v, g, decay, w, lr: m * v + g + decay * w,
    move: Callable[..., Any] = lambda w, lr, v, m, g, decay: w - lr * v,
    parameters: Callable[[list[str]], list[str]] = lambda names: names,
) -> Any:
    def step(self: Any, gradients: Any, lr: float) -> None:
        for name in parameters(list(self.parameters)):
            w, v, g = self.parameters[name], self.velocity[name], gradients[name]
            v[...] = velocity(self.momentum, v, g, self.weight_decay, w, lr)
            w[...] = move(w, lr, v, self.momentum, g, self.weight_decay)

    return step


def _one_velocity(self: Any, gradients: Any, lr: float) -> None:
    v: Any = 0.0
    for name, w in self.parameters.items():
        v = self.momentum * v + gradients[name] + self.weight_decay * w
        self.velocity[name][...] = v
        w -= lr * v


def _move_first(self: Any, gradients: Any, lr: float) -> None:
    for name, w in self.parameters.items():
        v = self.velocity[name]
        w -= lr * v
        v[...] = self.momentum * v + gradients[name] + self.weight_decay * w


STEPS = {
    "with the first parameter changed alone: is a return inside the loop?": _sgd(
        parameters=lambda names: names[:1]
    ),
    "with the last parameter changed alone": _sgd(parameters=lambda names: names[-1:]),
    "with one velocity shared by all parameters": _one_velocity,
    "with the step taken before the velocity is updated": _move_first,
    "without weight decay": _sgd(lambda m, v, g, decay, w, lr: m * v + g),
    "with the learning rate inside the velocity": _sgd(
        lambda m, v, g, decay, w, lr: m * v + lr * (g + decay * w),
        lambda w, lr, v, m, g, decay: w - v,
    ),
    "with the learning rate inside the velocity and again in the step": _sgd(
        lambda m, v, g, decay, w, lr: m * v + lr * (g + decay * w)
    ),
    "with the decay added to the step, past the velocity": _sgd(
        lambda m, v, g, decay, w, lr: m * v + g,
        lambda w, lr, v, m, g, decay: w - lr * (v + decay * w),
    ),
    "with the decay multiplied by the learning rate twice": _sgd(
        lambda m, v, g, decay, w, lr: m * v + g + lr * decay * w
    ),
    "with Nesterov's look ahead": _sgd(
        move=lambda w, lr, v, m, g, decay: w - lr * (g + decay * w + m * v)
    ),
    "with the velocity stored but not used": _sgd(
        move=lambda w, lr, v, m, g, decay: w - lr * (g + decay * w)
    ),
    "without any momentum": _sgd(lambda m, v, g, decay, w, lr: g + decay * w),
    "with a velocity that is never damped, as if momentum were 1": _sgd(
        lambda m, v, g, decay, w, lr: v + g + decay * w
    ),
    "with 1 - momentum in place of momentum": _sgd(
        lambda m, v, g, decay, w, lr: (1 - m) * v + g + decay * w
    ),
    "with the weights moving up the gradient": _sgd(move=lambda w, lr, v, m, g, decay: w + lr * v),
    "without the learning rate": _sgd(move=lambda w, lr, v, m, g, decay: w - v),
    "with the gradient multiplied by 1 - momentum, but not the decay": _sgd(
        lambda m, v, g, decay, w, lr: m * v + (1 - m) * g + decay * w
    ),
    "with the momentum on the decay too": _sgd(
        lambda m, v, g, decay, w, lr: m * (v + decay * w) + g
    ),
    "with the velocity's sign turned: v is the step, not the gradient": _sgd(
        lambda m, v, g, decay, w, lr: m * v - (g + decay * w),
        lambda w, lr, v, m, g, decay: w + lr * v,
    ),
    "with the decay's sign turned": _sgd(lambda m, v, g, decay, w, lr: m * v + g - decay * w),
    "with nothing changed": _sgd(parameters=lambda names: []),
}
SCHEDULES: dict[str, Callable[..., Any]] = {
    "with every drop one iteration late": lambda lr, ms, i: lr / 10 ** sum(i > m for m in ms),
    "with every drop one iteration early": lambda lr, ms, i: lr / 10 ** sum(i + 1 >= m for m in ms),
    "with a drop at most once": lambda lr, ms, i: lr / 10 if any(i >= m for m in ms) else lr,
    "with at most two drops": lambda lr, ms, i: lr / 10 ** min(2, sum(i >= m for m in ms)),
    "with the rate multiplied by 10": lambda lr, ms, i: lr * 10 ** sum(i >= m for m in ms),
    "with the rate halved, not divided by 10": lambda lr, ms, i: lr / 2 ** sum(i >= m for m in ms),
    "divided by 10 times the number of milestones": lambda lr, ms, i: (
        lr / max(1, 10 * sum(i >= m for m in ms))
    ),
    "with a drop at the milestone only, and the old rate after it": lambda lr, ms, i: (
        lr / 10 ** sum(i == m for m in ms)
    ),
    "with the first milestone left out": lambda lr, ms, i: lr / 10 ** sum(i >= m for m in ms[1:]),
    "with the last milestone left out": lambda lr, ms, i: lr / 10 ** sum(i >= m for m in ms[:-1]),
    "with a drop for every milestone, reached or not": lambda lr, ms, i: lr / 10 ** len(ms),
    "with a drop for milestones that are still to come": lambda lr, ms, i: (
        lr / 10 ** sum(i < m for m in ms)
    ),
    "with one drop too many": lambda lr, ms, i: lr / 10 ** (1 + sum(i >= m for m in ms)),
}

MISTAKES: dict[str, dict[str, Any]] = {
    "residual_block_backward": BLOCKS,
    "sgd_step": STEPS,
    "step_schedule": {
        says: lambda lr, milestones, iteration, f=f: f(lr, milestones, iteration)
        for says, f in SCHEDULES.items()
    },
}
