from dataclasses import replace

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minires import data
from minires.data import (
    ArraySplit,
    Dataset,
    Rows,
    batch_indices,
    crop_and_flip,
    even_batches,
    normalise,
    per_pixel_mean,
    stream,
    training_batch,
)
from minires.errors import InputError


def small_dataset(n=50):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, n)
    train = ArraySplit(images, labels)
    test = ArraySplit(images[:5].copy(), labels[:5].copy())
    return Dataset("small", train, test, tuple("abcdefghij"), "drawn here")


@given(n=st.integers(1, 60), batch_size=st.integers(1, 150), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_every_image_is_used_exactly_once_per_epoch(n, batch_size, seed):
    steps = -(-3 * n // batch_size)
    used = np.concatenate([batch_indices(seed, i, batch_size, n) for i in range(steps)])
    for epoch in range(3):
        np.testing.assert_array_equal(np.sort(used[epoch * n : (epoch + 1) * n]), np.arange(n))


@given(
    n=st.integers(1, 500),
    batch_size=st.integers(1, 200),
    iteration=st.integers(0, 10**6),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_a_batch_is_a_pure_function_of_its_arguments(n, batch_size, iteration, seed):
    first = batch_indices(seed, iteration, batch_size, n)
    batch_indices(seed + 1, 7, 3, 20)
    first_again = first.copy()
    first[:] = -1  # a caller may write into its batch
    again = batch_indices(seed, iteration, batch_size, n)
    np.testing.assert_array_equal(again, first_again)
    assert again.shape == (batch_size,)
    assert again.dtype == np.int64


def test_epochs_and_seeds_are_shuffled_differently():
    a, b, c = (
        batch_indices(0, 0, 100, 100),
        batch_indices(0, 1, 100, 100),
        batch_indices(1, 0, 100, 100),
    )
    assert not np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_order_of_images_is_pinned_so_that_old_runs_can_resume():
    first = [17038, 34085, 6118, 37661, 35368, 40670, 3293, 11205]
    np.testing.assert_array_equal(batch_indices(0, 0, 8, 50_000), first)


@pytest.mark.parametrize(("iteration", "batch_size", "n"), [(-1, 1, 1), (0, 0, 1), (0, 1, 0)])
def test_impossible_batches_are_refused(iteration, batch_size, n):
    with pytest.raises(InputError, match=f"batch_size {batch_size}, n {n}, iteration {iteration}"):
        batch_indices(0, iteration, batch_size, n)


def test_streams_differ_by_seed_purpose_and_index_and_repeat():
    keys = [(s, p, i) for s in (0, 1) for p in ("crop", "init", 3) for i in (0, 1)]
    draws = {key: tuple(stream(*key).integers(0, 2**62, 4)) for key in keys}
    assert len(set(draws.values())) == len(keys)
    assert all(tuple(stream(*key).integers(0, 2**62, 4)) == draws[key] for key in keys)
    with pytest.raises(InputError, match="seed -1"):
        stream(-1, 0, 0)


@given(
    N=st.integers(1, 5),
    H=st.integers(1, 7),
    W=st.integers(1, 7),
    C=st.integers(1, 4),
    pad=st.integers(0, 4),
)
@settings(deadline=None, max_examples=60)
def test_crop_and_flip_equals_a_loop_over_pixels_and_leaves_its_input(N, H, W, C, pad):
    x = np.random.default_rng(0).standard_normal((N, H, W, C)).astype(np.float32)
    before = x.copy()
    y = crop_and_flip(x, np.random.default_rng(5), pad)
    np.testing.assert_array_equal(y, naive.crop_and_flip(x, np.random.default_rng(5), pad))
    np.testing.assert_array_equal(x, before)
    assert not np.shares_memory(x, y)
    assert y.dtype == np.float32
    assert y.flags.c_contiguous


def test_every_shift_and_both_flips_are_equally_frequent():
    x = np.zeros((18_000, 9, 9, 1), np.float32)
    x[:, 4, 4], x[:, 4, 3] = 2, 1  # a marked pixel and its left neighbour
    y = crop_and_flip(x, np.random.default_rng(0), pad=4)[..., 0]
    n, row, column = np.nonzero(y == 2)
    assert len(n) == len(y)
    shifts = np.bincount(row * 9 + column, minlength=81)
    expected = len(y) / 81
    assert (
        np.sum((shifts - expected) ** 2 / expected) < 134
    )  # chi-squared, 80 degrees of freedom: p = 1e-4
    inside = (column > 0) & (column < 8)
    flipped = y[n[inside], row[inside], column[inside] + 1] == 1
    assert abs(flipped.mean() - 0.5) < 4 * 0.5 / inside.sum() ** 0.5


@pytest.mark.parametrize(
    ("shape", "pad", "given"),
    [((2, 3, 4), 4, r"shape \(2, 3, 4\) and"), ((2, 3, 4, 1), -1, "pad -1")],
)
def test_crop_of_three_dimensional_input_or_by_a_negative_pad_is_refused(shape, pad, given):
    with pytest.raises(InputError, match=given):
        crop_and_flip(np.zeros(shape, np.float32), np.random.default_rng(0), pad)


def test_mean_is_exact_across_chunks():
    images = np.random.default_rng(0).integers(0, 256, (2_345, 2, 3, 3), dtype=np.uint8)
    mean = per_pixel_mean(images)
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(
        mean, (images.sum(0, dtype=np.int64) / len(images)).astype(np.float32)
    )
    with pytest.raises(InputError, match="N >= 1"):
        per_pixel_mean(images[:0])


def test_normalised_images_have_zero_mean_and_keep_their_input():
    images = small_dataset().train.images
    before = images.copy()
    x = normalise(images, per_pixel_mean(images))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.mean(0), 0, atol=50 * np.finfo(np.float32).eps)
    np.testing.assert_array_equal(images, before)


def test_pixels_are_scaled_to_one():
    images = np.full((1, 2, 2, 3), 255, np.uint8)
    x = normalise(images, np.full((2, 2, 3), 55, np.float32))
    np.testing.assert_allclose(x, 200 / 255, rtol=2 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_with_the_image_index(value):
    images = np.zeros((6, 4, 4, 3), np.float32)
    images[3, 1, 2, 0] = value
    with pytest.raises(InputError, match="image 3"):
        normalise(images, np.zeros((4, 4, 3), np.float32))


def test_a_mean_of_another_shape_is_refused():
    with pytest.raises(InputError, match="per_pixel_mean"):
        normalise(np.zeros((2, 4, 4, 3), np.uint8), np.zeros((4, 4), np.float32))


def test_training_batch_is_a_pure_function_of_seed_and_iteration():
    data = small_dataset()
    straight = [training_batch(data, 3, i, 16) for i in range(6)]
    for i in (5, 2):  # a resumed run starts anywhere
        x, labels = training_batch(data, 3, i, 16)
        np.testing.assert_array_equal(x, straight[i][0])
        np.testing.assert_array_equal(labels, straight[i][1])


def test_training_batch_without_augmentation_is_the_normalised_images():
    data = small_dataset()
    mean = per_pixel_mean(data.train.images)
    rows = batch_indices(0, 2, 16, 50)
    x, labels = training_batch(data, 0, 2, 16, augment=False)
    np.testing.assert_array_equal(x, normalise(data.train.images[rows], mean))
    np.testing.assert_array_equal(labels, data.train.labels[rows])
    augmented, same_labels = training_batch(data, 0, 2, 16)
    np.testing.assert_array_equal(labels, same_labels)
    assert not np.array_equal(x, augmented)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["images", "labels"])
def test_hash_of_a_dataset_sees_one_changed_value_in_each_of_its_arrays(split, name):
    a, b = small_dataset(), small_dataset()
    arrays = getattr(a, split)
    changed = getattr(arrays, name).copy()
    changed.flat[0] ^= 1
    other = replace(a, **{split: replace(arrays, **{name: changed})})
    assert a.sha256 == b.sha256 != other.sha256


def test_data_that_are_not_in_memory_need_a_fingerprint():
    class Drawn:
        def __len__(self):
            return 4

        def __getitem__(self, rows):
            return np.zeros((len(rows), 8, 8, 1), np.uint8), np.zeros(len(rows), np.int64)

    data = Dataset("drawn", Drawn(), Drawn(), ("a",), "here", prepare=lambda x, rng: x / 255.0)
    with pytest.raises(InputError, match="fingerprint"):
        _ = data.sha256
    assert replace(data, fingerprint="f" * 64).sha256 == "f" * 64
    assert data.input_shape == (8, 8, 1)


def test_without_the_mean_images_are_scaled_only():
    data = small_dataset()
    images, _ = data.train[:3]
    x = data.without_mean().prepare(images, None)
    np.testing.assert_array_equal(x, images.astype(np.float32) * np.float32(1 / 255))
    with pytest.raises(InputError, match="--no-mean"):
        replace(data, prepare=lambda x, rng: x).without_mean()


def test_rows_of_a_split_are_a_split_in_the_order_asked_for():
    data = small_dataset()
    rows = Rows(data.train, np.array([7, 3, 9]))
    images, labels = rows[np.array([2, 0])]
    assert len(rows) == 3
    np.testing.assert_array_equal(images, data.train.images[[9, 7]])
    np.testing.assert_array_equal(labels, data.train.labels[[9, 7]])


@given(n=st.integers(0, 300), size=st.integers(1, 40))
def test_even_batches_hold_every_row_once_and_are_nearly_equal(n, size):
    batches = even_batches(np.arange(n), size)
    np.testing.assert_array_equal(np.concatenate([[], *batches]), np.arange(n))
    sizes = [len(batch) for batch in batches]
    if n:
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= min(2, n)  # one image alone is no sample
        assert max(sizes) <= size or (max(sizes) <= 3 and size <= 2)
        assert len(sizes) == 1 or len(sizes) == -(-n // size) or size <= 2


def test_fresh_images_are_new_at_every_step_and_for_every_seed():
    dataset = replace(
        small_dataset(), fresh=lambda n, rng: (rng.integers(0, 256, (n, 32, 32, 3)), np.zeros(n))
    )
    batches = [
        training_batch(dataset, seed, iteration, 4, augment=False)[0]
        for seed, iteration in ((0, 0), (0, 1), (1, 0))
    ]
    for i, x in enumerate(batches):
        assert not any(np.array_equal(x, other) for other in batches[:i])
    again = training_batch(dataset, 0, 1, 4, augment=False)[0]
    np.testing.assert_array_equal(batches[1], again)


def test_the_mean_of_many_bright_images_is_exact():
    n = 66_000  # 255 n is above 2^24, where float32 has no odd numbers
    images = np.full((n, 1, 1, 1), 255, np.uint8)
    images[0] = 254
    exact = np.float32((255 * n - 1) / n)
    assert per_pixel_mean(images)[0, 0, 0] == exact
    many = np.ones((2**24 + 2001, 1, 1, 1), np.uint8)  # a sum in float32 stops at 2^24
    assert per_pixel_mean(many)[0, 0, 0] == 1


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b]0;title\x07", None, 5])
def test_a_data_set_needs_a_printable_name(name):
    with pytest.raises(InputError, match="needs a name of printable characters") as e:
        replace(small_dataset(), name=name)
    assert str(e.value).isprintable()


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("CIFAR-10 (JPEG copy)", "cifar-10"),
        ("shapes10", "shapes10"),
        ("../../evil", "evil"),
        ("/etc/passwd", "etc-passwd"),
        ("a\\b:c", "a-b-c"),
        ("...", "data"),
        ("x" * 300, "x" * 40),
    ],
)
def test_the_part_of_a_folders_name_is_no_path(name, slug):
    assert replace(small_dataset(), name=name).slug == slug


@pytest.fixture
def registered():
    """Register data sets for one test."""
    names = []

    def register(name, *args, **options):
        data.register(name, *args, **options)
        names.append(name)

    yield register
    for name in names:
        data.unregister(name)


def test_data_that_have_another_name_than_they_were_registered_with_are_refused(registered):
    registered("mine", lambda folder: small_dataset())
    with pytest.raises(InputError, match="register it with title='small'"):
        data.load("mine")
    registered("mine2", lambda folder: small_dataset(), title="small")  # as the message says
    assert data.load("mine2").name == "small"
    assert data.key("small") == "mine2"
    assert data.key("small (a copy)") == "mine2"


def test_a_title_names_one_data_set(registered):
    with pytest.raises(InputError, match="choose another title"):
        registered("mine", lambda folder: small_dataset(), title="CIFAR-10")
    with pytest.raises(InputError, match="choose another title"):
        registered("mine", lambda folder: small_dataset(), title="CIFAR-10 (mine)")
