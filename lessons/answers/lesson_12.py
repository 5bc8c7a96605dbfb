"""Lesson 12, for the weekend: ridge regression, and what it misses at images that are left out.

`ridge` and `left_out` are the model answers. The others are usual wrong ones. Features `z` (N, C)
and targets `t` (N, K) have mean 0.
"""

import numpy as np


def ridge(z, t, penalty):
    """w = (z' z + penalty N I)^-1 z' t."""
    return np.linalg.solve(z.T @ z + penalty * len(z) * np.eye(z.shape[1]), z.T @ t)


def left_out(z, t, penalty):
    """Residual of each image, predicted by a fit to the others, from one fit."""
    inverse = np.linalg.inv(z.T @ z + penalty * len(z) * np.eye(z.shape[1]))
    h = 1 / len(z) + np.einsum("ic,cd,id->i", z, inverse, z)
    return (t - z @ ridge(z, t, penalty)) / (1 - h)[:, None]


def wrong_ridge_forgets_the_number_of_images(z, t, penalty):
    """The penalty weighs less, the more images there are."""
    return np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ t)


def wrong_ridge_without_a_penalty(z, t, penalty):
    """Least squares: with fewer images than features it fits everything."""
    return np.linalg.lstsq(z, t)[0]


def wrong_left_out_is_the_residual(z, t, penalty):
    """The image was in the fit, so its residual is too small."""
    return t - z @ ridge(z, t, penalty)


def wrong_left_out_forgets_the_offset(z, t, penalty):
    """Without 1 / N: the mean of the targets is left as it was with all images."""
    inverse = np.linalg.inv(z.T @ z + penalty * len(z) * np.eye(z.shape[1]))
    h = np.einsum("ic,cd,id->i", z, inverse, z)
    return (t - z @ ridge(z, t, penalty)) / (1 - h)[:, None]
