"""A data set: two splits of examples, and how they are prepared for a network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np

from minires.data.augment import CropAndFlip
from minires.data.normalisation import NORMALISE
from minires.errors import InputError
from minires.text import did_you_mean, shown

Array = np.ndarray
Prepare = Callable[..., Array]  # prepare(images, rng or None) -> float32 batch, augmented if rng


class Split(Protocol):
    """Examples by number: anything with a length and rows, in memory or on disk."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def __getitem__(self, rows: Any) -> tuple[Array, Array]:
        """Return the stored images and the targets of the rows that an integer array names."""


@dataclass(frozen=True)
class ArraySplit:
    """Examples in memory.

    Attributes
    ----------
    images : ndarray of shape (N, H, W, C)
    labels : ndarray of shape (N, ...)
        Class indices (N,), int64, for classification.
    """

    images: Array = field(repr=False)
    labels: Array = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Any) -> tuple[Array, Array]:
        return self.images[rows], self.labels[rows]

    def hash_into(self, digest: Any) -> None:
        """Feed shapes, dtypes and contents to a hash."""
        for a in (self.images, self.labels):
            digest.update(f"{a.dtype.str}{a.shape}".encode())
            digest.update(np.ascontiguousarray(a).data)


@dataclass(frozen=True)
class Rows:
    """Some rows of a split, in a given order, as a split of their own."""

    split: Split
    rows: Array

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> tuple[Array, Array]:
        return self.split[self.rows[rows]]


@dataclass(frozen=True)
class Dataset:
    """Examples for training and for testing, with their own preparation.

    Attributes
    ----------
    name : str
        Such as "CIFAR-10", "CIFAR-10 (JPEG copy)" or "shapes10". Figures and records show it.
    train, test : Split
    classes : tuple of str
        Names of the classes; labels number them from 0. Empty if the targets are not
        classes. A network then has as many outputs as its own facts say.
    source : str
        The folder it was read from, or the seed and sizes it was drawn with.
    prepare : callable
        `prepare(images, rng)` makes a float32 batch (N, H, W, C) of stored images. It augments
        them if `rng` is a Generator, and does not if it is None. The default is section 4.2 of the
        paper, see `CropAndFlip`.
    fresh : callable, optional
        `fresh(n, rng)` draws `n` new images and labels. If it is given, training sees new images
        at every step. The training split then serves only the per-pixel mean, batch norm's
        statistics and the evaluation.
    task : str
        The task that these targets are for, see `minires.train.task`.
    fingerprint : str
        SHA-256 that identifies the data. By default, a hash over both splits in memory.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    source: str
    prepare: Prepare = field(default=None)  # type: ignore[assignment]  # made below
    fresh: Callable[[int, np.random.Generator], tuple[Array, Array]] | None = None
    task: str = "classification"
    fingerprint: str = ""

    def __post_init__(self) -> None:
        name = self.name
        if not isinstance(name, str) or not name.strip() or shown(name) != name:
            raise InputError(
                f"a data set needs a name of printable characters on one line, got "
                f"{shown(repr(name), 100)}; give Dataset(name, ...)"
            )
        if self.prepare is None:
            object.__setattr__(self, "prepare", CropAndFlip(self.train))

    @property
    def slug(self) -> str:
        """First word of the name, safe within a folder name: no path separator, no leading dot."""
        word = re.sub(r"[^\w.-]+", "-", self.name.split()[0].lower())
        return word.strip(".-")[:40] or "data"

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """(H, W, C) of one prepared image; a preparation may know it as `input_shape`."""
        if hasattr(self.prepare, "input_shape"):
            return tuple(self.prepare.input_shape)
        images, _ = self.train[np.arange(1)]
        return self.prepare(images, None).shape[1:]

    @cached_property
    def sha256(self) -> str:
        """The hash by which records identify the data: `fingerprint`, or a hash of all arrays."""
        if self.fingerprint:
            return self.fingerprint
        digest = hashlib.sha256()
        for split in (self.train, self.test):
            if not isinstance(split, ArraySplit):
                raise InputError(
                    f"{self.name}: expected arrays in memory or a fingerprint, got neither; "
                    "give Dataset(..., fingerprint=...) for data that are read piece by piece"
                )
            split.hash_into(digest)
        return digest.hexdigest()

    def without_mean(self) -> Self:
        """The same data, prepared without subtracting a mean.

        Raises
        ------
        InputError
            If the preparation of these data does not subtract a mean.
        """
        if not hasattr(self.prepare, "without_mean"):
            raise InputError(f"{self.name} is prepared without a mean anyway; drop --no-mean")
        return replace(self, prepare=self.prepare.without_mean())

    def with_colour(self, augment: bool = True) -> Self:
        """The same data, with colours shifted in training; crops and flips as well if `augment`.

        Raises
        ------
        InputError
            If the preparation of these data cannot shift colours.
        """
        if not hasattr(self.prepare, "with_colour"):
            raise InputError(
                f"the preparation of {self.name} cannot shift colours; drop --pca-colour"
            )
        return replace(self, prepare=self.prepare.with_colour(augment))

    def with_images(self, image_size: int | None = None, normalise: str = NORMALISE[0]) -> Self:
        """The same data, prepared as images of another size, or with another mean.

        Parameters
        ----------
        image_size : int, optional
            Side of a square image in pixels; by default, the data's own.
        normalise : {"per-pixel-mean", "per-channel-mean", "imagenet"}

        Raises
        ------
        InputError
            If the preparation of these data cannot do so.
        """
        prepare = self.prepare
        if normalise not in NORMALISE:
            near = did_you_mean(normalise, NORMALISE)
            raise InputError(
                f"--normalise must be one of {', '.join(NORMALISE)}, got {shown(normalise)!r}{near}"
            )
        if image_size is not None and set(self.input_shape[:2]) != {image_size}:
            if not hasattr(prepare, "with_image_size"):
                sides = "x".join(map(str, self.input_shape[:2]))
                raise InputError(
                    f"the images of {self.name} have {sides} pixels, got --image-size {image_size};"
                    " drop it: only pictures of a folder are scaled"
                )
            prepare = prepare.with_image_size(image_size)
        if normalise != getattr(prepare, "normalise", NORMALISE[0]):
            if not hasattr(prepare, "with_normalise"):
                raise InputError(
                    f"{self.name} is prepared in its own way; drop --normalise {normalise}"
                )
            prepare = prepare.with_normalise(normalise)
        return self if prepare is self.prepare else replace(self, prepare=prepare)
