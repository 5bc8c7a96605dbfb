"""
Scenes: landscapes drawn by the program and written as a folder of pictures.

They take the place of ImageNet where nobody has it: JPEG files of different sizes in a folder for
each class. A class is a kind of scene. Light, colours, places and sizes vary, every twentieth
picture is grey, and mirror images are of the same class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from minires.data.batches import stream
from minires.data.paths import expanded
from minires.errors import InputError
from minires.text import shown

Array = np.ndarray
Colour = tuple[float, float, float]  # red, green, blue in 0..1

VALIDATION = 10  # every tenth picture goes to val
QUALITY = 90  # of JPEG
GREY = 0.05  # share of pictures without colours
LONGEST = 1.5  # longer side, in units of the shorter one
SIZES = (16, 2048)  # shorter sides in pixels that are drawn
MOST = 10_000  # pictures of a class

BLUE, PALE, DUSK = (0.35, 0.6, 0.9), (0.8, 0.9, 1.0), (0.95, 0.6, 0.4)
GREEN, PINE, WATER = (0.35, 0.6, 0.25), (0.1, 0.3, 0.18), (0.15, 0.4, 0.6)
SAND, SNOW, ROCK = (0.87, 0.76, 0.53), (0.93, 0.95, 1.0), (0.45, 0.42, 0.42)
DARK, STONE, SUN = (0.03, 0.04, 0.14), (0.4, 0.4, 0.43), (1, 0.93, 0.7)


class Canvas:
    """A picture in the making.

    Attributes
    ----------
    pixels : ndarray of shape (H, W, 3)
        In 0..1.
    x, y : ndarray of shape (1, W), (H, 1)
        Places of pixels in units of the height, from the left and from the top.
    rng : Generator
    """

    def __init__(self, H: int, W: int, rng: np.random.Generator) -> None:
        self.pixels = np.zeros((H, W, 3))
        self.y = (np.arange(H)[:, None] + 0.5) / H
        self.x = (np.arange(W)[None, :] + 0.5) / H
        self.width = W / H
        self.rng = rng

    def uniform(self, low: float, high: float) -> float:
        """A random number."""
        return float(self.rng.uniform(low, high))

    def numbers(self, *ranges: tuple[float, float]) -> list[float]:
        """A random number in each of these ranges."""
        return [self.uniform(low, high) for low, high in ranges]

    def near(self, colour: Colour, by: float = 0.1) -> Array:
        """A random colour not far from this one, (3,)."""
        return np.clip(np.array(colour) + self.rng.uniform(-by, by, 3), 0, 1)

    def fill(self, distance: Array, colour: Array | Colour) -> None:
        """Paint where the signed distance is negative; edges are smooth over one pixel."""
        cover = np.clip(0.5 - distance * len(self.y), 0, 1)
        cover = np.broadcast_to(cover, self.pixels.shape[:2])[:, :, None]
        self.pixels += cover * (np.array(colour) - self.pixels)

    def sky(self, top: Colour, bottom: Colour) -> None:
        """Paint everything from one colour at the top to another at the bottom."""
        share = self.y[:, :, None]
        self.pixels[...] = (1 - share) * self.near(top) + share * self.near(bottom)

    def disc(self, x: float, y: float, radius: float, colour: Array | Colour) -> None:
        """Paint a disc."""
        self.fill(np.hypot(self.x - x, self.y - y) - radius, colour)

    def box(self, x: float, y: float, w: float, h: float, colour: Array | Colour) -> None:
        """Paint a rectangle with its lower left corner at (x, y)."""
        across = abs(self.x - x - w / 2) - w / 2
        self.fill(np.maximum(across, abs(self.y - y + h / 2) - h / 2), colour)

    def profile(self, rough: float, waves: int = 4) -> Array:
        """A random curve over x, between -1 and 1, (1, W)."""
        curve = np.zeros_like(self.x)
        for k in range(1, waves + 1):
            phase, frequency = self.numbers((0, 2 * np.pi), (0.7 * k * rough, 1.3 * k * rough))
            curve += np.sin(2 * np.pi * frequency * self.x + phase) / k
        return curve / sum(1 / k for k in range(1, waves + 1))

    def ridge(self, height: float, amplitude: float, rough: float, colour: Array | Colour) -> Array:
        """Paint everything below a random curve; return the curve."""
        curve = height - amplitude * self.profile(rough)
        self.fill(curve - self.y, colour)
        return curve

    def tree(self, x: float, y: float, height: float, colour: Array | Colour) -> None:
        """Paint a fir: a trunk and a triangle."""
        self.box(x - height / 20, y, height / 10, height / 4, (0.3, 0.2, 0.1))
        up = (y - self.y) / height  # 0 at the foot, 1 at the tip
        slope = abs(self.x - x) - 0.3 * height * (1.1 - up)
        self.fill(np.maximum(slope, (0.2 - up) * height), colour)


# ------------------------------------------------------------------------------ kinds of scenes


def _sun(c: Canvas, low: float = 0.1, high: float = 0.35) -> None:
    c.disc(c.uniform(0, c.width), c.uniform(low, high), c.uniform(0.04, 0.09), c.near(SUN, 0.05))


def _waves(c: Canvas, level: float) -> None:
    """Lighter lines on water, closer together towards the horizon."""
    for _ in range(12):
        depth = c.uniform(0.02, 1) ** 2
        y = level + (1 - level) * depth
        half = c.uniform(0.05, 0.2) * (0.3 + depth)
        along = abs(c.x - c.uniform(0, c.width)) - half
        line = abs(c.y - y) - 0.003 - 0.006 * depth
        c.fill(np.maximum(along, line), c.near((0.45, 0.65, 0.8)))


def _beach(c: Canvas) -> None:
    c.sky(BLUE, PALE)
    _sun(c)
    level = c.uniform(0.4, 0.55)
    c.fill(level - c.y, c.near(WATER))
    _waves(c, level)
    c.ridge(c.uniform(0.68, 0.8), 0.06, 0.4, c.near(SAND, 0.05))
    for _ in range(c.rng.integers(1, 4)):  # umbrellas
        x, y, r = c.numbers((0, c.width), (0.8, 0.95), (0.06, 0.12))
        c.box(x - 0.006, y, 0.012, 1.5 * r, (0.4, 0.3, 0.2))
        dome = np.maximum(np.hypot(c.x - x, c.y - y + r) - r, c.y - y + r)
        c.fill(dome, c.near((0.8, 0.3, 0.3), 0.3))


def _city(c: Canvas) -> None:
    c.sky(BLUE, PALE if c.uniform(0, 1) < 0.6 else DUSK)
    x = -0.1
    while x < c.width:
        w, h = c.numbers((0.1, 0.22), (0.25, 0.75))
        c.box(x, 1.0, w, h, c.near(STONE, 0.15))
        step = c.uniform(0.035, 0.06)
        lit = c.near((0.95, 0.9, 0.6))
        inside = (c.x > x + 0.01) & (c.x < x + w - 0.01) & (c.y > 1.02 - h) & (c.y < 0.96)
        pattern = ((c.x - x) % step < 0.5 * step) & ((c.y - 1 + h) % step < 0.5 * step)
        c.pixels[inside & pattern] = lit
        x += w + c.uniform(-0.02, 0.04)


def _desert(c: Canvas) -> None:
    c.sky(BLUE, DUSK)
    _sun(c)
    for k in range(c.rng.integers(3, 5)):
        c.ridge(0.5 + 0.14 * k, 0.08, 0.5, np.clip(c.near(SAND, 0.06) * (0.8 + 0.08 * k), 0, 1))
    for _ in range(c.rng.integers(1, 4)):  # cacti
        x, y, h = c.numbers((0, c.width), (0.75, 0.95), (0.12, 0.25))
        green = c.near((0.2, 0.45, 0.2))
        c.box(x, y, 0.15 * h, h, green)
        c.box(x - 0.3 * h, y - 0.4 * h, 0.75 * h, 0.12 * h, green)
        c.box(x - 0.3 * h, y - 0.4 * h, 0.12 * h, 0.35 * h, green)


def _forest(c: Canvas) -> None:
    c.sky(PALE, PALE)
    for row in range(4):
        foot = 0.55 + 0.13 * row
        for _ in range(int(9 * c.width)):
            shade = np.clip(c.near(PINE, 0.06) * (1.3 - 0.2 * row), 0, 1)
            x = c.uniform(-0.1, c.width + 0.1)
            c.tree(x, foot + c.uniform(-0.03, 0.03), c.uniform(0.3, 0.5), shade)
    c.fill(0.93 - c.y, c.near((0.25, 0.35, 0.15)))


def _hills(c: Canvas) -> None:
    c.sky(BLUE, PALE)
    _sun(c)
    for k in range(c.rng.integers(3, 6)):
        c.ridge(0.45 + 0.12 * k, 0.1, 0.5, np.clip(c.near(GREEN, 0.08) * (1.2 - 0.12 * k), 0, 1))
    for _ in range(c.rng.integers(0, 4)):
        c.tree(c.uniform(0, c.width), c.uniform(0.8, 1), c.uniform(0.1, 0.2), c.near(PINE))


def _lake(c: Canvas) -> None:
    """Mountains and their mirror image."""
    c.sky(BLUE, PALE)
    level = int(c.uniform(0.48, 0.58) * len(c.y))
    c.ridge(0.33, 0.15, 0.9, c.near(ROCK))
    c.ridge(0.45, 0.08, 0.8, c.near(PINE))
    mirrored = c.pixels[:level][::-1][: len(c.y) - level]
    c.pixels[level : level + len(mirrored)] = 0.75 * mirrored + 0.25 * c.near(WATER)
    c.pixels[level + len(mirrored) :] = c.near(WATER)
    _waves(c, level / len(c.y))


def _night(c: Canvas) -> None:
    c.sky(DARK, (0.15, 0.15, 0.35))
    for _ in range(int(80 * c.width)):
        c.disc(c.uniform(0, c.width), c.uniform(0, 0.7), c.uniform(0.002, 0.007), (1, 1, 0.9))
    x, y, r = c.numbers((0.1, c.width), (0.1, 0.35), (0.05, 0.1))
    moon = np.hypot(c.x - x, c.y - y) - r
    bite = np.hypot(c.x - x - 0.5 * r, c.y - y) - r
    c.fill(np.maximum(moon, -bite), c.near((0.95, 0.95, 0.85), 0.05))
    c.ridge(c.uniform(0.7, 0.85), 0.1, 0.6, c.near((0.05, 0.07, 0.08), 0.04))


def _road(c: Canvas) -> None:
    """A road in perspective, with a broken line."""
    c.sky(BLUE, PALE)
    horizon = c.uniform(0.4, 0.55)
    c.ridge(horizon - 0.03, 0.05, 0.6, c.near(ROCK))
    c.fill(horizon - c.y, c.near(GREEN))
    middle, far = c.numbers((0.3 * c.width, 0.7 * c.width), (0.2 * c.width, 0.8 * c.width))
    near = np.clip((c.y - horizon) / (1 - horizon), 1e-3, 1)  # 0 at the horizon, 1 at the bottom
    centre = far + (middle - far) * near
    half = c.uniform(0.25, 0.45) * near + 0.005
    c.fill(np.maximum(abs(c.x - centre) - half, horizon - c.y), c.near(STONE, 0.08))
    dashes = (0.4 / near + c.uniform(0, 1)) % 0.5 - 0.25
    line = np.maximum(abs(c.x - centre) - 0.04 * half, horizon + 0.02 - c.y)
    c.fill(np.maximum(line, 0.02 * dashes), (0.95, 0.95, 0.9))


def _sea(c: Canvas) -> None:
    """Open water with sailing boats."""
    c.sky(BLUE if c.uniform(0, 1) < 0.6 else DUSK, PALE)
    level = c.uniform(0.45, 0.6)
    c.fill(level - c.y, c.near(WATER))
    _waves(c, level)
    for _ in range(c.rng.integers(1, 4)):
        x, y, h = c.numbers((0, c.width), (level + 0.03, 0.9), (0.15, 0.35))
        up = (y - c.y) / h
        sail = np.maximum(abs(c.x - x) - 0.35 * h * (1 - up), (0.12 - up) * h)
        c.fill(sail, c.near((0.95, 0.93, 0.88), 0.07))
        hull = np.maximum(abs(c.x - x) - 0.4 * h * (1 + up), abs(up - 0.02) * h - 0.07 * h)
        c.fill(hull, c.near((0.35, 0.2, 0.15)))


def _snow(c: Canvas) -> None:
    """White mountains, firs and flakes."""
    c.sky((0.6, 0.68, 0.78), PALE)
    c.ridge(0.45, 0.2, 1.0, c.near(ROCK))
    c.ridge(0.55, 0.15, 0.9, c.near(SNOW, 0.05))
    c.ridge(0.75, 0.05, 0.5, c.near(SNOW, 0.03))
    for _ in range(c.rng.integers(2, 6)):
        c.tree(c.uniform(0, c.width), c.uniform(0.75, 0.95), c.uniform(0.15, 0.3), c.near(PINE))
    for _ in range(int(60 * c.width)):
        c.disc(c.uniform(0, c.width), c.uniform(0, 1), c.uniform(0.003, 0.01), (1, 1, 1))


SCENES: dict[str, Callable[[Canvas], None]] = {
    "beach": _beach,
    "city": _city,
    "desert": _desert,
    "forest": _forest,
    "hills": _hills,
    "lake": _lake,
    "night": _night,
    "road": _road,
    "sea": _sea,
    "snow": _snow,
}
CLASSES = tuple(SCENES)


# ---------------------------------------------------------------------------- pictures and files


def draw(kind: str, size: int, rng: np.random.Generator) -> Array:
    """
    Draw one scene.

    Parameters
    ----------
    kind : str
        One of `CLASSES`.
    size : int
        Shorter side in pixels.
    rng : Generator
        The same state draws the same picture.

    Returns
    -------
    ndarray of shape (H, W, 3), uint8
        The longer side is random, up to 1.5 times the shorter one.
    """
    longer = round(size * rng.uniform(1, LONGEST))
    H, W = (size, longer) if rng.random() < 0.7 else (longer, size)
    canvas = Canvas(H, W, rng)
    SCENES[kind](canvas)
    pixels = canvas.pixels * rng.uniform(0.6, 1.1, 3) * rng.uniform(0.75, 1.1)  # the light
    pixels += rng.normal(0, 0.02, pixels.shape)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if rng.random() < GREY:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    return np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


def write(
    folder: Path, classes: int = 10, per_class: int = 200, size: int = 256, seed: int = 0
) -> Iterator[Path]:
    """
    Draw scenes and write them as JPEG files: FOLDER/train/CLASS and FOLDER/val/CLASS.

    Every tenth picture of a class goes to `val`. A picture depends on the seed, the size, its class
    and its number alone.

    Parameters
    ----------
    folder : Path
        New, or empty.
    classes : int
        From 2 to 10, the first ones of `CLASSES`.
    per_class : int
        Pictures of each class, `VALIDATION` or more.
    size : int
        Shorter side in pixels.
    seed : int

    Yields
    ------
    path : Path
        Each file, once it is written.

    Raises
    ------
    InputError
        If a number is out of its range, or the folder holds anything.
    """
    _check(classes, per_class, size, seed)
    folder = expanded(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{shown(folder)}: expected a new or an empty folder, found one that holds something; "
            "choose another --out"
        )
    for kind in CLASSES[:classes]:
        for number in range(per_class):
            split = "val" if number % VALIDATION == VALIDATION - 1 else "train"
            path = folder / split / kind / f"{kind}-{number:04d}.jpg"
            _save(draw(kind, size, stream(seed, f"scenes {kind}", number)), path)
            yield path


def _save(pixels: Array, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if (pixels == pixels[:, :, :1]).all():
        picture = picture.convert("L")  # a grey file, as photographs in black and white are
    picture.save(path, quality=QUALITY)


def _check(classes: int, per_class: int, size: int, seed: int) -> None:
    limits = {
        "classes": (classes, 2, len(CLASSES)),
        "per_class": (per_class, VALIDATION, MOST),
        "size": (size, *SIZES),
        "seed": (seed, 0, 2**32 - 1),
    }
    for name, (value, least, most) in limits.items():
        if not least <= value <= most:
            raise InputError(
                f"scenes: expected {name.replace('_', '-')} from {least} to {most}, got {value}"
            )
