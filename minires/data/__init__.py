"""Data sets by name, their splits and their batches; this package does not depend on networks."""

from minires.data import cifar10, shapes10
from minires.data.augment import (
    ColourShift,
    CropAndFlip,
    add_colour,
    colour_components,
    crop_and_flip,
    normalise,
    per_pixel_mean,
)
from minires.data.batches import batch_indices, even_batches, seeds, stream, training_batch
from minires.data.dataset import ArraySplit, Dataset, Rows, Split
from minires.data.sources import (
    find_cifar10,
    key,
    load,
    looks_like_folder,
    option,
    register,
    unregister,
)

__all__ = [
    "ArraySplit",
    "ColourShift",
    "CropAndFlip",
    "Dataset",
    "Rows",
    "Split",
    "add_colour",
    "batch_indices",
    "cifar10",
    "colour_components",
    "crop_and_flip",
    "even_batches",
    "find_cifar10",
    "key",
    "load",
    "looks_like_folder",
    "normalise",
    "option",
    "per_pixel_mean",
    "register",
    "seeds",
    "shapes10",
    "stream",
    "training_batch",
    "unregister",
]
