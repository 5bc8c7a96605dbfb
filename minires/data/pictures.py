"""Pictures as arrays: read a file with Pillow, resize it, and crop it.

The letters: a picture has H rows and W columns of pixels with 3 channels, red, green and blue.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from minires.errors import InputError
from minires.text import shown

Array = np.ndarray

# names of files that hold pictures end so, in capitals, too
EXTENSIONS: tuple[str, ...] = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib")
EXTENSIONS += (".tif", ".tiff", ".webp", ".avif", ".jp2", ".j2k", ".tga", ".ico")
EXTENSIONS += (".ppm", ".pgm", ".pbm", ".pnm")
LARGEST = 178_956_970  # pixels; above it, Pillow refuses a file as a decompression bomb
LARGE = LARGEST // 2  # pixels; above it, a note says how much memory the picture takes
TAIL = 4096  # bytes at the end of a file in which its end mark is looked for
END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's names of grey with 16 bits


def read(path: Path) -> Array:
    """
    Read a picture as red, green and blue in 0..255, the way up that its EXIF data say.

    Grey pictures get three equal channels. Colours of a palette are looked up, CMYK is converted,
    and transparency is dropped. 16 bits of grey become 8: v / 257, rounded.

    Parameters
    ----------
    path : Path
        A file of any format that Pillow reads. The first frame of an animation is taken.

    Returns
    -------
    ndarray of shape (H, W, 3), uint8

    Raises
    ------
    InputError
        If the file cannot be read, is not a picture, is damaged, or is too large.
    """
    check_regular(path)
    try:
        with Image.open(path) as picture:
            _check_size(picture, path)
            return _as_rgb(ImageOps.exif_transpose(picture))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged picture can raise nearly anything
        raise _damaged(path, error) from error


def check(path: Path) -> None:
    """
    Check a picture without decoding it, if its format allows.

    The header of every file is read. JPEG and PNG files must have their end mark; PNG files also
    have checksums. A file of another format, or without an end mark, is decoded.

    Raises
    ------
    InputError
        As for `read`.
    """
    check_regular(path)
    try:
        with Image.open(path) as picture:
            _check_size(picture, path)
            mark = END_MARKS.get(picture.format or "")
            if picture.format == "PNG":
                picture.verify()
        if mark is None or mark not in _tail(path):
            read(path)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise _damaged(path, error) from error


def check_regular(path: Path) -> None:
    """
    Refuse all but regular files: reading a pipe or a device may wait for ever.

    Raises
    ------
    InputError
        If there is nothing, a folder, or a pipe, a socket or a device.
    """
    path = Path(path)
    if path.is_file():
        return
    name = shown(path)
    if path.is_dir():
        raise InputError(f"{name}: expected a picture, found a folder; name the pictures in it")
    if path.exists():
        raise InputError(
            f"{name}: expected a picture, found a pipe, a socket or a device, which is not opened; "
            "remove it"
        )
    raise InputError(f"{name}: expected a picture, found no such file; correct the path")


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read()


def _check_size(picture: Image.Image, path: Path) -> None:
    W, H = picture.size
    if H * W > LARGEST:
        raise InputError(
            f"{shown(path)}: expected at most {LARGEST:,} pixels, got {H} x {W}; make it smaller"
        )
    if H * W > LARGE:
        warnings.warn(
            f"{shown(path)} has {H} x {W} pixels; it is used, and takes {3 * H * W / 1e6:.0f} MB "
            "of memory whenever it is read; a smaller copy is faster",
            stacklevel=2,
        )


def _damaged(path: Path, error: Exception) -> InputError:
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    elif isinstance(error, Image.UnidentifiedImageError):
        reason = "this is not a picture that Pillow knows"
    else:
        reason = f"{type(error).__name__}: {shown(error, 100)}"
    return InputError(
        f"{shown(path)}: expected a picture, found a file that cannot be read as one ({reason}); "
        "replace or remove it"
    )


def _as_rgb(picture: Image.Image) -> Array:
    """Pixels (H, W, 3), uint8, of a picture in any of Pillow's modes."""
    if picture.mode in SIXTEEN_BITS:
        grey = np.clip(np.asarray(picture).astype(np.float64), 0, 65535)
        grey = np.rint(grey / 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode == "F":
        raise ValueError("its pixels are real numbers of an unknown range")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return np.asarray(picture.convert("RGB"))


def resize(picture: Array, shorter: int) -> Array:
    """
    Resize a picture so that its shorter side has `shorter` pixels.

    Pillow's bilinear filter averages over all pixels that a new one covers. The longer side is
    rounded down, as torchvision's `Resize` does.

    Parameters
    ----------
    picture : ndarray of shape (H, W, 3), uint8
    shorter : int
        1 or more.

    Returns
    -------
    ndarray of shape (h, w, 3), uint8
        min(h, w) = shorter.

    Raises
    ------
    InputError
        If this is not such a picture, or it would become too large.
    """
    _check_picture(picture)
    if shorter < 1:
        raise InputError(f"a picture needs sides of 1 pixel or more, got {shorter}")
    H, W = picture.shape[:2]
    h, w = (shorter, shorter * W // H) if H <= W else (shorter * H // W, shorter)
    if (h, w) == (H, W):
        return picture
    if h * w > LARGEST:
        raise InputError(
            f"a picture of {H} x {W} pixels would have {h} x {w}; expected at most {LARGEST:,} "
            "pixels; remove pictures that are so narrow"
        )
    return np.asarray(Image.fromarray(picture).resize((w, h), Image.Resampling.BILINEAR))


def crop(picture: Array, top: int, left: int, size: int) -> Array:
    """
    Cut out a square.

    Parameters
    ----------
    picture : ndarray of shape (H, W, C)
    top, left : int
        The first row and column of the square.
    size : int
        Its side.

    Returns
    -------
    ndarray of shape (size, size, C)
        A view.

    Raises
    ------
    InputError
        If the square is not inside the picture.
    """
    H, W = picture.shape[:2]
    if min(top, left) < 0 or size < 1 or top + size > H or left + size > W:
        raise InputError(
            f"a square of {size} pixels at row {top}, column {left} is not inside a picture of "
            f"{H} x {W} pixels; resize the picture first, or choose a smaller square"
        )
    return picture[top : top + size, left : left + size]


def centre_crop(picture: Array, size: int) -> Array:
    """
    Cut out the square in the middle, (size, size, C).

    A half pixel is rounded to the even number, as torchvision's `CenterCrop` does.

    Raises
    ------
    InputError
        If the picture is smaller than the square.
    """
    H, W = picture.shape[:2]
    return crop(picture, round((H - size) / 2), round((W - size) / 2), size)


def ten_crop(picture: Array, size: int) -> Array:
    """
    Cut out the four corners and the centre, each as it is and mirrored.

    This is the test of Krizhevsky et al. 2012, section 4.1, with which the ResNet paper compares
    networks.

    Parameters
    ----------
    picture : ndarray of shape (H, W, C)
    size : int

    Returns
    -------
    ndarray of shape (10, size, size, C)
        Top left, top right, bottom left, bottom right, centre; then their mirror images.

    Raises
    ------
    InputError
        If the picture is smaller than the square.
    """
    H, W = picture.shape[:2]
    offsets = [(0, 0), (0, W - size), (H - size, 0), (H - size, W - size)]
    five = [crop(picture, top, left, size) for top, left in offsets]
    crops = np.stack([*five, centre_crop(picture, size)])
    return np.concatenate([crops, crops[:, :, ::-1]])


def at_random(
    picture: Array, scales: tuple[int, int], size: int, draws: Array
) -> tuple[Array, dict[str, Any]]:
    """
    Training crop of section 3.4: scale the picture at random, crop a square, maybe mirror it.

    The shorter side is uniform over the integers from `scales[0]` to `scales[1]`, and the square
    uniform over all places.

    Parameters
    ----------
    picture : ndarray of shape (H, W, 3), uint8
    scales : pair of int
        The paper's is (256, 480).
    size : int
        Side of the square; the paper's is 224. At most `scales[0]`.
    draws : ndarray of shape (4,)
        Uniform in [0, 1): for the shorter side, the first row, the first column, and the mirror.

    Returns
    -------
    crop : ndarray of shape (size, size, 3), uint8
    choices : dict
        "shorter", "top", "left" and "mirrored".
    """
    low, high = scales
    shorter = low + math.floor(draws[0] * (high - low + 1))
    scaled = resize(picture, shorter)
    H, W = scaled.shape[:2]
    top = math.floor(draws[1] * (H - size + 1))
    left = math.floor(draws[2] * (W - size + 1))
    mirrored = bool(draws[3] < 0.5)
    square = crop(scaled, top, left, size)
    choices = {"shorter": shorter, "top": top, "left": left, "mirrored": mirrored}
    return (square[:, ::-1] if mirrored else square), choices


def _check_picture(picture: Array) -> None:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InputError(
            f"expected a picture of shape (H, W, 3) and type uint8, got {picture.dtype} "
            f"{picture.shape}; read it with minires.data.pictures.read"
        )
