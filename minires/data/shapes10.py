"""
Ten shapes, drawn by arithmetic: a data set that needs no download and never runs out.

A network has to see form: colour and brightness say nothing about the label; position, size and
angle vary; strokes in the shape's own colour lie behind it, and one more stroke lies in front.
Every machine draws the same bits: pixels are made only by sums, products, quotients, square roots
and comparisons, which every machine rounds alike.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from minires.data.batches import stream
from minires.data.dataset import ArraySplit, Dataset
from minires.errors import InputError

SIZE = 32
CHUNK = 64  # images drawn at once: a plane of 64 x 32 x 32 float32 fits into a core's cache

Plane = np.ndarray  # float32, (n, 32, 32)


def _circle(u: Plane, v: Plane, radius: float, at: float = 0.0) -> Plane:
    u = u - np.float32(at)
    return np.sqrt(u * u + v * v) - np.float32(radius)


def _box(u: Plane, v: Plane, half_u: float, half_v: float) -> Plane:
    return np.maximum(abs(u) - np.float32(half_u), abs(v) - np.float32(half_v))


def _edge(u: Plane, v: Plane, degrees: float, distance: float) -> Plane:
    """Distance to the line with its normal at `degrees`; negative on the side of the origin."""
    a = np.deg2rad(degrees)
    return np.float32(np.cos(a)) * u + np.float32(np.sin(a)) * v - np.float32(distance)


def _triangle(u: Plane, v: Plane) -> Plane:
    return np.maximum(
        _edge(u, v, 180, 0.5), np.maximum(_edge(u, v, 60, 0.5), _edge(u, v, 300, 0.5))
    )


def _ring(u: Plane, v: Plane) -> Plane:
    return abs(_circle(u, v, 0.72)) - np.float32(0.2)


def _frame(u: Plane, v: Plane) -> Plane:
    return abs(_box(u, v, 0.62, 0.62)) - np.float32(0.17)


def _cross(u: Plane, v: Plane) -> Plane:
    return np.minimum(_box(u, v, 0.95, 0.3), _box(u, v, 0.3, 0.95))


def _star(u: Plane, v: Plane) -> Plane:
    """A star: inside four or more of its edge lines, so the second largest distance."""
    first = _edge(u, v, 0, 0.36)
    second = np.full_like(first, -np.inf)
    for k in range(1, 5):
        d = _edge(u, v, 72 * k, 0.36)
        np.maximum(second, np.minimum(first, d), out=second)
        np.maximum(first, d, out=first)
    return second


def _crescent(u: Plane, v: Plane) -> Plane:
    return np.maximum(_circle(u, v, 0.92), -_circle(u, v, 0.78, at=0.5))


def _arrow(u: Plane, v: Plane) -> Plane:
    head = np.maximum(_box(u - np.float32(0.5), v, 0.5, 1), abs(v) + u - np.float32(0.95))
    return np.minimum(head, _box(u + np.float32(0.45), v, 0.5, 0.22))


def _heart(u: Plane, v: Plane) -> Plane:
    """A square that stands on its tip and a half disc on each upper edge."""
    s = np.float32(0.5**0.5)
    p = s * (u + v)
    q = s * (u - v)
    h = np.float32(0.5)
    lobes = np.minimum(_circle(p - h, q, 0.5), _circle(p, q - h, 0.5))
    return np.minimum(_box(p, q, 0.5, 0.5), lobes)


# name -> signed distance, negative inside; in its own frame the shape roughly fills the unit
# disc, and u points up
SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "disc": partial(_circle, radius=0.85),
    "ring": _ring,
    "square": partial(_box, half_u=0.72, half_v=0.72),
    "frame": _frame,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "crescent": _crescent,
    "arrow": _arrow,
    "heart": _heart,
}
CLASSES: tuple[str, ...] = tuple(SHAPES)


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> np.ndarray:
    return (low + (high - low) * rng.random(shape)).astype(np.float32)


def _turn(
    rng: np.random.Generator, n: int, degrees: float | np.ndarray = 180
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine (n, 1, 1) of random angles.

    Computed in float64, so that rounding to float32 hides differences between machines.
    """
    angle = np.deg2rad(degrees) * (2 * rng.random((n, 1, 1)) - 1)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def _cover(distance: Plane) -> Plane:
    """Share of each pixel that lies inside, from the distance in pixels: anti-aliasing."""
    cover = np.float32(0.5) - distance
    return np.clip(cover, 0, 1, out=cover)


def _contrast(
    rng: np.random.Generator,
    colour: np.ndarray,
    low: float,
    high: float,
    darker: float | np.ndarray,
) -> np.ndarray:
    """Another colour (3, n, 1, 1) at a distance of `low` to `high`, within 0..255.

    `darker` is the probability that it is darker, not lighter.
    """
    step = _uniform(rng, low, high, *colour.shape)
    step *= np.where(rng.random(colour.shape[1:]) < darker, np.float32(-1), np.float32(1))
    there = colour + step
    return np.where((there < 0) | (there > 255), colour - step, there)


def _paint(canvas: np.ndarray, cover: Plane, colour: np.ndarray) -> None:
    for c in range(3):  # planes, not pixels: an inner loop of three would be slow
        step = colour[c] - canvas[c]
        step *= cover
        canvas[c] += step


def _background(
    rng: np.random.Generator, x: Plane, y: Plane, colour: np.ndarray, hard: np.ndarray
) -> np.ndarray:
    """Draw a colour gradient and stripes (a triangle wave), both random: (3, n, 32, 32)."""
    n = colour.shape[1]
    cos, sin = _turn(rng, n)
    slope = hard * _uniform(rng, -50 / SIZE, 50 / SIZE, 3, n, 1, 1)
    ramp = cos * x + sin * y
    cos, sin = _turn(rng, n)
    period = _uniform(rng, 4, 14, n, 1, 1)
    wave = (cos / period) * x + ((sin / period) * y + _uniform(rng, 0, 1, n, 1, 1))
    wave -= np.floor(wave)
    wave = abs(wave - np.float32(0.5))  # 0 to 1/2 and back, once a period
    strength = hard * _uniform(rng, -60, 60, 3, n, 1, 1)
    canvas = slope * ramp
    canvas += strength * wave
    canvas += colour - strength / 4
    return canvas


def _stroke(rng: np.random.Generator, x: Plane, y: Plane, length: float) -> Plane:
    """Cover of a stroke with round ends, about the origin of x (n, 1, 32), y (n, 32, 1)."""
    n = len(x)
    cos, sin = _turn(rng, n)
    along = abs(cos * x + sin * y) - _uniform(rng, 0.3 * length, length, n, 1, 1)
    across = cos * y - sin * x
    np.maximum(along, 0, out=along)
    return _cover(np.sqrt(along * along + across * across) - _uniform(rng, 0.6, 1.6, n, 1, 1))


def _draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one chunk.

    Each image has a difficulty from 0 to 1: clutter, noise and tilt grow with it, contrast fades.
    """
    labels = rng.integers(0, len(CLASSES), n)
    hard = _uniform(rng, 0, 1, n, 1, 1)
    axis = np.arange(SIZE, dtype=np.float32) - np.float32((SIZE - 1) / 2)
    x = axis[None, None, :]
    y = axis[None, :, None]
    ground = _uniform(rng, 30, 150, 3, n, 1, 1)
    ink = ground + (1 - 0.8 * hard) * (_contrast(rng, ground, 30, 105, darker=hard / 2) - ground)
    canvas = _background(rng, x, y, ground, hard)

    radius = _uniform(rng, 8.5, 13.5, n, 1, 1)
    room = np.float32(SIZE / 2 - 1) - radius
    cx, cy = (0.5 + 0.5 * hard) * room * _uniform(rng, -1, 1, 2, n, 1, 1)
    for _ in range(2):  # distractors behind the shape, in its own colour
        far_x, far_y = _uniform(rng, -SIZE / 2, SIZE / 2, 2, n, 1, 1)
        _paint(canvas, hard * _stroke(rng, x - far_x, y - far_y, length=5), ink)

    cos, sin = _turn(rng, n, degrees=40 * hard)
    stretch = _uniform(rng, 0.85, 1.18, n, 1, 1)
    dx = x - cx
    dy = y - cy
    u = (sin * dx - cos * dy) * (1 / (radius * stretch))  # up in the picture is -y
    v = (cos * dx + sin * dy) * (stretch / radius)
    cover = np.empty((n, SIZE, SIZE), np.float32)
    for label, distance in enumerate(SHAPES.values()):
        rows = np.flatnonzero(labels == label)
        cover[rows] = _cover(distance(u[rows], v[rows]) * radius[rows])
    _paint(canvas, cover, ink)

    near_x, near_y = radius * _uniform(rng, -0.6, 0.6, 2, n, 1, 1)
    occluder = _stroke(rng, dx - near_x, dy - near_y, length=6)
    _paint(canvas, hard * occluder, _contrast(rng, ground, 0, 60, darker=0.5))
    grain = rng.integers(-128, 128, (2, 3, n, SIZE, SIZE), dtype=np.int8).astype(np.float32)
    grain = grain[0] + grain[1]  # the sum of two uniform variables has a triangular distribution
    grain *= hard * _uniform(rng, 0.02, 0.14, n, 1, 1)
    canvas += grain
    np.clip(canvas, 0, 255, out=canvas)
    return np.rint(canvas, out=canvas).astype(np.uint8).transpose(1, 2, 3, 0), labels


def images(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """
    Draw `n` images and their labels.

    Parameters
    ----------
    n : int
        How many, 1 or more.
    rng : numpy.random.Generator
        Source of all random numbers; the same state draws the same bits.

    Returns
    -------
    images : ndarray of shape (n, 32, 32, 3), uint8
    labels : ndarray of shape (n,), int64
        Uniform over 0..9, the index into `CLASSES`.

    Raises
    ------
    InputError
        If `n` is below 1.
    """
    if n < 1:
        raise InputError(
            f"shapes10 draws 1 image or more, but was asked for {n}; "
            "ask for a positive number of images"
        )
    x = np.empty((n, SIZE, SIZE, 3), np.uint8)
    labels = np.empty(n, np.int64)
    for start in range(0, n, CHUNK):
        part = slice(start, min(n, start + CHUNK))
        x[part], labels[part] = _draw(part.stop - part.start, rng)
    return x, labels


def dataset(seed: int = 0, train: int = 20_000, test: int = 2_000, fresh: bool = False) -> Dataset:
    """
    Draw a fixed training and test set; the two never share a random number.

    With `fresh`, training sees new images at every step instead of the fixed ones. Then no image is
    seen twice, and training error is test error: whatever goes wrong is not overfitting.

    Parameters
    ----------
    seed : int
        Same seed and sizes, same bits.
    train, test : int
        Number of images, 1 or more.
    fresh : bool

    Returns
    -------
    Dataset
        Named "shapes10" or "shapes10-fresh".

    Raises
    ------
    InputError
        If a number of images is below 1.
    """
    train_images, train_labels = images(train, stream(seed, "shapes10 train", 0))
    test_images, test_labels = images(test, stream(seed, "shapes10 test", 0))
    source = f"shapes10, seed {seed}, {train} training and {test} test images"
    splits = ArraySplit(train_images, train_labels), ArraySplit(test_images, test_labels)
    if fresh:
        source += ", new images at every step"
        return Dataset("shapes10-fresh", *splits, CLASSES, source, fresh=images)
    return Dataset("shapes10", *splits, CLASSES, source)


def sheet(rows: int = 8, seed: int = 0) -> np.ndarray:
    """
    Tile a contact sheet: one column per class in the order of `CLASSES`, white gaps of 2 pixels.

    Parameters
    ----------
    rows : int
        Images per class, 1 or more.
    seed : int
        Same seed, same sheet.

    Returns
    -------
    ndarray of shape (34 rows + 2, 342, 3), uint8

    Raises
    ------
    InputError
        If `rows` is below 1.
    """
    if rows < 1:
        raise InputError(
            f"a contact sheet has 1 row or more, but was asked for {rows}; ask for more rows"
        )
    rng = stream(seed, "shapes10 sheet", 0)
    x, labels = images(rows * 20, rng)
    while np.bincount(labels, minlength=len(CLASSES)).min() < rows:
        more, more_labels = images(rows * 20, rng)
        x = np.concatenate([x, more])
        labels = np.concatenate([labels, more_labels])
    step = SIZE + 2
    page = np.full((rows * step + 2, len(CLASSES) * step + 2, 3), 255, np.uint8)
    for column in range(len(CLASSES)):
        for row, image in enumerate(x[labels == column][:rows]):
            page[2 + row * step : (row + 1) * step, 2 + column * step : (column + 1) * step] = image
    return page
