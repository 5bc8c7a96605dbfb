"""Training in which every step turns every convolution by nearly the same angle.

In front of a batch norm only the direction of weights counts. In a deep plain net some layers turn
much less than others (`minires.lab.relative_steps`). Here they turn by similar angles: the
experiment asks whether plain nets still get worse with depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from minires.data import normalise, per_pixel_mean, shapes10, stream
from minires.layers.base import Array
from minires.layers.core import Conv2d
from minires.nets.network import Network
from minires.nets.registry import by_name
from minires.ops import default_backend
from minires.optim import SGD
from minires.train.step import train_step


class EqualAngles(SGD):
    """SGD in which a step turns the weights of each convolution by at most about `lr`, in radians.

    For the weights w of a convolution with gradient g, momentum m and velocity v, which starts
    at 0:

        v <- m v + (1 - m) g / ||g||,   w <- ||w|| u / ||u||  with  u = w - lr ||w|| v.

    So ||w|| stays what it was at the start. The angle is about lr ||v||: v is a running mean of
    unit vectors, so ||v|| is near 1 where gradients agree from step to step, and smaller where they
    do not; unrelated ones would make it sqrt((1 - m) / (1 + m)). A gradient of 0 gives v <- m v.
    All other parameters take the steps of `SGD`.

    Parameters
    ----------
    net : Network
        Its live parameters are changed.
    """

    def __init__(self, net: Network) -> None:
        super().__init__(net.parameters())
        convolutions = [name for name, layer in net.named_layers() if isinstance(layer, Conv2d)]
        self.lengths = {
            f"{name}.w": float(np.linalg.norm(self.parameters[f"{name}.w"]))
            for name in convolutions
        }

    def step(self, gradients: Mapping[str, Array], lr: float) -> None:
        """Take one step; `lr` is the angle for convolutions, and the rate for all others."""
        self._check(gradients)
        for name, w in self.parameters.items():
            v, g, length = self.velocity[name], gradients[name], self.lengths.get(name)
            v *= self.momentum
            if length is None:
                v += g + self.weight_decay * w
                w -= lr * v
                continue
            v += (1 - self.momentum) / max(float(np.linalg.norm(g)), 1e-30) * g
            w -= lr * length * v
            w *= length / float(np.linalg.norm(w))


RULES = {"SGD": lambda net: SGD(net.parameters()), "equal angles": EqualAngles}


def errors(net: str, rule: str, *, steps: int = 300, lr: float = 0.01, seed: int = 0) -> Array:
    """Error of every batch of new pictures, before its step.

    The pictures are those of shapes10 at half size, 32 a step.

    Parameters
    ----------
    net : str
        Such as "plain20".
    rule : {"SGD", "equal angles"}
    steps : int
    lr : float
    seed : int
        Seed of the weights and the pictures; the pictures are the same for all nets and rules.

    Returns
    -------
    errors : ndarray of shape (steps,)
        In percent.
    """
    made = by_name(net, rng=seed).use(default_backend())
    return np.array(list(_train(made, rule, steps, lr, seed)))


def turned(net: str, rule: str, *, steps: int = 20, lr: float = 0.01, seed: int = 0) -> Array:
    """Angle by which every step turns each convolution, in the training of `errors`.

    Returns
    -------
    angles : ndarray of shape (steps, convolutions)
        In radians, the layers in network order.
    """
    made = by_name(net, rng=seed).use(default_backend())
    filters = [layer.params["w"] for _, layer in made.named_layers() if isinstance(layer, Conv2d)]
    before, found = [_direction(w) for w in filters], []
    for _ in _train(made, rule, steps, lr, seed):
        after = [_direction(w) for w in filters]
        found.append([_angle(u, v) for u, v in zip(before, after, strict=True)])
        before = after
    return np.array(found)


def _train(net: Network, rule: str, steps: int, lr: float, seed: int) -> Iterator[float]:
    """The error of each batch, in percent, after its step."""
    batch = 32
    images, labels = shapes10.images(batch * steps, stream(seed, "equal angles", 0))
    x = normalise(images[:, ::2, ::2], per_pixel_mean(images[:1000, ::2, ::2]))
    optimizer = RULES[rule](net)
    for i in range(0, len(x), batch):
        rows = slice(i, i + batch)
        yield 100 * train_step(net, optimizer, x[rows], labels[rows], lr)[1]


def _direction(w: Array) -> Array:
    """A copy of w in float64, of length 1."""
    w = w.astype(np.float64)
    return w / np.linalg.norm(w)


def _angle(u: Array, v: Array) -> float:
    """Angle between two vectors of length 1; exact for small ones too, where arccos is not."""
    return 2 * float(np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v)))
