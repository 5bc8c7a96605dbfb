"""How pixels become the numbers that a network sees: subtract a mean, divide by a deviation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

NORMALISE = ("per-pixel-mean", "per-channel-mean", "imagenet")
# mean and deviation of ImageNet's channels in 0..1, as torchvision's weights expect them
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalisation:
    """Subtract a mean and divide by a deviation, both in the unit of pixels, 0..255.

    Attributes
    ----------
    mean : ndarray of shape (S, S, 3) or (3,), float32
        Per pixel of a square image, or per channel.
    deviation : ndarray of shape (3,), float32
        255 for means of the training images, as `minires.data.normalise` divides.
    """

    mean: Array
    deviation: Array

    def __call__(self, images: Array) -> Array:
        """Return (images - mean) / deviation, (N, H, W, 3), float32.

        A mean per pixel fits images of its own size only. For others, such as whole pictures in a
        fully convolutional test, its average over all pixels is subtracted.
        """
        mean = self.mean
        if mean.ndim == 3 and images.shape[1:3] != mean.shape[:2]:
            mean = mean.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
        x = np.subtract(images, mean, dtype=np.float32)
        x /= self.deviation
        return x

    @classmethod
    def of(cls, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Normalisation:
        """Make one of means and deviations of channels in 0..1, the unit of torchvision."""
        scaled = (255 * np.array(mean), 255 * np.array(deviation))
        return cls(*(values.astype(np.float32) for values in scaled))


def imagenet_normalisation() -> Normalisation:
    """The mean and deviation of ImageNet's channels, as torchvision's weights expect them."""
    return Normalisation.of(IMAGENET_MEAN, IMAGENET_DEVIATION)
