import hashlib
from pathlib import Path

import numpy as np
import pytest

from minires import data
from minires.data import shapes10, stream
from minires.errors import InputError
from minires.runs.record import read_record

PINNED = [
    (0, "34d58947de6cee324cf76789db6e7bea519ad9c03a2d37e41c95bb4efb36ea22"),
    (1, "010bb71c8d6e7b7fca95451cefad52dcc9f4a352e21ca7d08c799e157f8954b4"),
]


@pytest.mark.parametrize(("seed", "expected"), PINNED)
def test_images_of_a_seed_never_change(seed, expected):
    images, labels = shapes10.images(100, stream(seed, "pinned", 0))
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() == expected


def test_images_have_the_promised_shape_and_type():
    images, labels = shapes10.images(70, np.random.default_rng(0))
    assert (images.shape, images.dtype) == ((70, 32, 32, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((70,), np.int64)
    assert images.flags.c_contiguous


def test_labels_are_uniform():
    _, labels = shapes10.images(4_000, np.random.default_rng(0))
    counts = np.bincount(labels, minlength=10)
    assert len(counts) == 10
    assert np.sum((counts - 400) ** 2 / 400) < 33.7  # chi-squared, 9 degrees of freedom: p = 1e-4


def test_training_and_test_sets_share_no_image():
    data = shapes10.dataset(seed=1, train=300, test=200)
    every = np.concatenate([data.train.images, data.test.images]).reshape(500, -1)
    assert len(np.unique(every, axis=0)) == 500
    assert data.source == "shapes10, seed 1, 300 training and 200 test images"
    assert data.classes == shapes10.CLASSES


def test_the_whole_set_is_the_one_that_runs_were_recorded_on():
    folder = Path(__file__).parents[1] / "lessons" / "runs" / "quick-shapes10" / "plain20-seed0"
    assert data.load("shapes10").sha256 == read_record(folder).data["sha256"]


def test_fresh_images_are_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(shapes10, "dataset", lambda fresh=False: fresh)
    assert data.load("shapes10-fresh") is True
    assert data.load("shapes10") is False


def test_same_seed_same_bits_other_seed_other_bits():
    a, b, c = (shapes10.dataset(seed, 64, 10) for seed in (0, 0, 1))
    assert a.sha256 == b.sha256 != c.sha256


def coarse(images):
    """Average 2 by 2 pixels: with fewer weights, a linear classifier generalises better."""
    return images.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4)).reshape(len(images), -1) / 255 - 0.5


def test_a_linear_classifier_errs_on_two_images_of_five_or_more():
    data = shapes10.dataset(seed=0, train=6_000, test=1_000)
    x, targets = coarse(data.train.images), np.eye(10)[data.train.labels] - 0.1
    w = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ targets)  # ridge regression
    assert np.mean(np.argmax(coarse(data.test.images) @ w, axis=1) == data.test.labels) < 0.6


def test_classes_hold_different_shapes_of_equal_brightness():
    images, labels = shapes10.images(4_000, np.random.default_rng(0))
    brightness = np.array([images[labels == k].mean() for k in range(10)])
    assert np.ptp(brightness) < 12  # of 255: mean brightness tells no class


def test_sheet_has_one_column_per_class_and_gaps():
    page = shapes10.sheet(rows=3, seed=4)
    assert (page.shape, page.dtype) == ((3 * 34 + 2, 10 * 34 + 2, 3), np.uint8)
    assert (page[::34] == 255).all()
    assert (page[:, 1::34] == 255).all()
    np.testing.assert_array_equal(page, shapes10.sheet(rows=3, seed=4))


@pytest.mark.parametrize(
    "ask", [lambda: shapes10.images(0, np.random.default_rng(0)), lambda: shapes10.sheet(rows=0)]
)
def test_a_number_below_one_is_refused(ask):
    with pytest.raises(InputError, match="was asked for 0"):
        ask()
