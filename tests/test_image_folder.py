"""Folders of pictures: scenes that the program draws, splits, damaged files, batches ahead."""

import os
import socket
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minires import InputError, data
from minires.data import image_folder, pictures, prefetch, scale_and_crop, scenes, stream
from minires.data.prefetch import Prefetch


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory):
    """Forty small scenes of two classes."""
    folder = tmp_path_factory.mktemp("pictures") / "scenes"
    assert len(list(scenes.write(folder, classes=2, per_class=20, size=24))) == 40
    return folder


@pytest.fixture
def found(scenes_folder):
    return image_folder.dataset(scenes_folder).with_images(16)


def make(folder, *names):
    """Small pictures under these names."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((20, 24, 3), 10 * i, np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


TWO = ("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png")

# ----------------------------------------------------------------------------------------- scenes


def test_scenes_are_a_function_of_seed_class_and_number(scenes_folder):
    first, again, other = (scenes.draw("sea", 40, stream(s, "scenes sea", 3)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()
    drawn = scenes.draw("beach", 24, stream(0, "scenes beach", 0))
    written = pictures.read(scenes_folder / "train/beach/beach-0000.jpg")
    assert abs(drawn.astype(int) - written).mean() < 12  # JPEG with fewer samples of colour


@pytest.mark.parametrize("kind", scenes.CLASSES)
def test_every_kind_of_scene_is_drawn_and_differs_from_picture_to_picture(kind):
    one, two = (scenes.draw(kind, 32, stream(0, kind, n)) for n in (0, 1))
    assert min(one.shape[:2]) == 32
    assert max(one.shape[:2]) <= 48
    assert one.dtype == np.uint8
    assert one.std() > 3
    assert one.shape != two.shape or abs(one.astype(int) - two).mean() > 3


def test_a_tenth_of_the_scenes_is_for_validation(scenes_folder):
    for split, count in (("train", 18), ("val", 2)):
        for kind in scenes.CLASSES[:2]:
            assert len(list((scenes_folder / split / kind).iterdir())) == count


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": 1}, "classes from 2 to 10, got 1"),
        ({"classes": 11}, "got 11"),
        ({"per_class": 9}, "per-class from 10"),
        ({"size": 8}, "size from 16"),
        ({"seed": -1}, "seed from 0"),
    ],
)
def test_senseless_scenes_are_refused_before_anything_is_written(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        next(scenes.write(tmp_path / "new", **wrong))
    assert not (tmp_path / "new").exists()


def test_help_says_the_ranges_of_scenes(run_cli):
    _, out, _ = run_cli("data", "scenes", "--help")
    low, high = scenes.SIZES
    for words in (
        f"from 2 to {len(scenes.CLASSES)}",
        f"{scenes.VALIDATION} to {scenes.MOST}",
        f"{low} to {high}",
        "A new or an empty folder",
    ):
        assert words in " ".join(out.split())


def test_scenes_do_not_fill_a_folder_that_holds_something(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="new or an empty folder"):
        next(scenes.write(tmp_path))


def test_scenes_are_drawn_from_the_command_line(run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--classes", 2, "--per-class", 10, "--size", 16, "--quiet")
    code, out, _ = run_cli("data", "scenes", "--out", "new", *words)
    assert code == 0
    assert "20 pictures are in new" in out
    assert data.load("folder", Path("new")).classes == ("beach", "city")


# ----------------------------------------------------------------------------------------- splits


def test_a_folder_has_a_class_for_each_folder_and_classes_take_turns(found, scenes_folder):
    assert found.classes == ("beach", "city")
    assert (len(found.train), len(found.test)) == (36, 4)
    paths, labels = found.train[np.arange(4)]
    assert labels.tolist() == [0, 1, 0, 1]
    assert [Path(p).parent.name for p in paths] == ["beach", "city", "beach", "city"]
    assert found.name == "scenes (image folder)"
    assert data.key(found.name) == "folder"
    assert data.option(found) == f" --data {scenes_folder}"


def test_a_folder_may_hold_more_folders_and_hidden_files(tmp_path):
    make(tmp_path, *TWO, "train/a/deep/er/2.png")
    (tmp_path / "train/a/.DS_Store").write_bytes(b"x")
    (tmp_path / "train/.cache").mkdir()
    found = image_folder.dataset(tmp_path)
    assert found.train.files == ("a/1.png", "b/1.png", "a/deep/er/2.png")


def test_a_table_names_the_classes(tmp_path):
    make(tmp_path, *TWO)
    table = tmp_path / "labels.txt"
    table.write_text("b  tench, Tinca tinca\n\nc unused\na goldfish\n")
    assert image_folder.dataset(tmp_path, table).classes == ("goldfish", "tench, Tinca tinca")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a goldfish\n", r"1 of the 2 folders are not among them: b"),
        ("a goldfish\nb\n", "line 2: expected a folder and the name"),
        ("a x\na y\nb z\n", "line 2: .* a second name for a"),
        (b"\xff\xfe", "not text in UTF-8"),
    ],
)
def test_a_table_that_does_not_match_is_refused(tmp_path, text, message):
    make(tmp_path, *TWO)
    table = tmp_path / "labels.txt"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        image_folder.dataset(tmp_path, table)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "expected the folder train"),
        (("train/a/1.png", "train/b/1.png"), "expected the folder val or valid"),
        (("train/1.png", "val/a/1.png"), "expected a folder for each class"),
        (("train/a/1.png", "val/a/1.png"), "two classes or more, found only a"),
        ((*TWO, "val/c/1.png"), "has the class c, which"),
    ],
    ids=["nothing", "no val", "without classes", "one class only", "unknown class"],
)
def test_a_folder_of_another_layout_is_refused(tmp_path, names, message):
    make(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        image_folder.dataset(tmp_path)


def test_a_class_without_pictures_is_refused(tmp_path):
    make(tmp_path, *TWO)
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no picture"):
        image_folder.dataset(tmp_path)


@pytest.mark.parametrize("name", ["none", "file"])
def test_something_else_than_a_folder_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="expected a folder of pictures, found"):
        image_folder.dataset(tmp_path / name)


def test_the_fingerprint_follows_names_and_sizes(tmp_path):
    one = image_folder.dataset(make(tmp_path / "one", *TWO)).sha256
    assert image_folder.dataset(make(tmp_path / "two", *TWO)).sha256 == one
    make(tmp_path / "two", "train/a/2.png")
    assert image_folder.dataset(tmp_path / "two").sha256 != one


# ---------------------------------------------------------------------------------- damaged files


@pytest.fixture
def damaged(tmp_path):
    """Two files of six are not whole pictures."""
    make(tmp_path, *TWO)
    (tmp_path / "train/a/text.jpg").write_text("no picture")
    content = (tmp_path / "train/b/1.png").read_bytes()
    (tmp_path / "train/b/cut.png").write_bytes(content[: len(content) // 2])
    return tmp_path


def test_damaged_files_are_named_counted_and_left_out(damaged):
    with pytest.warns(UserWarning, match=r"2 of 4 pictures .* left out: a/text.jpg, b/cut.png;"):
        found = image_folder.dataset(damaged)
    assert found.train.files == ("a/1.png", "b/1.png")


def test_damaged_files_are_refused_with_strict(damaged):
    with pytest.raises(InputError, match=r"text.jpg: expected a picture.*2 of 4 pictures"):
        image_folder.dataset(damaged, strict=True)


def test_a_note_about_damaged_files_does_not_end_a_command(damaged, run_cli, tmp_path):
    words = ("train", "imagenet-resnet18", "--dataset", damaged, "--iterations", 1)
    code, _, err = run_cli(*words, "--image-size", 8)
    assert code == 2
    assert "made for images of 224x224, got images of 8x8" in err
    code, _, err = run_cli(*words, "--strict", "--image-size", 64)
    assert code == 2
    assert "2 of 4 pictures are damaged" in err


needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")


def pipe(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(os.path.relpath(path))  # its path may have 100 characters


@needs_pipes
@pytest.mark.parametrize("special", [pipe, unix_socket])
def test_what_is_no_regular_file_is_named_and_never_opened(tmp_path, monkeypatch, special):
    make(tmp_path, *TWO)
    monkeypatch.chdir(tmp_path)
    special(tmp_path / "train/a/2.png")
    with pytest.warns(UserWarning, match=r"1 of 3 pictures .* left out: a/2.png;"):
        found = image_folder.dataset(tmp_path)
    assert found.train.files == ("a/1.png", "b/1.png")
    with pytest.raises(InputError, match=r"2\.png: expected a picture, found a pipe, a socket"):
        image_folder.dataset(tmp_path, strict=True)


@needs_pipes
def test_a_picture_that_became_a_pipe_ends_a_batch(found, tmp_path):
    os.mkfifo(tmp_path / "1.png")
    with pytest.raises(InputError, match="which is not opened"):
        found.prepare(np.array([str(tmp_path / "1.png")], object), None)


def test_files_of_other_names_are_counted_and_passed_over(tmp_path):
    make(tmp_path, *TWO, "val/a/2.PNG")
    for name in ("Thumbs.db", "notes.txt", "deep/x.xml", "1.png.bak", "README", "desktop.ini"):
        path = tmp_path / "train/a" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("no picture")
    with pytest.warns(
        UserWarning, match=r"passed over 6 of 8 files, .*: a/1.png.bak, .* and 1 more"
    ):
        found = image_folder.dataset(tmp_path, strict=True)
    assert found.train.files == ("a/1.png", "b/1.png")
    assert found.test.files == ("a/1.png", "b/1.png", "a/2.PNG")


def test_a_long_list_of_damaged_pictures_is_cut_with_its_length(tmp_path):
    make(tmp_path, *TWO)
    for i in range(7):
        (tmp_path / f"val/b/x{i}.jpg").write_text("no picture")
    names = "b/x0.jpg, b/x1.jpg, b/x2.jpg, b/x3.jpg, b/x4.jpg and 2 more"
    with pytest.warns(UserWarning, match=f"7 of 9 pictures are damaged and left out: {names};"):
        image_folder.dataset(tmp_path)
    with pytest.raises(InputError, match=f"7 of 9 pictures are damaged: {names};"):
        image_folder.dataset(tmp_path, strict=True)


def test_strict_and_labels_are_for_folders(run_cli):
    code, _, err = run_cli("train", "resnet8", "--dataset", "shapes10", "--strict")
    assert code == 2
    assert "for a folder of pictures" in err


@pytest.mark.parametrize("name", ["./none", "none/such", "sceens"])
def test_a_folder_that_is_not_there_is_an_error(run_cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_cli("train", "resnet8", "--dataset", name)
    assert code == 2
    assert ("expected a folder of pictures, found nothing" in err) == ("/" in name)
    assert ("--dataset must be one of" in err) == ("/" not in name)


# ------------------------------------------------------------------------------------ preparation


def test_sides_are_those_of_the_paper_and_in_proportion():
    assert scale_and_crop.training_sides(224) == (256, 480)
    assert scale_and_crop.test_side(224) == 256
    assert scale_and_crop.training_sides(64) == (73, 137)
    assert scale_and_crop.test_side(64) == 73


def squares(found, split):
    """Centre crops of a whole split, (N, 16, 16, 3)."""
    paths, _ = split[np.arange(len(split))]
    return np.stack([scale_and_crop.centre_of(path, 16) for path in paths])


def test_the_mean_is_that_of_the_centre_crops(found):
    crops = squares(found, found.train).astype(np.float64)
    x = found.prepare(found.train[np.arange(3)][0], None)
    expected = (crops[:3] - crops.mean(axis=0)) / 255
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-6)
    by_channel = found.with_images(normalise="per-channel-mean")
    x = by_channel.prepare(found.train[np.arange(3)][0], None)
    expected = (crops[:3] - crops.mean(axis=(0, 1, 2))) / 255
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-6)
    x = found.without_mean().prepare(found.train[np.arange(3)][0], None)
    np.testing.assert_allclose(x, crops[:3] / 255, rtol=0, atol=1e-6)


def test_the_mean_of_many_pictures_is_that_of_an_even_sample(found, monkeypatch):
    monkeypatch.setattr(scale_and_crop, "MEAN_PICTURES", 3)
    fresh = found.with_images(12).with_images(16)
    crops = squares(found, found.train)[[0, 18, 35]]
    np.testing.assert_allclose(fresh.prepare.normalisation.mean, crops.mean(axis=0), rtol=1e-6)


def test_a_training_batch_is_the_random_crops_of_its_draws(found):
    rows = np.arange(5)
    x = found.prepare(found.train[rows][0], stream(3, "augment", 7))
    draws = stream(3, "augment", 7).random((5, 4))
    for i, path in enumerate(found.train[rows][0]):
        square, _ = pictures.at_random(
            pictures.read(path), scale_and_crop.training_sides(16), 16, draws[i]
        )
        np.testing.assert_array_equal(x[i], found.prepare.normalisation(square[None])[0])


def test_colours_are_shifted_along_the_components_of_the_crops(found):
    crops = squares(found, found.train) / 255
    values, vectors = found.with_colour().prepare.components
    covariance = np.cov(crops.reshape(-1, 3).T, bias=True)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, covariance, atol=1e-12)
    rows = found.train[np.arange(4)][0]
    for normalise, deviation in (("per-pixel-mean", 1.0), ("imagenet", (0.229, 0.224, 0.225))):
        plain = found.with_images(normalise=normalise)
        shifted = plain.with_colour(augment=False).prepare(rows, stream(0, "augment", 1))
        alpha = 0.1 * stream(0, "augment", 1).standard_normal((4, 3))
        expected = (vectors @ (alpha * values).T).T / deviation
        moved = (shifted - plain.prepare(rows, None)).mean(axis=(1, 2))
        np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-5)


def test_a_batch_does_not_depend_on_the_number_of_threads(found, monkeypatch):
    rows = found.train[np.arange(6)][0]
    several = found.prepare(rows, stream(0, "augment", 0))
    monkeypatch.setattr(scale_and_crop, "threads", lambda: 1)
    np.testing.assert_array_equal(found.prepare(rows, stream(0, "augment", 0)), several)


def test_images_of_another_size_or_mean_are_for_pictures(shapes):
    with pytest.raises(InputError, match="only pictures of a folder are scaled"):
        shapes.with_images(64)
    with pytest.raises(InputError, match="did you mean imagenet"):
        shapes.with_images(normalise="imagent")
    x = shapes.with_images(32, "imagenet").prepare(shapes.train.images[:2], None)
    expected = (shapes.train.images[:2] / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-6)


# --------------------------------------------------------------------------------- batches ahead


def test_results_arrive_in_order_and_the_wait_is_measured():
    gate = threading.Event()

    def slow(i):
        assert i or gate.wait(10)
        return i * i

    ahead = Prefetch(slow, 0, 5)
    threading.Timer(0.05, gate.set).start()
    assert [ahead.get(i) for i in range(5)] == [0, 1, 4, 9, 16]
    assert ahead.waited >= 0.04
    ahead.close()


def test_no_more_than_the_bound_is_made_ahead(monkeypatch):
    made, enough = [], threading.Event()

    def count(i):
        made.append(i)
        if len(made) == prefetch.AHEAD + 1:
            enough.set()
        return i

    ahead = Prefetch(count, 0, 100)
    assert enough.wait(10)
    ahead.close()  # the thread has ended: nothing else is made
    assert made == list(range(prefetch.AHEAD + 1))


def test_an_error_is_raised_where_its_batch_is_asked_for():
    def broken(i):
        if i == 1:
            raise InputError("picture 1 is damaged")
        return i

    ahead = Prefetch(broken, 0, 3)
    assert ahead.get(0) == 0
    with pytest.raises(InputError, match="picture 1"):
        ahead.get(1)
    with pytest.raises(RuntimeError, match="no more batches"):
        ahead.get(2)


def test_closing_ends_the_thread_whatever_it_waits_for():
    ahead = Prefetch(lambda i: i, 0, 10**9)
    ahead.close()
    ahead.close()
    assert not [t for t in threading.enumerate() if t.name == "prefetch"]


def test_no_warning_is_given_for_whole_pictures(scenes_folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_folder.dataset(scenes_folder, strict=True)
