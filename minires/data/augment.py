"""From stored pixels to a batch: subtract the mean, scale, and maybe crop and flip."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from minires.errors import InputError

if TYPE_CHECKING:
    from minires.data.dataset import Split

CHUNK = (
    1000  # images converted at once, so that a mean over 50,000 images needs 25 MB and not 1.2 GB
)


def per_pixel_mean(images: np.ndarray) -> np.ndarray:
    """
    Average the images, pixel by pixel.

    Parameters
    ----------
    images : ndarray of shape (N, H, W, C)
        N of 1 or more.

    Returns
    -------
    ndarray of shape (H, W, C), float32
        In the unit of the images (0..255), summed in float64: exact for uint8.

    Raises
    ------
    InputError
        If `images` is not four-dimensional or holds no image.
    """
    if images.ndim != 4 or len(images) == 0:
        raise InputError(
            f"expected images of shape (N, H, W, C) with N >= 1, but got {images.shape}; "
            "pass a training set"
        )
    total = np.zeros(images.shape[1:], np.float64)
    for start in range(0, len(images), CHUNK):
        total += images[start : start + CHUNK].sum(axis=0, dtype=np.float64)
    return (total / len(images)).astype(np.float32)


def normalise(images: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """
    Take off the mean and scale: (images - mean) / 255.

    Parameters
    ----------
    images : ndarray of shape (N, H, W, C), uint8 or floating
        In 0..255.
    mean : ndarray of shape (H, W, C), float32
        In the same unit.

    Returns
    -------
    ndarray of shape (N, H, W, C), float32

    Raises
    ------
    InputError
        If the shapes do not agree, or an image holds NaN or infinity.
    """
    if images.ndim != 4 or images.shape[1:] != mean.shape:
        raise InputError(
            f"expected images of shape (N, *{mean.shape}) to match their mean, "
            f"but got {images.shape}; "
            "compute the mean with per_pixel_mean on the same kind of images"
        )
    if images.dtype.kind == "f":
        finite = np.isfinite(images).all(axis=(1, 2, 3))
        if not finite.all():
            raise InputError(
                f"expected finite pixels in 0..255, but image {int(np.argmin(finite))} holds NaN "
                "or infinity "
                f"({int((~finite).sum())} of {len(images)} images do); repair or remove it"
            )
    x = np.subtract(images, mean, dtype=np.float32)
    x *= np.float32(1 / 255)
    return x


def crop_and_flip(x: np.ndarray, rng: np.random.Generator, pad: int = 4) -> np.ndarray:
    """
    Shift each image by up to `pad` pixels and mirror every second one, at random.

    Each image is padded with zeros on every side and cropped back to its size at a random place,
    then flipped left to right with probability 1/2. After `normalise` a zero is the mean colour,
    so the border shows nothing.

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C), float32
        Left unchanged.
    rng : numpy.random.Generator
        The source of shifts and flips.
    pad : int
        Pixels, 0 or more.

    Returns
    -------
    ndarray of shape (N, H, W, C), the dtype of `x`

    Raises
    ------
    InputError
        If `x` is not four-dimensional or `pad` is negative.
    """
    if x.ndim != 4 or pad < 0:
        raise InputError(
            f"expected x of shape (N, H, W, C) and pad >= 0, but got shape {x.shape} and "
            f"pad {pad}; correct them"
        )
    N, H, W, C = x.shape
    top, left = rng.integers(0, 2 * pad + 1, (2, N))
    flip = rng.random(N) < 0.5
    padded = np.zeros((N, H + 2 * pad, W + 2 * pad, C), x.dtype)
    padded[:, pad : pad + H, pad : pad + W] = x
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (H, W), axis=(1, 2)
    )  # N, 2p+1, 2p+1, C, H, W
    windows = windows.transpose(0, 1, 2, 4, 5, 3)
    # one index copies whole windows: faster than a loop or an index per pixel, see LOG.md
    y = windows[np.arange(N), top, left]
    y[flip] = y[flip, :, ::-1]
    return y


class CropAndFlip:
    """Preparation of section 4.2: subtract the per-pixel mean; in training, crop and flip.

    Parameters
    ----------
    train : Split
        The training images, whose mean is subtracted.
    subtract_mean : bool
    """

    def __init__(self, train: Split, subtract_mean: bool = True) -> None:
        self.train = train
        self.subtract_mean = subtract_mean

    @cached_property
    def mean(self) -> np.ndarray:
        """Per-pixel mean of the training images, (H, W, C), float32; 0 without subtraction."""
        images, _ = self.train[slice(None) if self.subtract_mean else slice(1)]
        if self.subtract_mean:
            return per_pixel_mean(images)
        return np.zeros(images.shape[1:], np.float32)

    def __call__(self, images: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return a float32 batch (N, H, W, C): cropped and flipped if there is an `rng`."""
        x = normalise(images, self.mean)
        return x if rng is None else crop_and_flip(x, rng)

    def without_mean(self) -> CropAndFlip:
        """The same preparation, without subtracting the mean."""
        return CropAndFlip(self.train, subtract_mean=False)
