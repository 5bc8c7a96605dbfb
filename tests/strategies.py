"""Random problems for the property tests: shapes from hypothesis, values from a seeded generator; and tolerances."""

import numpy as np
from hypothesis import strategies as st

DTYPES = ("float32", "float64")


def close(actual, expected, terms, scale=None):
    """Assert agreement to the rounding of a sum of `terms` products in the dtype of `actual`.

    A sum of n terms in any order is off by at most (n - 1) eps sum|terms|; `scale` bounds one term, by default the
    largest value expected. The factor 4 covers the handful of operations around the sum.
    """
    assert actual.shape == expected.shape
    eps = np.finfo(actual.dtype).eps
    scale = np.abs(expected).max() if scale is None else scale
    np.testing.assert_allclose(
        actual, expected, rtol=4 * eps, atol=4 * eps * terms * max(scale, 1e-30)
    )


def rngs():
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def windows(draw, largest=9, kernel=4, touching=False):
    """H, W, KH, KW, stride, pad of a window that fits; with `touching`, every window sees at least one real pixel."""
    KH, KW = draw(st.integers(1, kernel)), draw(st.integers(1, kernel))
    stride, pad = draw(st.integers(1, 3)), draw(st.integers(0, min(KH, KW) - 1 if touching else 3))
    H, W = (draw(st.integers(max(1, K - 2 * pad), largest)) for K in (KH, KW))
    return H, W, KH, KW, stride, pad


@st.composite
def convolutions(draw, dtypes=DTYPES, channels=5, touching=False):
    """x, w, stride, pad, rng: non-square images and kernels, remainder columns, sometimes a strided view as input."""
    H, W, KH, KW, stride, pad = draw(windows(touching=touching))
    N, C, K = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, channels)),
        draw(st.integers(1, channels)),
    )
    rng, dtype = draw(rngs()), draw(st.sampled_from(dtypes))
    x, w = (
        rng.standard_normal((N, H, W, C)).astype(dtype),
        rng.standard_normal((KH, KW, C, K)).astype(dtype),
    )
    if draw(st.booleans()):
        x = np.repeat(x, 2, axis=2)[:, :, ::2]
    return x, w, stride, pad, rng


@st.composite
def pools(draw, dtypes=DTYPES):
    """x, size, stride, pad, rng."""
    k, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    pad = draw(st.integers(0, k // 2))
    H, W = (draw(st.integers(max(1, k - 2 * pad), 8)) for _ in range(2))
    N, C = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rng, dtype = draw(rngs()), draw(st.sampled_from(dtypes))
    return rng.standard_normal((N, H, W, C)).astype(dtype), k, stride, pad, rng


@st.composite
def images(draw, dtypes=DTYPES, least=1):
    """x of shape (N, H, W, C) with at least `least` values in a channel, rng."""
    N, H, W, C = (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 6)),
    )
    N = max(N, -(-least // (H * W)))
    rng, dtype = draw(rngs()), draw(st.sampled_from(dtypes))
    return rng.standard_normal((N, H, W, C)).astype(dtype), rng
