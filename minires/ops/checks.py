"""What an op expects of its arguments, said once for every backend: kernels then need no checks of their own.

Each function raises `InputError` with what was expected, what came, and what to do; some return the output size.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from minires.errors import InputError

Shape = tuple[int, ...]
# complex128 is no data type for training: gradcheck's complex step sends it through the smooth ops
REAL, SMOOTH = ("float32", "float64"), ("float32", "float64", "complex128")


@cache
def _name(dtype: np.dtype) -> str:
    """Name of a type, whatever its byte order; NumPy takes microseconds to find it."""
    return dtype.name


def _is_array(op: str, name: str, a: object) -> None:
    if not isinstance(a, np.ndarray):
        raise InputError(
            f"{op}: {name} must be a NumPy array, got {type(a).__name__}; wrap it in np.asarray(...)"
        )


def arrays(op: str, dtypes: tuple[str, ...] = REAL, **named: np.ndarray) -> None:
    """Every argument is a non-empty array of one and the same floating type."""
    first = next(iter(named))
    for name, a in named.items():
        _is_array(op, name, a)
        if _name(a.dtype) not in dtypes:
            raise InputError(
                f"{op}: {name} must be {' or '.join(dtypes)}, got {a.dtype}; convert it with .astype(np.float32)"
            )
        if a.dtype != named[first].dtype:
            raise InputError(
                f"{op}: {first} is {named[first].dtype} but {name} is {a.dtype}; give both the same dtype"
            )
        if a.size == 0:
            raise InputError(
                f"{op}: {name} is empty, shape {a.shape}; give a batch of at least one image"
            )


def rank(op: str, name: str, a: np.ndarray, axes: str) -> None:
    """`a` has one axis per letter group of `axes`, such as "N, H, W, C"."""
    if a.ndim != axes.count(",") + 1:
        raise InputError(f"{op}: {name} must have shape ({axes}), got {a.shape}")


def same_shape(op: str, name: str, a: np.ndarray, shape: Shape) -> None:
    """`a` is an array of exactly `shape`: broadcasting would hide a mistake."""
    _is_array(op, name, a)
    if a.shape != shape:
        raise InputError(f"{op}: {name} must have shape {shape}, got {a.shape}")


def finite(op: str, **named: np.ndarray) -> None:
    """Nothing in these arrays is NaN or infinite."""
    for name, a in named.items():
        if not np.isfinite(a).all():
            where = tuple(map(int, np.argwhere(~np.isfinite(a))[0]))
            raise InputError(f"{op}: {name} at {where} is {a[where]}; give finite numbers")


def broadcast(name: str, a: np.ndarray, shape: Shape) -> np.ndarray:
    """`a`, a number or an array of `shape`, in that shape."""
    if a.shape not in ((), shape):
        raise InputError(f"{name} must be a number or have shape {shape}, got {a.shape}")
    return np.broadcast_to(a, shape)


def names(op: str, given: tuple[str, ...], count: int) -> tuple[str, ...]:
    """One name for each floating-point array."""
    if len(given) != count:
        raise InputError(
            f"{op}: expected {count} names, one for each floating-point array, got {given}"
        )
    return given


def check_options(op: str, method: str, rtol: float, elements: int, **inputs: np.ndarray) -> None:
    """How to check gradients, and where: a known method, a tolerance below 1, an element or more, finite inputs."""
    finite(op, **inputs)
    if method not in ("central", "complex"):
        raise InputError(f"{op}: method must be 'central' or 'complex', got {method!r}")
    if not 0 < rtol < 1:
        raise InputError(f"{op}: rtol must lie between 0 and 1, got {rtol}; the default is 1e-6")
    if not isinstance(elements, (int, np.integer)) or elements < 1:
        raise InputError(f"{op}: elements must be an integer of at least 1, got {elements!r}")


def window(op: str, H: int, W: int, KH: int, KW: int, stride: int, pad: int) -> tuple[int, int]:
    """Output size of a window that slides over an image: OH = (H + 2 pad - KH) // stride + 1, and so for OW."""
    for name, value, least in (
        ("stride", stride, 1),
        ("pad", pad, 0),
        ("kernel size", min(KH, KW), 1),
    ):
        if not isinstance(value, (int, np.integer)) or value < least:
            raise InputError(f"{op}: {name} must be an integer of at least {least}, got {value!r}")
    if KH > H + 2 * pad or KW > W + 2 * pad:
        raise InputError(
            f"{op}: a {KH}x{KW} window does not fit into {H}x{W} with pad {pad}; use a larger image or more padding"
        )
    return (H + 2 * pad - KH) // stride + 1, (W + 2 * pad - KW) // stride + 1


def conv2d(x: np.ndarray, w: np.ndarray, stride: int, pad: int) -> Shape:
    """Return the shape (N, OH, OW, K) of the output."""
    arrays("conv2d", SMOOTH, x=x, w=w)
    rank("conv2d", "x", x, "N, H, W, C")
    rank("conv2d", "w", w, "KH, KW, C, K")
    if x.shape[3] != w.shape[2]:
        raise InputError(
            f"conv2d: x has {x.shape[3]} channels, shape {x.shape} as (N, H, W, C), "
            f"but the filters expect {w.shape[2]}, shape {w.shape} as (KH, KW, C, K)"
        )
    (N, H, W, _), (KH, KW, _, K) = x.shape, w.shape
    return N, *window("conv2d", H, W, KH, KW, stride, pad), K


def batchnorm(x: np.ndarray, eps: float, **per_channel: np.ndarray) -> None:
    """`x` is (N, ..., C) and each of `per_channel` is (C,)."""
    arrays("batchnorm", SMOOTH, x=x, **per_channel)
    if x.ndim < 2:
        raise InputError(f"batchnorm: x must have shape (N, ..., C), got {x.shape}")
    for name, a in per_channel.items():
        same_shape("batchnorm", name, a, x.shape[-1:])
    if eps < 0:
        raise InputError(f"batchnorm: eps must not be negative, got {eps}")


def max_pool(x: np.ndarray, size: int, stride: int, pad: int) -> Shape:
    """Return the shape (N, OH, OW, C) of the output; every window must hold at least one real pixel."""
    arrays("max_pool", x=x)
    rank("max_pool", "x", x, "N, H, W, C")
    N, H, W, C = x.shape
    OH, OW = window("max_pool", H, W, size, size, stride, pad)
    if pad > size // 2:
        raise InputError(
            f"max_pool: pad must be at most size // 2 = {size // 2}, got {pad}: windows of padding only"
        )
    return N, OH, OW, C


def linear(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> None:
    """`x` (N, C), `w` (C, K) and `b` (K,) fit together."""
    arrays("linear", SMOOTH, x=x, w=w, b=b)
    rank("linear", "x", x, "N, C")
    rank("linear", "w", w, "C, K")
    if x.shape[1] != w.shape[0]:
        raise InputError(
            f"linear: x {x.shape} has {x.shape[1]} features, but w {w.shape} expects {w.shape[0]}"
        )
    same_shape("linear", "b", b, w.shape[1:])


def labels(logits: np.ndarray, labels: np.ndarray) -> None:
    """One integer label in 0 .. K-1 for each row of the logits (N, K)."""
    op = "softmax_cross_entropy"
    arrays(op, SMOOTH, logits=logits)
    rank(op, "logits", logits, "N, K")
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        kind = getattr(labels, "dtype", type(labels).__name__)
        raise InputError(
            f"{op}: labels must be an array of integers, got {kind}; convert with .astype(np.int64)"
        )
    same_shape(op, "labels", labels, logits.shape[:1])
    K = logits.shape[1]
    wrong = np.flatnonzero((labels < 0) | (labels >= K))
    if wrong.size:
        raise InputError(
            f"{op}: labels must lie in 0 .. {K - 1}, but labels[{wrong[0]}] is {labels[wrong[0]]}"
        )
