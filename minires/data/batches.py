"""
The images of a step, and their augmentation, as pure functions of (seed, iteration).

No generator is kept from one step to the next. Each draw makes its own from the seed, its purpose
and the step's number. So a run that is resumed at iteration i sees the same images as one that was
never stopped.
"""

import zlib
from functools import lru_cache

import numpy as np

from minires.data.dataset import Dataset
from minires.errors import InputError


def seeds(seed: int, purpose: int | str, index: int) -> np.random.SeedSequence:
    """
    Seeds for one purpose and one step.

    Parameters
    ----------
    seed : int
        The run's seed, 0 or more.
    purpose : int or str
        Different purposes draw independent numbers. A text stands for its CRC-32.
    index : int
        Number of the step, epoch or repetition, 0 or more.

    Raises
    ------
    InputError
        If `seed`, `purpose` or `index` is negative.
    """
    key = zlib.crc32(purpose.encode()) if isinstance(purpose, str) else purpose
    if min(seed, key, index) < 0:
        raise InputError(
            f"random streams are numbered from 0, but got seed {seed}, purpose {purpose!r}, "
            f"index {index}; use numbers that are not negative"
        )
    return np.random.SeedSequence(seed, spawn_key=(key, index))


def stream(seed: int, purpose: int | str, index: int) -> np.random.Generator:
    """Make the generator for one purpose and one step; arguments and errors as for `seeds`."""
    return np.random.default_rng(seeds(seed, purpose, index))


@lru_cache(maxsize=2)  # a batch touches at most two epochs unless it is larger than the data set
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    order = stream(seed, "order", epoch).permutation(n)
    order.setflags(write=False)
    return order


def batch_indices(seed: int, iteration: int, batch_size: int, n: int) -> np.ndarray:
    """
    Return the indices of the images of one training step.

    The permutations of the epochs follow one another and are cut into batches, so a batch may hold
    the end of one epoch and the beginning of the next, and every image is used exactly once per
    epoch.

    Parameters
    ----------
    seed, iteration : int
        The run's seed and the step's number, 0 or more.
    batch_size, n : int
        Images per step and in the training set, 1 or more.

    Returns
    -------
    ndarray of shape (batch_size,), int64
        Indices in 0..n-1.

    Raises
    ------
    InputError
        If an argument is out of its range.
    """
    if min(batch_size, n) < 1 or iteration < 0:
        raise InputError(
            "a batch needs batch_size >= 1, n >= 1 and iteration >= 0, "
            f"but got batch_size {batch_size}, n {n}, iteration {iteration}; "
            "correct the batch size or the data set"
        )
    start = iteration * batch_size
    stop = start + batch_size
    parts = []
    for epoch in range(start // n, (stop - 1) // n + 1):
        first = epoch * n
        parts.append(_permutation(seed, epoch, n)[max(start - first, 0) : stop - first])
    return np.concatenate(parts)


def even_batches(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """
    Cut rows into batches of nearly equal size.

    There are as few batches of at most `batch_size` rows as possible, and their sizes differ by at
    most one: 512 rows with a batch size of 511 give 256 and 256. A leftover batch of one
    image would be a poor sample: in the deep layers, its maps hold few values. For the same
    reason, several rows never give a batch of one: 3 rows with a batch size of 2 stay together.

    Parameters
    ----------
    rows : ndarray of shape (N,)
    batch_size : int
        1 or more.

    Returns
    -------
    list of ndarray
        In the order of `rows`; none for no rows.
    """
    if not len(rows):
        return []
    most = max(1, len(rows) // 2)
    return np.array_split(rows, min(-(-len(rows) // batch_size), most))


def training_batch(
    dataset: Dataset, seed: int, iteration: int, batch_size: int, augment: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """
    Prepare the input of one training step.

    Parameters
    ----------
    dataset : Dataset
        Its training split is used, or, if it has `fresh` images, new ones that belong to this seed
        and step.
    seed, iteration, batch_size : int
        As for `batch_indices`.
    augment : bool
        Augment as the data set does, such as crop and flip at random (section 4.2 of the paper).

    Returns
    -------
    x : ndarray of shape (batch_size, H, W, C), float32
    targets : ndarray of shape (batch_size, ...)
        Labels (batch_size,), int64, for classification.

    Raises
    ------
    InputError
        As `batch_indices` and the data set's `prepare` do.
    """
    if dataset.fresh:
        images, targets = dataset.fresh(batch_size, stream(seed, "fresh images", iteration))
    else:
        images, targets = dataset.train[
            batch_indices(seed, iteration, batch_size, len(dataset.train))
        ]
    rng = stream(seed, "augment", iteration) if augment else None
    return dataset.prepare(images, rng), targets
