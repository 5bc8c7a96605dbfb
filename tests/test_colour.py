"""PCA colour augmentation: its components, its formula, and its place in a training run."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minires.data import (
    Dataset,
    add_colour,
    colour_components,
    crop_and_flip,
    normalise,
    stream,
    training_batch,
)
from minires.data.augment import COLOUR_STD
from minires.errors import InputError
from minires.train.loop import train

EPS = np.finfo(np.float64).eps


def coloured(n=40, dtype=np.uint8, seed=0):
    """Images whose channels have the covariance `mix @ mix.T`, up to rounding and clipping."""
    rng = np.random.default_rng(seed)
    mix = np.array([[30.0, 0.0, 0.0], [20.0, 10.0, 0.0], [10.0, -5.0, 4.0]])
    images = 128 + rng.standard_normal((n, 5, 7, 3)) @ mix.T
    return images.clip(0, 255).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_components_are_those_of_the_covariance_over_all_pixels(dtype, monkeypatch):
    monkeypatch.setattr("minires.data.augment.CHUNK", 7)
    images = coloured(dtype=dtype)
    values, vectors = colour_components(images)
    pixels = images.reshape(-1, 3).astype(np.float64)
    covariance = np.cov(pixels.T, bias=True)
    close = {"rtol": 0, "atol": len(pixels) * EPS * np.trace(covariance)}
    # the mean over pixels is a float32 mean of images: its error, squared, is far below rounding
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, covariance, **close)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), rtol=0, atol=20 * EPS)
    assert (np.diff(values) < 0).all()
    assert (vectors[np.abs(vectors).argmax(axis=0), range(3)] > 0).all()


@given(dtype=st.sampled_from([np.float32, np.float64]), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_alpha_of_zero_changes_no_bit(dtype, seed):
    images = np.random.default_rng(seed).standard_normal((3, 2, 4, 3)).astype(dtype)
    images[0, 0, 0] = [-0.0, 0.0, -1e-30]
    y = add_colour(images, np.zeros((3, 3)), *colour_components(coloured()))
    assert y.tobytes() == images.tobytes()
    assert y.dtype == images.dtype
    assert not np.shares_memory(y, images)


def test_each_image_is_shifted_by_the_formula_pixel_by_pixel():
    images = coloured(4, np.float64)
    values, vectors = colour_components(images)
    alpha = np.random.default_rng(1).standard_normal((4, 3))
    y = add_colour(images, alpha, values, vectors)
    for n, i, j, c in np.ndindex(images.shape):
        shift = sum(vectors[c, k] * alpha[n, k] * values[k] for k in range(3))
        assert y[n, i, j, c] == pytest.approx(images[n, i, j, c] + shift, rel=1e-12)


def test_the_covariance_of_what_is_added_is_that_of_the_formula():
    draws = 40_000
    values, vectors = colour_components(coloured())
    alpha = COLOUR_STD * np.random.default_rng(2).standard_normal((draws, 3))
    added = add_colour(np.zeros((draws, 1, 1, 3)), alpha, values, vectors)[:, 0, 0]
    expected = COLOUR_STD**2 * vectors @ np.diag(values**2) @ vectors.T
    # an element of a sample covariance deviates by sqrt((s_ii s_jj + s_ij^2) / draws)
    s = np.diag(expected)
    deviation = np.sqrt((np.outer(s, s) + expected**2) / draws)
    assert (np.abs(added.T @ added / draws - expected) < 5 * deviation).all()


def test_eigenvalues_depend_on_the_unit_of_the_pixels_and_their_roots_follow_it():
    images = coloured(dtype=np.float64)
    values, vectors = colour_components(images)
    small, same = colour_components(images / 255)
    np.testing.assert_allclose(small, values / 255**2, rtol=1e-9)
    np.testing.assert_allclose(same, vectors, atol=1e-9)
    np.testing.assert_allclose(np.sqrt(small) * 255, np.sqrt(values), rtol=1e-9)


@pytest.mark.parametrize("augment", [True, False])
def test_a_training_batch_is_shifted_after_crops_and_flips(shapes, augment):
    data = shapes.with_colour(augment)
    x, labels = training_batch(data, 3, 5, 8)
    plain, same = training_batch(shapes, 3, 5, 8, augment=augment)
    shift = x - plain
    assert (labels == same).all()
    assert np.ptp(shift, axis=(1, 2)).max() < 1e-6  # one colour for a whole image
    assert len(np.unique(shift[:, 0, 0].round(5), axis=0)) == 8  # and another for each image
    again, _ = training_batch(data, 3, 5, 8)
    assert again.tobytes() == x.tobytes()
    rng = stream(3, "augment", 5)
    if augment:
        crop_and_flip(plain, rng)
    values, vectors = colour_components(shapes.train[:][0])
    alpha = COLOUR_STD * rng.standard_normal((8, 3))
    expected = add_colour(plain, alpha, values / 255**2, vectors)
    np.testing.assert_array_equal(x, expected)


def test_evaluation_sees_no_shift(shapes):
    images, _ = shapes.test[:4]
    assert (shapes.with_colour().prepare(images, None) == shapes.prepare(images, None)).all()
    unmoved = shapes.without_mean().with_colour().prepare(images, None)
    np.testing.assert_array_equal(unmoved, normalise(images, np.zeros((32, 32, 3), np.float32)))


def test_a_run_with_colour_shifts_learns_from_other_images_and_says_so(shapes, tiny, tmp_path):
    config = replace(tiny, iterations=1, augment=False)
    for colour in (False, True):
        train(replace(config, pca_colour=colour), tmp_path / str(colour), shapes)
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("False", "True")]
    assert lines[0] != lines[1]
    assert '"pca_colour": true' in (tmp_path / "True" / "config.json").read_text()


@pytest.mark.parametrize(
    ("images", "alpha", "values"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 3)), np.ones(3)),
        (np.zeros((2, 4, 4, 3)), np.zeros((3, 3)), np.ones(3)),
        (np.zeros((2, 4, 4, 3)), np.zeros(3), np.ones(3)),
        (np.zeros((2, 4, 4, 1)), np.zeros((2, 3)), np.ones(3)),
        (np.zeros((4, 4, 3)), np.zeros((4, 3)), np.ones(3)),
    ],
)
def test_images_or_components_of_another_shape_are_refused(images, alpha, values):
    with pytest.raises(InputError, match=r"expected .* but got .*; "):
        add_colour(images, alpha, values, np.eye(3))


def test_images_without_a_finite_covariance_are_refused():
    images = coloured(dtype=np.float64)
    images[1, 2, 3, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        colour_components(images)
    with pytest.raises(InputError, match="N >= 1"):
        colour_components(images[:0])


def test_data_with_a_preparation_of_their_own_cannot_be_shifted(shapes):
    own = Dataset(
        "own", shapes.train, shapes.test, shapes.classes, "here", prepare=lambda x, rng: x
    )
    with pytest.raises(InputError, match="drop --pca-colour"):
        own.with_colour()
