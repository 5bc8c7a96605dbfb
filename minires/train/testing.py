"""Test-time averaging: ten crops, several scales, several networks.

The paper compares networks by ten crops of each picture, and reports its best results as averages
over shorter sides {224, 256, 384, 480, 640}, with the network applied to the whole picture, and
over six networks (section 3.4, tables 3 to 5). Averages are those of probabilities.

The letters: N pictures of H rows and W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minires.data.normalisation import Normalisation
from minires.data.scale_and_crop import centre_of, in_threads, load_picture, test_side
from minires.errors import InputError
from minires.layers.base import Array
from minires.nets.network import Network

SCALES = (224, 256, 384, 480, 640)  # section 3.4
Predict = Callable[[Iterable[Any]], Array]  # paths or pictures -> probabilities (N, K)


def softmax(logits: Array) -> Array:
    """Probabilities exp(z_k) / sum_j exp(z_j) of logits z, (N, K)."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def average(probabilities: Sequence[Array]) -> Array:
    """
    Average the probabilities of several views or networks: (p_1 + ... + p_m) / m.

    Parameters
    ----------
    probabilities : list of ndarray of shape (N, K)

    Returns
    -------
    ndarray of shape (N, K)

    Raises
    ------
    InputError
        If there is none, or the shapes differ, as those of networks with other classes do.
    """
    shapes = {np.shape(p) for p in probabilities}
    if len(shapes) != 1:
        raise InputError(f"expected probabilities of one shape to average, got {sorted(shapes)}")
    return np.mean(np.stack(probabilities), axis=0)


def centre_crop(net: Network, normalisation: Normalisation, image_size: int) -> Predict:
    """
    Return a function that shows the network the centre of each picture.

    Parameters
    ----------
    net : Network
    normalisation : Normalisation
    image_size : int
        Side of the square; the shorter side of the picture becomes `test_side(image_size)` first.
    """

    def predict(images: Iterable[Any]) -> Array:
        squares = in_threads(lambda source: centre_of(source, image_size), images)
        return softmax(net.forward(normalisation(np.stack(squares))))

    return predict


def ten_crop(net: Network, normalisation: Normalisation, image_size: int) -> Predict:
    """
    Return a function that averages over the corners and the centre, each mirrored, too.

    Parameters and sizes are those of `centre_crop`; see `minires.data.pictures.ten_crop`.
    """
    from minires.data import pictures

    def crops(source: Any) -> Array:
        scaled = pictures.resize(load_picture(source), test_side(image_size))
        return pictures.ten_crop(scaled, image_size)

    def predict(images: Iterable[Any]) -> Array:
        found = np.stack(in_threads(crops, images))  # (N, 10, S, S, 3)
        views = [softmax(net.forward(normalisation(found[:, i]))) for i in range(10)]
        return average(views)

    return predict


def at_scales(
    net: Network, normalisation: Normalisation, scales: Sequence[int] = SCALES
) -> Predict:
    """
    Return a function that averages over whole pictures of several sizes.

    Global average pooling accepts maps of any size: its average over places of the last map, and
    the linear layer after it, equal the linear layer at every place, averaged over the places. That
    is the fully convolutional form of the network. Pictures have different shapes, so each is a
    batch of its own, in which its mirror image stands beside it.

    Parameters
    ----------
    net : Network
        Ending with a global average pool and a linear layer.
    normalisation : Normalisation
        A mean per pixel is averaged over the pixels.
    scales : list of int
        Shorter sides.
    """
    from minires.data import pictures

    def views(source: Any) -> Array:
        picture = load_picture(source)
        found = []
        for side in scales:
            scaled = pictures.resize(picture, side)
            both = np.stack([scaled, scaled[:, ::-1]])  # (2, H, W, 3)
            found.append(softmax(net.forward(normalisation(both))).mean(axis=0, keepdims=True))
        return average(found)

    def predict(images: Iterable[Any]) -> Array:
        return np.concatenate([views(source) for source in images])

    return predict


def ensemble(predicts: Sequence[Predict]) -> Predict:
    """Return a function that averages over several networks, each with its own test."""
    return lambda images: average([predict(images) for predict in predicts])
