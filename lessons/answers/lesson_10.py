"""Lesson 10, for the weekend: the ten crops of a picture.

`ten_crops` is the model answer. The others are usual wrong ones.
"""

import numpy as np


def ten_crops(picture, size):
    """The four corners and the centre of a picture (H, W, C), then their mirror images."""
    H, W = picture.shape[:2]
    middle = round((H - size) / 2), round((W - size) / 2)
    places = [(0, 0), (0, W - size), (H - size, 0), (H - size, W - size), middle]
    five = np.stack([picture[top : top + size, left : left + size] for top, left in places])
    return np.concatenate([five, five[:, :, ::-1]])


def wrong_upside_down(picture, size):
    """Axis 1 of (5, rows, columns, C) are rows: the picture stands on its head."""
    five = ten_crops(picture, size)[:5]
    return np.concatenate([five, five[:, ::-1]])


def wrong_centre_of_a_square(picture, size):
    """Take the height for the width: right on square pictures only."""
    H = picture.shape[0]
    start = round((H - size) / 2)
    crops = ten_crops(picture, size)
    crops[4] = picture[start : start + size, start : start + size]
    crops[9] = crops[4][:, ::-1]
    return crops


def wrong_mirrored_picture(picture, size):
    """Mirror the picture first: the same ten squares, but in another order."""
    return np.concatenate([ten_crops(picture, size)[:5], ten_crops(picture[:, ::-1], size)[:5]])
