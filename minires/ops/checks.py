"""Argument checks of the ops, shared by the backends: kernels need no checks of their own.

Every op has one check of its forward arguments here. Every backward checks its `dy` by `gradient`.
A failed check raises `InputError`: what was expected, what was given, what to do.
"""

from __future__ import annotations

import math

import numpy as np

from minires.errors import InputError
from minires.ops.geometry import Pair, output_size, pair

Shape = tuple[int, ...]
REAL = ("float32", "float64")
REAL_OR_COMPLEX = (*REAL, "complex128")  # complex for the complex-step gradient check
NAMES = {np.dtype(name).char: name for name in REAL_OR_COMPLEX}


def _name(dtype: np.dtype) -> str:
    """Name of a dtype, whatever its byte order. NumPy takes microseconds to find it."""
    return NAMES.get(dtype.char) or dtype.name


def _is_array(op: str, name: str, a: object) -> None:
    """Accept plain arrays and memory-mapped ones: other subclasses change what + and * mean."""
    if type(a) is np.ndarray or isinstance(a, np.memmap):
        return
    advice = "wrap it in np.asarray(...)"
    if isinstance(a, np.ma.MaskedArray):
        advice = "replace the masked values with .filled(...)"
    raise InputError(f"{op}: {name} must be a NumPy array, got {type(a).__name__}; {advice}")


def arrays(op: str, dtypes: tuple[str, ...] = REAL, **named: np.ndarray) -> None:
    """Every argument is a non-empty array, and all have one of `dtypes`."""
    first, like = next(iter(named.items()))
    for name, a in named.items():
        _is_array(op, name, a)
        dtype = _name(a.dtype)
        if dtype not in dtypes:
            raise InputError(
                f"{op}: {name} must be {' or '.join(dtypes)}, got {a.dtype}; "
                "convert it with .astype(np.float32)"
            )
        if dtype != _name(like.dtype):
            raise InputError(
                f"{op}: {first} is {like.dtype} but {name} is {a.dtype}; give both the same dtype"
            )
        if a.size == 0:
            raise InputError(
                f"{op}: {name} is empty, shape {a.shape}; give a batch of at least one image"
            )


def rank(op: str, name: str, a: np.ndarray, axes: str) -> None:
    """`a` has as many axes as `axes` names, such as "N, H, W, C"."""
    if a.ndim != axes.count(",") + 1:
        raise InputError(f"{op}: {name} must have shape ({axes}), got {a.shape}")


def same_shape(op: str, name: str, a: np.ndarray, shape: Shape) -> None:
    """`a` is an array of exactly `shape`: broadcasting would hide a mistake."""
    _is_array(op, name, a)
    if a.shape != shape:
        raise InputError(f"{op}: {name} must have shape {shape}, got {a.shape}")


def gradient(op: str, dy: np.ndarray, shape: Shape, dtype: np.dtype | None = None) -> None:
    """`dy` has the shape and the dtype of the output of the forward pass.

    Without `dtype`, which some caches do not know, any real floating dtype will do.
    """
    same_shape(op, "dy", dy, shape)
    allowed = REAL if dtype is None else (_name(dtype),)
    if _name(dy.dtype) not in allowed:
        raise InputError(
            f"{op}: dy must be {' or '.join(allowed)} like the output of the forward pass, got "
            f"{dy.dtype}; convert it with .astype(np.{allowed[0]})"
        )


def integer(op: str, name: str, value: object, least: int) -> None:
    """`value` is an integer of at least `least`."""
    if not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{op}: {name} must be an integer of at least {least}, got {value!r}")


def _integers(op: str, name: str, value: object, least: int) -> Pair:
    """Return an integer, or a pair of them, as (rows, columns)."""
    if type(value) is int and value >= least:  # the usual case
        return value, value
    both = value if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(isinstance(v, (int, np.integer)) and v >= least for v in both):
        raise InputError(
            f"{op}: {name} must be an integer of at least {least}, or a pair of them "
            f"(rows, columns), got {value!r}; write {name}=2 or {name}=(2, 1)"
        )
    return int(both[0]), int(both[1])


def window(op: str, image: Pair, kernel: Pair, stride: Pair, pad: Pair) -> Pair:
    """Return (OH, OW): how many windows fit into an image, by row and by column."""
    H, W = image
    KH, KW = kernel
    integer(op, "kernel size", min(KH, KW), 1)
    if KH > H + 2 * pad[0] or KW > W + 2 * pad[1]:
        zeros = pad[0] if pad[0] == pad[1] else pad
        raise InputError(
            f"{op}: a {KH}x{KW} window does not fit into {H}x{W} with pad {zeros}; "
            "use a larger image or more padding"
        )
    return output_size(H, KH, stride[0], pad[0]), output_size(W, KW, stride[1], pad[1])


def conv2d(
    x: np.ndarray, w: np.ndarray, stride: int | Pair, pad: int | Pair, groups: int = 1
) -> Shape:
    """Return the shape (N, OH, OW, K) of the output."""
    arrays("conv2d", REAL_OR_COMPLEX, x=x, w=w)
    rank("conv2d", "x", x, "N, H, W, C")
    rank("conv2d", "w", w, "KH, KW, C, K" if groups == 1 else "KH, KW, C / groups, K")
    _groups(x, w, groups)
    N, H, W, _ = x.shape
    KH, KW, _, K = w.shape
    steps = _integers("conv2d", "stride", stride, 1)
    zeros = _integers("conv2d", "pad", pad, 0)
    return N, *window("conv2d", (H, W), (KH, KW), steps, zeros), K


def _groups(x: np.ndarray, w: np.ndarray, groups: int) -> None:
    """`groups` divides the channels and the filters, and each filter sees the channels of one."""
    integer("conv2d", "groups", groups, 1)
    C = x.shape[3]
    seen, K = w.shape[2:]
    if groups == 1 and C != seen:
        raise InputError(
            f"conv2d: x has {C} channels, shape {x.shape} as (N, H, W, C), "
            f"but the filters expect {seen}, shape {w.shape} as (KH, KW, C, K)"
        )
    if C % groups or K % groups:
        raise InputError(
            f"conv2d: {C} channels and {K} filters must both be divisible by groups, got "
            f"groups={groups}; choose a common divisor, such as {math.gcd(C, K)}"
        )
    if C != seen * groups:
        raise InputError(
            f"conv2d: x has {C} channels in {groups} groups of {C // groups}, shape {x.shape} as "
            f"(N, H, W, C), but the filters expect {seen}, shape {w.shape} as "
            f"(KH, KW, C / groups, K); give filters that see {C // groups} channels"
        )


def conv2d_backward(dy: np.ndarray, cache: tuple) -> int:
    """`dy` is like the output of the forward pass; return the number of groups."""
    x, w, stride, pad = cache
    groups = int(x.shape[3] // w.shape[2])
    gradient("conv2d_backward", dy, conv2d(x, w, stride, pad, groups), x.dtype)
    return groups


def batchnorm(x: np.ndarray, eps: float, **per_channel: np.ndarray) -> float:
    """`x` is (N, ..., C) and each of `per_channel` is (C,); return eps as a Python float.

    A NumPy scalar or array would give a float32 result its own dtype.
    """
    arrays("batchnorm", REAL_OR_COMPLEX, x=x, **per_channel)
    if x.ndim < 2:
        raise InputError(f"batchnorm: x must have shape (N, ..., C), got {x.shape}")
    for name, a in per_channel.items():
        same_shape("batchnorm", name, a, x.shape[-1:])
    return _eps(eps)


def _eps(eps: object) -> float:
    """Return a number, a NumPy scalar or an array without axes as a Python float."""
    real = isinstance(eps, (int, float, np.floating, np.integer)) and not isinstance(eps, bool)
    if isinstance(eps, np.ndarray):
        real = eps.shape == () and eps.dtype.kind in "fiu"
    if not real or not 0 <= eps < math.inf:  # type: ignore[operator]
        raise InputError(
            f"batchnorm: eps must be a finite number of at least 0, got {_short(eps)}; "
            "write eps=1e-5"
        )
    return float(eps)  # type: ignore[arg-type]


def _short(value: object) -> str:
    """Show a value on one line: an array by its shape and dtype."""
    if isinstance(value, np.ndarray) and value.ndim:
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return repr(value)


def relu(x: np.ndarray) -> None:
    """`x` has any shape. Complex numbers have no order, so they are refused."""
    arrays("relu", x=x)


def max_pool(x: np.ndarray, size: int, stride: int, pad: int) -> Shape:
    """Return the shape (N, OH, OW, C) of the output; every window must hold a pixel of x."""
    arrays("max_pool", x=x)
    return _pool("max_pool", x, size, stride, pad)


def avg_pool(x: np.ndarray, size: int, stride: int, pad: int) -> Shape:
    """Return the shape (N, OH, OW, C) of the output; every window must hold a pixel of x."""
    arrays("avg_pool", REAL_OR_COMPLEX, x=x)
    return _pool("avg_pool", x, size, stride, pad)


def _pool(op: str, x: np.ndarray, size: int, stride: int, pad: int) -> Shape:
    rank(op, "x", x, "N, H, W, C")
    N, H, W, C = x.shape
    integer(op, "stride", stride, 1)
    integer(op, "pad", pad, 0)
    integer(op, "size", size, 1)
    OH, OW = window(op, (H, W), (size, size), pair(stride), pair(pad))
    if pad > size // 2:
        raise InputError(
            f"{op}: pad must be at most size // 2 = {size // 2}, got {pad}: windows of padding only"
        )
    return N, OH, OW, C


def global_avg_pool(x: np.ndarray) -> None:
    """`x` is (N, H, W, C)."""
    arrays("global_avg_pool", REAL_OR_COMPLEX, x=x)
    rank("global_avg_pool", "x", x, "N, H, W, C")


def local_response_norm(
    x: np.ndarray, n: int, k: float, alpha: float, beta: float
) -> tuple[float, float, float]:
    """`x` is (N, ..., C), and a window of n channels fits; return k, alpha, beta as Python floats.

    A NumPy scalar would give a float32 result its own dtype.
    """
    op = "local_response_norm"
    arrays(op, REAL_OR_COMPLEX, x=x)
    if x.ndim < 2:
        raise InputError(f"{op}: x must have shape (N, ..., C), got {x.shape}")
    constants = response_constants(op, n, k, alpha, beta)
    if n > x.shape[-1]:
        raise InputError(
            f"{op}: n must be at most the {x.shape[-1]} channels of x, got {n}; "
            "choose a smaller odd window"
        )
    return constants


def response_constants(
    op: str, n: int, k: float, alpha: float, beta: float
) -> tuple[float, float, float]:
    """The window is odd, and the sum that is raised to a power is positive."""
    integer(op, "n", n, 1)
    if n % 2 == 0:
        raise InputError(
            f"{op}: n must be odd, as many channels count on either side; got {n}, "
            f"choose {n - 1} or {n + 1}"
        )
    numbers = (int, float, np.floating, np.integer)
    for name, value in (("k", k), ("alpha", alpha), ("beta", beta)):
        if not isinstance(value, numbers) or not 0 <= value < math.inf:
            raise InputError(
                f"{op}: {name} must be a finite number of at least 0, got {_short(value)}; "
                "the paper has k=2, alpha=1e-4, beta=0.75"
            )
    if k == 0:
        raise InputError(f"{op}: k must be above 0, got 0: a pixel of zeros divides 0 by 0")
    return float(k), float(alpha), float(beta)


def dropout_mask(u: np.ndarray, rate: float) -> None:
    """`u` has any shape, and the rate lies in [0, 1)."""
    arrays("dropout_mask", u=u)
    dropout_rate("dropout_mask", rate)


def dropout_rate(op: str, rate: float) -> None:
    """The rate lies in [0, 1)."""
    numbers = (int, float, np.floating, np.integer)
    if not isinstance(rate, numbers) or isinstance(rate, bool) or not 0 <= rate < 1:
        raise InputError(
            f"{op}: rate must lie in [0, 1), got {rate!r}; it is the share of elements that become "
            "0, and the paper's is 0.5"
        )


def dropout(x: np.ndarray, mask: np.ndarray) -> None:
    """`x` has any shape, and the mask the same."""
    arrays("dropout", x=x, mask=mask)
    if mask.shape != x.shape:
        raise InputError(
            f"dropout: mask must have the shape of x, {x.shape}, got {mask.shape}; "
            "draw one number for each element"
        )


def tanh(x: np.ndarray) -> None:
    """`x` has any shape."""
    arrays("tanh", REAL_OR_COMPLEX, x=x)


def linear(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> None:
    """`x` (N, C), `w` (C, K) and `b` (K,) fit together."""
    arrays("linear", REAL_OR_COMPLEX, x=x, w=w, b=b)
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
    arrays(op, REAL_OR_COMPLEX, logits=logits)
    rank(op, "logits", logits, "N, K")
    _is_array(op, "labels", labels)
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"{op}: labels must be an array of integers, got {labels.dtype}; "
            "convert it with .astype(np.int64)"
        )
    same_shape(op, "labels", labels, logits.shape[:1])
    K = logits.shape[1]
    wrong = np.flatnonzero((labels < 0) | (labels >= K))
    if wrong.size:
        raise InputError(
            f"{op}: labels must lie in 0 .. {K - 1}, but labels[{wrong[0]}] is {labels[wrong[0]]}"
        )
