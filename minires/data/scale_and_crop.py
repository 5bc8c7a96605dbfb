"""
From picture files to a batch, as section 3.4 of the paper trains: scale, crop, mirror, colour.

Pictures have different sizes, so a batch of them is an array of paths. They are read here, one at
a time in each thread: memory holds a few whole pictures, however large the batch is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from minires.data.augment import COLOUR_STD, add_colour, principal_components
from minires.data.normalisation import NORMALISE, Normalisation, imagenet_normalisation
from minires.errors import InputError

if TYPE_CHECKING:
    from minires.data.dataset import Split

Array = np.ndarray

Sums = tuple[Array, Array, int]  # pixels (S, S, 3), products of channels (3, 3), images

IMAGE_SIZE = 224  # section 3.4
SHORTER = (256, 480)  # shorter side of a picture that is cropped to IMAGE_SIZE
TEST_SHORTER = 256  # the same for centre crops
CHUNK = 64  # pictures that are in memory while the mean is computed
MEAN_PICTURES = 2000  # at most, evenly spread: the mean is then right to about one grey level


def threads() -> int:
    """Threads that read pictures: as many as this process may use, at most 8."""
    usable = getattr(os, "sched_getaffinity", None)
    return min(8, len(usable(0)) if usable else os.cpu_count() or 1)


def training_sides(image_size: int) -> tuple[int, int]:
    """Shorter sides of training pictures: [256, 480] for crops of 224, in proportion otherwise."""
    low, high = (max(image_size, round(side * image_size / IMAGE_SIZE)) for side in SHORTER)
    return low, high


def test_side(image_size: int) -> int:
    """Shorter side of pictures for a centre crop: 256 for 224, in proportion otherwise."""
    return max(image_size, round(TEST_SHORTER * image_size / IMAGE_SIZE))


def in_threads(function: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
    """Call a function for each element, in threads; results are in the order of the elements."""
    with ThreadPoolExecutor(threads(), "pictures") as pool:
        return list(pool.map(function, *arguments))


def bar(total: int, text: str) -> Any:
    """Progress bar on a terminal, for work on picture files that takes more than two seconds."""
    from tqdm import tqdm

    quiet = sys.stderr is None or not sys.stderr.isatty()
    return tqdm(total=total, desc=text, delay=2, leave=False, disable=quiet)


def load_picture(source: Any) -> Array:
    """Pixels (H, W, 3), uint8, of a path, or of an array that has them already."""
    from minires.data import pictures  # Pillow takes a moment to import

    return pictures.read(Path(source)) if isinstance(source, (str, Path)) else source


def centre_of(source: Any, image_size: int) -> Array:
    """Centre crop (S, S, 3) of a picture whose shorter side was resized to `test_side`."""
    from minires.data import pictures

    return pictures.centre_crop(
        pictures.resize(load_picture(source), test_side(image_size)), image_size
    )


class ScaleAndCrop:
    """Preparation of section 3.4, for pictures of any size.

    In training, a picture is scaled so that its shorter side is random in [256, 480], and a random
    square of 224 pixels, or its mirror image, is cut out. Otherwise, the shorter side becomes 256
    and the square is the centre. Other image sizes are in proportion.

    Parameters
    ----------
    train : Split
        Paths of training pictures and labels. Mean and colours are those of up to `MEAN_PICTURES`
        of them.
    image_size : int
        Side of the square, S.
    normalise : {"per-pixel-mean", "per-channel-mean", "imagenet"}
        The mean that is subtracted: of every pixel of the training images (the paper's choice), of
        their channels, or of ImageNet's channels. The difference is divided by 255, with "imagenet"
        by ImageNet's deviations.
    subtract_mean : bool
    augment : bool
        Scale, crop and mirror at random in training.
    colour : bool
        Shift colours in training, see `minires.data.augment.add_colour`.
    given : Normalisation, optional
        This mean and deviation, such as those in a file of weights, in place of `normalise`.
    """

    on_disk = True  # prepared ahead, in threads

    def __init__(
        self,
        train: Split,
        image_size: int = IMAGE_SIZE,
        normalise: str = NORMALISE[0],
        subtract_mean: bool = True,
        augment: bool = True,
        colour: bool = False,
        given: Normalisation | None = None,
    ) -> None:
        if normalise not in NORMALISE:
            raise InputError(f"normalise must be one of {', '.join(NORMALISE)}, got {normalise!r}")
        if image_size < 1:
            raise InputError(f"the image size must be 1 pixel or more, got {image_size}")
        self.train, self.image_size, self.normalise = train, image_size, normalise
        self.subtract_mean, self.augment, self.colour = subtract_mean, augment, colour
        self.given = given
        self._sums: dict[int, Sums] = {}  # by image size; shared by variations, so read once

    # ----------------------------------------------------------------------------- variations

    def _with(self, **changes: Any) -> Self:
        names = ("train", "image_size", "normalise", "subtract_mean", "augment", "colour", "given")
        changed = type(self)(**({name: getattr(self, name) for name in names} | changes))
        changed._sums = self._sums
        return changed

    def without_mean(self) -> Self:
        """The same preparation, without subtracting the mean."""
        return self._with(subtract_mean=False)

    def with_colour(self, augment: bool = True) -> Self:
        """The same preparation, with colours shifted in training; no crops if not `augment`."""
        return self._with(augment=augment, colour=True)

    def with_image_size(self, image_size: int) -> Self:
        """The same preparation, for square images of another size."""
        return self._with(image_size=image_size)

    def with_normalise(self, normalise: str) -> Self:
        """The same preparation, with another mean and deviation."""
        return self._with(normalise=normalise, given=None)

    def with_normalisation(self, given: Normalisation) -> Self:
        """The same preparation, with this mean and deviation."""
        return self._with(given=given)

    # ----------------------------------------------------------------- mean of training images

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(S, S, 3) of a prepared image."""
        return (self.image_size, self.image_size, 3)

    @property
    def _training_crops(self) -> Sums:
        """Sums over centre crops of training pictures."""
        if self.image_size not in self._sums:
            self._sums[self.image_size] = self._add_up()
        return self._sums[self.image_size]

    def _add_up(self) -> Sums:
        rows = np.unique(np.linspace(0, len(self.train) - 1, MEAN_PICTURES).round().astype(int))
        total = np.zeros(self.input_shape, np.int64)
        products = np.zeros((3, 3), np.int64)
        with bar(len(rows), "mean of the training pictures") as progress:
            for start in range(0, len(rows), CHUNK):
                squares = self._squares(self.train[rows[start : start + CHUNK]][0], None)
                for image in squares:
                    pixels = image.reshape(-1, 3).astype(np.int64)
                    total += image
                    products += pixels.T @ pixels
                progress.update(len(squares))
        return total, products, len(rows)

    @cached_property
    def normalisation(self) -> Normalisation:
        """The mean and the deviation of this preparation."""
        if self.given is not None:
            return self.given
        if self.normalise == "imagenet":
            found = imagenet_normalisation()
            zero = np.zeros(3, np.float32)
            return found if self.subtract_mean else Normalisation(zero, found.deviation)
        deviation = np.full(3, 255, np.float32)
        if not self.subtract_mean:
            return Normalisation(np.zeros(3, np.float32), deviation)
        total, _, count = self._training_crops
        mean = total / count
        if self.normalise == "per-channel-mean":
            mean = mean.mean(axis=(0, 1))
        return Normalisation(mean.astype(np.float32), deviation)

    @cached_property
    def components(self) -> tuple[Array, Array]:
        """Principal components of the colours of training pixels in 0..1: values (3,), vectors."""
        total, products, count = self._training_crops
        pixels = count * self.image_size**2
        centre = total.sum(axis=(0, 1)) / pixels
        covariance = products / pixels - np.outer(centre, centre)
        values, vectors = principal_components(covariance)
        return values / 255**2, vectors

    def about(self) -> dict[str, Any]:
        """Describe the preparation for a file of weights, as plain values.

        "normalise", "image_size", and the mean and deviation of channels in 0..1; a mean per pixel
        is averaged over the pixels.
        """
        found = self.normalisation
        mean = found.mean.reshape(-1, 3).mean(axis=0, dtype=np.float64) / 255
        deviation = found.deviation.astype(np.float64) / 255
        values = {"mean": mean.tolist(), "deviation": deviation.tolist()}
        return {"normalise": self.normalise, "image_size": self.image_size, **values}

    # ------------------------------------------------------------------------------ a batch

    def _squares(self, images: Iterable[Any], draws: Array | None) -> list[Array]:
        """Squares (S, S, 3), uint8: at random by `draws` (N, 4) if given, else the centres."""
        from minires.data import pictures

        if draws is None:
            return in_threads(lambda source: centre_of(source, self.image_size), images)

        def at_random(source: Any, row: Array) -> Array:
            sides = training_sides(self.image_size)
            return pictures.at_random(load_picture(source), sides, self.image_size, row)[0]

        return in_threads(at_random, images, draws)

    def __call__(self, images: Array, rng: np.random.Generator | None = None) -> Array:
        """
        Prepare a batch.

        Parameters
        ----------
        images : ndarray of N paths, or of shape (N, H, W, 3), uint8
        rng : Generator, optional
            Augment if it is given. All numbers are drawn before the first picture is read, so the
            batch does not depend on the order in which threads finish.

        Returns
        -------
        ndarray of shape (N, S, S, 3), float32

        Raises
        ------
        InputError
            If a picture cannot be read.
        """
        N = len(images)
        draws = rng.random((N, 4)) if rng is not None and self.augment else None
        x = self.normalisation(np.stack(self._squares(images, draws)))
        if rng is None or not self.colour:
            return x
        alpha = COLOUR_STD * rng.standard_normal((N, 3))
        values, vectors = self.components
        # a shift in 0..1, the unit of the components, in the unit of the prepared batch
        scale = 255 / self.normalisation.deviation.astype(np.float64)
        return add_colour(x, alpha, values, scale[:, None] * vectors)
