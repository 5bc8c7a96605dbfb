"""Pictures of every kind become the pixels that they show, prepared as torchvision does."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minires import InputError
from minires.data import pictures
from minires.data.normalisation import Normalisation

RAMP = np.linspace(0, 255, 20 * 30).round().astype(np.uint8).reshape(20, 30)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)  # (20, 30, 3)


def saved(path, picture, **how):
    picture.save(path, **how)
    return pictures.read(path)


def test_a_picture_of_three_channels_is_read_as_it_is(tmp_path):
    np.testing.assert_array_equal(
        saved(tmp_path / "a.png", Image.fromarray(COLOURS)), COLOURS, strict=True
    )


def test_a_grey_picture_has_three_equal_channels(tmp_path):
    found = saved(tmp_path / "a.png", Image.fromarray(RAMP))
    np.testing.assert_array_equal(found, np.repeat(RAMP[:, :, None], 3, axis=2), strict=True)


def test_16_bits_of_grey_are_scaled_and_not_clipped(tmp_path):
    wide = (RAMP.astype(np.uint16) * 257) + np.uint16(100)
    wide[-1] = 65535
    found = saved(tmp_path / "a.png", Image.fromarray(wide))
    np.testing.assert_array_equal(found[..., 0], np.rint(wide / 257))
    assert found.dtype == np.uint8


def test_cmyk_is_converted(tmp_path):
    cyan = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    assert (saved(tmp_path / "a.tif", cyan) == (0, 255, 255)).all()
    assert np.ptp(saved(tmp_path / "a.jpg", cyan)[..., 0]) < 3


@pytest.mark.parametrize("transparency", [None, 0, bytes([0, 128, 255])])
def test_a_palette_is_looked_up(tmp_path, transparency):
    picture = Image.new("P", (2, 2))
    picture.putdata([0, 1, 2, 1])
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    how = {} if transparency is None else {"transparency": transparency}
    found = saved(tmp_path / "a.png", picture, **how)
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    assert found.tolist() == [[[*red], [*green]], [[*blue], [*green]]]


def test_transparency_is_dropped(tmp_path):
    picture = Image.fromarray(np.dstack([COLOURS, RAMP]))
    np.testing.assert_array_equal(saved(tmp_path / "a.png", picture), COLOURS)


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (3, lambda a: a[::-1, ::-1]),
        (6, lambda a: np.rot90(a, -1)),
        (8, lambda a: np.rot90(a)),
        (2, lambda a: a[:, ::-1]),
    ],
)
def test_a_picture_is_turned_as_its_exif_data_say(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = saved(tmp_path / "a.png", Image.fromarray(COLOURS), exif=exif)
    np.testing.assert_array_equal(found, turned(COLOURS))


# ------------------------------------------------------------------------------------- bad input


def written(tmp_path, kind):
    """A file that is not a whole picture."""
    path = tmp_path / f"{kind}.jpg"
    Image.fromarray(np.repeat(np.repeat(COLOURS, 8, 0), 8, 1)).save(path, quality=95)
    whole = path.read_bytes()
    content = {
        "text": b"this is no picture",
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "header alone": whole[:200],
    }
    path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "header alone"])
def test_a_file_that_is_no_whole_picture_is_named(tmp_path, kind):
    path = written(tmp_path, kind)
    for look in (pictures.read, pictures.check):
        with pytest.raises(InputError, match=f"{kind}.jpg: expected a picture"):
            look(path)


def test_a_png_with_a_changed_byte_is_found(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"a\.png: expected a picture"):
        pictures.check(path)


def test_a_jpeg_with_bytes_after_its_end_is_whole(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOURS).save(path)
    path.write_bytes(path.read_bytes() + bytes(10_000))
    pictures.check(path)


def test_a_missing_file_and_a_folder_are_named_as_such(tmp_path):
    with pytest.raises(InputError, match="found no such file"):
        pictures.read(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="found a folder; name the pictures in it"):
        pictures.read(tmp_path)


def test_a_large_picture_is_named_with_the_memory_that_it_takes(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path)
    monkeypatch.setattr(pictures, "LARGE", 500)
    for look in (pictures.read, pictures.check):
        with pytest.warns(UserWarning, match=r"a.png has 20 x 30 pixels; it is used, and takes"):
            look(path)


def test_pillows_note_about_large_pictures_is_replaced(tmp_path, monkeypatch, run_cli):
    folder = tmp_path / "pictures"
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (folder / name).mkdir(parents=True)
        Image.fromarray(COLOURS).save(folder / name / "1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    monkeypatch.setattr(pictures, "LARGE", 500)
    (folder / "val/b/2.png").write_text("no picture")
    words = ("train", "resnet8", "--dataset", folder, "--image-size", 8, "--strict")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, err = run_cli(*words)
    assert code == 2
    assert "train/a/1.png has 20 x 30 pixels" in err
    assert "decompression bomb" not in err


def test_a_picture_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path)
    monkeypatch.setattr(pictures, "LARGEST", 500)
    with pytest.raises(InputError, match=r"at most 500 pixels, got 20 x 30"):
        pictures.read(path)
    with pytest.raises(InputError, match="remove pictures that are so narrow"):
        pictures.resize(COLOURS, 200)


# ---------------------------------------------------------------------------------- sizes and crops


def test_the_shorter_side_gets_the_size_and_the_longer_one_follows():
    assert pictures.resize(COLOURS, 7).shape == (7, 10, 3)
    assert pictures.resize(COLOURS.transpose(1, 0, 2), 7).shape == (10, 7, 3)


def test_a_tenfold_crop_takes_corners_centre_and_mirror_images():
    picture = np.arange(12).reshape(3, 4, 1)
    crops = pictures.ten_crop(picture, 2)[..., 0].tolist()
    assert crops[:5] == [
        [[0, 1], [4, 5]],
        [[2, 3], [6, 7]],
        [[4, 5], [8, 9]],
        [[6, 7], [10, 11]],
        [[1, 2], [5, 6]],  # row (3 - 2) / 2 = 0.5, rounded to the even 0
    ]
    assert crops[5:] == [[row[::-1] for row in crop] for crop in crops[:5]]


def test_a_square_outside_the_picture_is_refused():
    with pytest.raises(InputError, match="not inside a picture of 20 x 30"):
        pictures.centre_crop(COLOURS, 21)


draws = st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4)


@given(draws=draws, low=st.integers(16, 40), more=st.integers(0, 30))
def test_a_random_crop_lies_inside_the_scaled_picture(draws, low, more):
    square, choices = pictures.at_random(COLOURS, (low, low + more), 16, np.array(draws))
    assert low <= choices["shorter"] <= low + more
    scaled = pictures.resize(COLOURS, choices["shorter"])
    cut = pictures.crop(scaled, choices["top"], choices["left"], 16)
    np.testing.assert_array_equal(square, cut[:, ::-1] if choices["mirrored"] else cut)


def test_random_crops_reach_every_side_every_place_and_both_directions():
    rng = np.random.default_rng(0)
    found = [pictures.at_random(COLOURS, (16, 18), 16, rng.random(4))[1] for _ in range(400)]
    assert {c["shorter"] for c in found} == {16, 17, 18}
    assert {c["mirrored"] for c in found} == {True, False}
    tops = {c["top"] for c in found if c["shorter"] == 18}
    lefts = {c["left"] for c in found if c["shorter"] == 18}
    assert (tops, lefts) == ({0, 1, 2}, set(range(12)))


# ------------------------------------------------------------------------------------ preparation


def test_a_mean_per_pixel_is_averaged_for_images_of_another_size():
    mean = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    normalisation = Normalisation(mean, np.full(3, 2, np.float32))
    images = np.full((1, 3, 2, 3), 10, np.uint8)
    expected = (10 - np.array([4.5, 5.5, 6.5])) / 2
    np.testing.assert_array_equal(normalisation(images)[0, 0, 0], expected)
    np.testing.assert_array_equal(normalisation(images[:, :2])[0], (10 - mean) / 2)
