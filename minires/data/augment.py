"""From stored pixels to a batch: subtract the mean, scale, maybe crop, flip and shift colours."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from minires.data.normalisation import NORMALISE, Normalisation, imagenet_normalisation
from minires.errors import InputError

if TYPE_CHECKING:
    from minires.data.dataset import Split

CHUNK = (
    1000  # images converted at once, so that a mean over 50,000 images needs 25 MB and not 1.2 GB
)
COLOUR_STD = 0.1  # of alpha in `add_colour`


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


def colour_components(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Principal components of the colours of a training set.

    They are the eigenvalues and eigenvectors of the covariance between channels, over all pixels
    of all images (Krizhevsky et al. 2012, section 4.1). A deviation has the unit of the images,
    an eigenvalue its square: pixels 255 times as large have eigenvalues 65,025 times as large.

    Parameters
    ----------
    images : ndarray of shape (N, H, W, C), uint8 or floating

    Returns
    -------
    values : ndarray of shape (C,), float64
        Eigenvalues, the largest first.
    vectors : ndarray of shape (C, C), float64
        Column k is the eigenvector of `values[k]`, of length 1; its largest element is positive.

    Raises
    ------
    InputError
        If `images` is not four-dimensional, holds no image, or holds NaN or infinity.
    """
    centre = per_pixel_mean(images).mean(axis=(0, 1), dtype=np.float64)  # (C,)
    C = len(centre)
    total = np.zeros((C, C))
    for start in range(0, len(images), CHUNK):
        pixels = images[start : start + CHUNK].reshape(-1, C) - centre
        total += pixels.T @ pixels
    if not np.isfinite(total).all():
        raise InputError(
            "expected finite pixels, but the images hold NaN or infinity; repair or remove them"
        )
    return principal_components(total / (images.size // C))


def principal_components(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of a covariance (C, C), as `colour_components` returns them."""
    values, vectors = np.linalg.eigh(covariance)
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(len(values))])
    return values[::-1].copy(), vectors[:, ::-1].copy()


def add_colour(
    images: np.ndarray, alpha: np.ndarray, values: np.ndarray, vectors: np.ndarray
) -> np.ndarray:
    """
    Shift the colour of each image along the principal components of the training set.

    To every pixel of image n, add vectors @ (alpha[n] * values). This is the formula of Krizhevsky
    et al. 2012, section 4.1, where alpha ~ N(0, 0.1^2) is drawn once for each image and each use.

    The paper multiplies by eigenvalues. As these have the unit of a variance, the unit of the
    pixels decides how strong the shift is. Measured on CIFAR-10, alpha has a deviation of 0.1 and
    the shift of a channel one of
    - 640 grey levels with the eigenvalues of pixels in 0..255, which leaves nothing of an image;
    - 2.5 grey levels with the eigenvalues of pixels in 0..1, as the PyTorch and TensorFlow
      recipes for ImageNet do (their eigenvalues are 0.2175, 0.0188 and 0.0045);
    - 6 grey levels with their square roots, in any unit. The public code of the paper's first
      author, cuda-convnet2, calls its factors standard deviations.

    Parameters
    ----------
    images : ndarray of shape (N, H, W, C), float32 or float64
        Left unchanged.
    alpha : ndarray of shape (N, C)
        0 leaves an image as it is, bit for bit.
    values : ndarray of shape (C,)
        Eigenvalues of pixels in the unit of `images`, or any other strengths, such as their square
        roots.
    vectors : ndarray of shape (C, C)
        Eigenvectors as columns, see `colour_components`.

    Returns
    -------
    ndarray of shape (N, H, W, C), the dtype of `images`

    Raises
    ------
    InputError
        If `images` are not floating-point numbers, or the shapes do not agree.
    """
    if images.ndim != 4 or images.dtype.kind != "f":
        raise InputError(
            f"expected floating-point images of shape (N, H, W, C), but got {images.dtype} "
            f"{images.shape}; convert them with normalise, or with .astype(np.float32)"
        )
    N, _, _, C = images.shape
    shapes = (np.shape(alpha), np.shape(values), np.shape(vectors))
    if shapes != ((N, C), (C,), (C, C)):
        raise InputError(
            f"expected alpha {(N, C)}, values {(C,)} and vectors {(C, C)} for images of shape "
            f"{images.shape}, but got {shapes[0]}, {shapes[1]} and {shapes[2]}; take values and "
            "vectors from colour_components of images with the same channels"
        )
    shift = ((alpha * values) @ np.transpose(vectors)).astype(images.dtype)  # (N, C)
    shift[shift == 0] = -0.0  # x + -0.0 has the bits of x, also for x = -0.0
    return images + shift[:, None, None, :]


class CropAndFlip:
    """Preparation of section 4.2: subtract the per-pixel mean; in training, crop and flip.

    Parameters
    ----------
    train : Split
        The training images, whose mean is subtracted.
    subtract_mean : bool
    normalise : {"per-pixel-mean", "per-channel-mean", "imagenet"}
        The mean that is subtracted, see `minires.data.normalisation`. The difference is divided by
        255, with "imagenet" by ImageNet's deviations.
    given : Normalisation, optional
        This mean and deviation, such as those in a file of weights, in place of `normalise`.
    """

    def __init__(
        self,
        train: Split,
        subtract_mean: bool = True,
        normalise: str = NORMALISE[0],
        given: Normalisation | None = None,
    ) -> None:
        self.train = train
        self.subtract_mean = subtract_mean
        self.normalise = normalise
        self.given = given

    @cached_property
    def mean(self) -> np.ndarray:
        """The mean that is subtracted, (H, W, C), float32; 0 without subtraction."""
        of_images = self.subtract_mean and self.normalise != "imagenet"
        images, _ = self.train[slice(None) if of_images else slice(1)]
        mean = per_pixel_mean(images)
        if not self.subtract_mean:
            mean[...] = 0
        elif self.normalise == "imagenet":
            mean[...] = imagenet_normalisation().mean
        elif self.normalise == "per-channel-mean":
            mean[...] = mean.mean(axis=(0, 1), dtype=np.float64)
        return mean

    @cached_property
    def scale(self) -> np.ndarray:
        """Factor of the difference in 0..1, (C,), float32: ones, or 1 / deviation."""
        if self.normalise == "imagenet":
            return 255 / imagenet_normalisation().deviation
        return np.ones(self.mean.shape[2], np.float32)

    def __call__(self, images: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return a float32 batch (N, H, W, C): cropped and flipped if there is an `rng`."""
        x = normalise(images, self.mean) if self.given is None else self.given(images)
        if self.given is None and self.normalise == "imagenet":
            x *= self.scale
        return x if rng is None else crop_and_flip(x, rng)

    def without_mean(self) -> CropAndFlip:
        """The same preparation, without subtracting the mean."""
        return CropAndFlip(self.train, subtract_mean=False, normalise=self.normalise)

    def with_normalise(self, normalise: str) -> CropAndFlip:
        """The same preparation, with another mean and deviation."""
        return CropAndFlip(self.train, self.subtract_mean, normalise)

    def with_normalisation(self, given: Normalisation) -> CropAndFlip:
        """The same preparation, with this mean and deviation."""
        return CropAndFlip(self.train, self.subtract_mean, self.normalise, given)

    def with_colour(self, augment: bool = True) -> ColourShift:
        """The same preparation with colours shifted in training; no crops if not `augment`."""
        return ColourShift(self, augment)


class ColourShift:
    """Preparation that shifts colours in training, after crops and flips, see `add_colour`.

    The components are those of the training pixels in 0..1, the unit of a prepared batch.

    Parameters
    ----------
    before : CropAndFlip
        Its training images define the components.
    augment : bool
        Crop and flip, too.
    """

    def __init__(self, before: CropAndFlip, augment: bool = True) -> None:
        self.before = before
        self.augment = augment

    @cached_property
    def components(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (C,) and eigenvectors (C, C) of the training pixels in 0..1."""
        images, _ = self.before.train[slice(None)]
        values, vectors = colour_components(images)
        return values / 255**2, vectors

    def __call__(self, images: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return a float32 batch (N, H, W, C), augmented if there is an `rng`."""
        x = self.before(images, rng if self.augment else None)
        if rng is None:
            return x
        alpha = COLOUR_STD * rng.standard_normal((len(x), x.shape[3]))
        values, vectors = self.components
        return add_colour(x, alpha, values, self.before.scale[:, None] * vectors)
