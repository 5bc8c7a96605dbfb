"""Convolutions with many channels: blocks of any size give NumPy's outputs and gradients."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minires.ops import get_ops, numpy_ops
from minires.ops.compiled import blocked, conv, tuning, winograd, winograd_blocked
from minires.ops.compiled.winograd_tiles import M, filter_tile
from minires.ops.geometry import output_shape

seeds = st.integers(0, 2**32 - 1)
dtypes = st.just("float32")  # what networks train in; every other dtype is compiled for seconds


@pytest.fixture(scope="module", autouse=True)
def _threads():
    get_ops("numba")


def assert_close(ours, theirs, terms, *factors):
    """Rounding errors of a sum grow like the square root of its terms."""
    assert ours.dtype == theirs.dtype
    scale = math.prod(float(np.abs(a).max()) for a in factors)
    tolerance = 8 * math.sqrt(terms) * np.finfo(ours.dtype).eps * scale
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def arrays(rng, dtype, *shapes):
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def zeros(count):
    return (0,) * count


@st.composite
def products(draw):
    """A convolution whose windows, pixels and filters straddle the edges of blocks."""
    KH, KW, stride = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pad = draw(st.integers(0, 2))
    depth = draw(st.sampled_from([1, 2])) * tuning.DEPTH
    C = max(1, depth // (KH * KW) + draw(st.integers(-2, 2)))
    H, W = (draw(st.integers(max(1, k - 2 * pad), 7)) for k in (KH, KW))
    x_shape, w_shape = (draw(st.integers(1, 3)), H, W, C), (KH, KW, C, draw(st.integers(1, 40)))
    return draw(seeds), draw(dtypes), x_shape, w_shape, stride, pad


@given(products(), st.integers(1, 30), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_matrix_product_of_any_blocks_is_numpys_convolution(problem, many, panels):
    seed, dtype, x_shape, w_shape, stride, pad = problem
    x, w = arrays(np.random.default_rng(seed), dtype, x_shape, w_shape)
    expected, _ = numpy_ops.conv2d_forward(x, w, stride, pad)
    KH, KW, C, K = w_shape
    y = np.full_like(expected, np.nan)
    window = KW, stride, stride, pad, pad, *y.shape[1:3]
    rows, vectors = tuning.WEIGHT_TILE
    sizes = many, panels * vectors * tuning.VECTOR_BYTES // x.itemsize
    blocked._correlate(
        x, w.reshape(-1, K), y, window, (1, 1, 0, 0), sizes, (zeros(rows), zeros(vectors))
    )
    assert_close(y, expected, KH * KW * C, x, w)


@given(products(), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_gradient_of_any_blocks_is_numpys(problem, chunks, panels):
    seed, dtype, x_shape, w_shape, stride, pad = problem
    rng = np.random.default_rng(seed)
    x, w = arrays(rng, dtype, x_shape, w_shape)
    y, cache = numpy_ops.conv2d_forward(x, w, stride, pad)
    (dy,) = arrays(rng, dtype, y.shape)
    dx, dw = numpy_ops.conv2d_backward(dy, cache)
    KH, KW, C, K = w_shape
    window = KW, stride, stride, pad, pad, *y.shape[1:3]
    rows, vectors = tuning.WEIGHT_TILE
    wide = panels * vectors * tuning.VECTOR_BYTES // x.itemsize
    parts = np.full((chunks, KH * KW * C, K), np.nan, dtype)
    blocked._filter_gradient(x, dy, parts, window, wide, (zeros(rows), zeros(vectors)))
    assert_close(parts.sum(axis=0).reshape(w_shape), dw, y[..., 0].size, x, dy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "many_channels", lambda C, K: True)
        patch.setattr(winograd, "suits", lambda *a: False)
        ours = conv.backward_input(dy, x_shape, w, stride, pad)
    assert_close(ours, dx, KH * KW * K, w, dy)


@given(seeds, dtypes, st.integers(1, 3), st.integers(1, 13), st.integers(1, 13),
       st.sampled_from([16, 64, 80]), st.sampled_from([16, 48, 64]), st.integers(0, 3),
       st.integers(1, 9), st.integers(1, 5))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_winograd_in_any_blocks_is_numpys(seed, dtype, N, H, W, C, K, pad, kept, band):
    rng = np.random.default_rng(seed)
    H, W = max(H, 3 - 2 * pad), max(W, 3 - 2 * pad)
    x, w = arrays(rng, dtype, (N, H, W, C), (3, 3, C, K))
    expected, cache = numpy_ops.conv2d_forward(x, w, 1, pad)
    (dy,) = arrays(rng, dtype, expected.shape)
    kept = min(kept, N * -(-expected.shape[1] // M))
    tile = filter_tile(K, x.dtype)
    width = len(tile[1]) * tuning.VECTOR_BYTES // x.itemsize
    y = np.full_like(expected, np.nan)
    sizes = kept, min(band, kept), width
    winograd_blocked._winograd_correlate_blocked(x, w, y, (pad, pad), sizes, tile)
    assert_close(y, expected, 9 * C, x, w)
    dw = np.full_like(w, np.nan)
    sizes = kept, 16 if C % 32 else 32, width
    winograd_blocked._winograd_dw_blocked(x, dy, dw, (pad, pad), sizes, tile)
    image = [-(-side // M) * M for side in expected.shape[1:3]]
    assert_close(dw, numpy_ops.conv2d_backward(dy, cache)[1], N * math.prod(image), x, dy)


@pytest.mark.parametrize(
    ("N", "side", "C", "K", "size", "stride"),
    [(2, 7, 128, 512, 1, 1), (2, 9, 96, 64, 3, 2), (1, 28, 128, 128, 3, 1), (2, 9, 64, 128, 1, 2),
     (1, 8, 512, 144, 3, 1), (3, 12, 64, 64, 5, 1)],
)  # fmt: skip
def test_gradients_are_adjoint_to_the_forward_pass(N, side, C, K, size, stride):
    """The convolution is linear in x and in w: <dy, y> = <dx, x> = <dw, w>."""
    ops, rng = get_ops("numba"), np.random.default_rng(0)
    x, w = arrays(rng, "float32", (N, side, side, C), (size, size, C, K))
    y, cache = ops.conv2d_forward(x, w, stride, size // 2)
    assert y.shape[1:3] == output_shape(x, size, size, stride, size // 2)
    (dy,) = arrays(rng, "float32", y.shape)
    dx, dw = ops.conv2d_backward(dy, cache)
    exact = inner_product(dy, y)
    tolerance = 8 * math.sqrt(y.size * w[..., 0].size) * np.finfo("float32").eps * 30
    assert abs(inner_product(dx, x) - exact) < tolerance
    assert abs(inner_product(dw, w) - exact) < tolerance


def inner_product(a, b):
    return np.vdot(a.astype("float64"), b.astype("float64"))


@pytest.mark.parametrize("first", [(0, 0), (1, 0), (1, 1)])
@pytest.mark.parametrize(("C", "K"), [(96, 64), (64, 160), (70, 90), (16, 8)])
def test_flipped_filters_are_reversed_and_transposed(first, C, K):
    (w,) = arrays(np.random.default_rng(0), "float32", (3, 3, C, K))
    for stride in (1, 2):
        rows, columns = (slice(begin, None, stride) for begin in first)
        expected = w[rows, columns][::-1, ::-1].swapaxes(2, 3)
        np.testing.assert_array_equal(blocked.flip(w, first, (stride, stride)), expected)


def test_blocks_cover_every_pixel_and_filter_and_are_many_enough():
    for pixels in (1, 7, 49, 50, 196, 784, 3136, 25088, 100_352):
        for K in (1, 16, 17, 64, 100, 512, 2048):
            many, wide = tuning.blocks_of_pixels(pixels, K, 16)
            pieces = -(-pixels // many) * -(-K // wide)
            assert 1 <= many <= max(tuning.MOST[0], 1)
            assert wide % 16 == 0
            assert pieces >= 16 or many < 32 or wide == 16
