"""The one container that every source of images fills and everything else reads."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Dataset:
    """
    Labelled images, split into training and test.

    Attributes
    ----------
    name : str
        "CIFAR-10", "CIFAR-10 (JPEG copy)", "shapes10", ...: what figures and records call it.
    train_images, test_images : ndarray of shape (N, 32, 32, 3), uint8
    train_labels, test_labels : ndarray of shape (N,), int64
        Indices into `classes`.
    classes : tuple of str
    source : str
        The folder it was read from, or the seed and sizes it was drawn with.
    fresh : callable, optional
        `fresh(n, rng)` draws `n` new images and labels. Where it is given, training sees new images at every step, and
        the training half serves the per-pixel mean, batch norm's statistics and the evaluation.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    source: str
    fresh: Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]] | None = None

    @property
    def slug(self) -> str:
        """First word of the name, for names of folders."""
        return self.name.split()[0].lower()

    @cached_property
    def sha256(self) -> str:
        """Hash over shapes, dtypes and contents of the four arrays: what a run's record names its data by."""
        digest = hashlib.sha256()
        for a in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(f"{a.dtype.str}{a.shape}".encode())
            digest.update(np.ascontiguousarray(a).data)
        return digest.hexdigest()
