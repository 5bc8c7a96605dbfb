"""The images that a recipe uses, and how it prepares them."""

from __future__ import annotations

from minires.data import Dataset, stream
from minires.layers.base import Array
from minires.runs.config import Config


def evaluation_rows(config: Config, images: int) -> tuple[Array, Array]:
    """Split the training images: rows for batch-norm statistics, and disjoint rows for errors.

    Parameters
    ----------
    config : Config
    images : int
        How many training images there are.

    Returns
    -------
    bn_rows : ndarray of shape (bn_images,)
        Rows for recomputing batch-norm statistics.
    eval_rows : ndarray of shape (eval_images,)
        Rows for measuring the training error.
    """
    chosen = stream(config.seed, "evaluation", 0).permutation(images)
    last = config.bn_images + config.eval_images
    return chosen[: config.bn_images], chosen[config.bn_images : last]


def prepared(config: Config, data: Dataset) -> Dataset:
    """The data with the preparation that a recipe asks for.

    Raises
    ------
    InputError
        If their preparation does not subtract a mean, cannot shift colours, or cannot make images
        of the recipe's size.
    """
    data = data.with_images(config.image_size, config.normalise)
    if not config.subtract_mean:
        data = data.without_mean()
    return data.with_colour(augment=config.augment) if config.pca_colour else data
