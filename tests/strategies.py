"""Random problems for the property tests, and tolerances.

Shapes come from hypothesis, values from a seeded generator.
"""

import numpy as np
from hypothesis import strategies as st

DTYPES = ("float32", "float64")


def close(actual, expected, terms, scale=None):
    """Assert agreement to the rounding of a sum of `terms` products in the dtype of `actual`.

    A sum of n terms in any order is off by at most (n - 1) eps sum|terms|; `scale` bounds one term,
    by default the largest value expected. The factor 4 covers the few operations around the sum.
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
    """Sizes H, W, KH, KW, stride and pad for a window that fits into the image.

    With `touching`, every window sees at least one real pixel.
    """
    KH, KW = draw(st.integers(1, kernel)), draw(st.integers(1, kernel))
    stride, pad = draw(st.integers(1, 3)), draw(st.integers(0, min(KH, KW) - 1 if touching else 3))
    H, W = (draw(st.integers(max(1, K - 2 * pad), largest)) for K in (KH, KW))
    return H, W, KH, KW, stride, pad


@st.composite
def convolutions(draw, dtypes=DTYPES, channels=5, touching=False):
    """x, w, stride, pad, rng: non-square images and kernels, remainder columns.

    The input is sometimes a strided view.
    """
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


def pairs(least, most):
    """An int, or a pair of them for rows and columns."""
    numbers = st.integers(least, most)
    return st.one_of(numbers, st.tuples(numbers, numbers))


@st.composite
def grouped_convolutions(draw, dtypes=DTYPES, touching=False):
    """x, w, options, rng: groups, strides and pads that differ by axis, odd shapes."""
    KH, KW, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    stride = draw(pairs(1, 3))
    pad = draw(pairs(0, min(KH, KW) - 1 if touching else 3))
    PH, PW = pad if isinstance(pad, tuple) else (pad, pad)
    H, W = (draw(st.integers(max(1, k - 2 * p), 7)) for k, p in ((KH, PH), (KW, PW)))
    N, C, K = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rng, dtype = draw(rngs()), draw(st.sampled_from(dtypes))
    x = rng.standard_normal((N, H, W, C * groups)).astype(dtype)
    w = rng.standard_normal((KH, KW, C, K * groups)).astype(dtype)
    return x, w, {"stride": stride, "pad": pad, "groups": groups}, rng


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
