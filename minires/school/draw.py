"""Draw small problems for every exercise; a failing case shrinks to a few small whole numbers.

A case is a dict of arguments by name. Besides shapes, the cases vary the scale of the numbers,
their order in memory, and now and then the size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.ops import get_ops, numpy_ops

try:
    from hypothesis import strategies as st
except ImportError as e:
    raise InputError(
        "exercises are checked with hypothesis, which is not installed: pip install hypothesis"
    ) from e

Case = dict[str, Any]

BYTES = 17  # drawn for an array
STEPS = (1, 2, 7, 11, 17, 13)  # in these bytes, from an element to its neighbour along each axis
GOLDEN = 0.6180339887498949
LAYOUTS = ("C", "F", "reversed", "read-only")
drawn = st.binary(min_size=BYTES, max_size=BYTES)


@dataclass(frozen=True)
class Size:
    """The largest sizes that are drawn."""

    images: int  # rows and columns
    kernel: int
    channels: int
    batch: int

    @property
    def is_large(self) -> bool:
        """Whether these cases are large; if so, scales and counts are large, too."""
        return self.images > 4


SMALL = Size(images=2, kernel=2, channels=2, batch=2)
MEDIUM = Size(images=4, kernel=3, channels=2, batch=2)
LARGE = Size(images=9, kernel=6, channels=5, batch=7)


@dataclass(frozen=True)
class Style:
    """Scale and memory layout that the arrays of a case share.

    Attributes
    ----------
    dtype : {"float64", "float32"}
    scale : str
        A key of `SCALES`.
    layout : {"C", "F", "reversed", "read-only"}
        Order of the elements in memory, with negative strides if reversed.
    """

    dtype: str
    scale: str
    layout: str


# each takes whole numbers, fractions from 0 to 1, and the indices along the first and last axes
SCALES = {
    "whole": lambda whole, part, first, last: whole,
    "fractions": lambda whole, part, first, last: whole + part,
    "large": lambda whole, part, first, last: 1000 * (whole + part),
    "tiny": lambda whole, part, first, last: (whole + part) / 1000,
    "offset": lambda whole, part, first, last: 10_000 + whole + part,
    "shifted": lambda whole, part, first, last: 1000 + whole,
    "rows apart": lambda whole, part, first, last: whole + part + 1000 * (1 - first % 3),
    "classes apart": lambda whole, part, first, last: whole + part - 1000 * (last % 3),
    "very negative": lambda whole, part, first, last: -1 - abs(whole + part),
}
LARGEST = {"float32": 3e37, "float64": 1e300}  # of the very negative values


@st.composite
def styles(draw: Any, *scales: str) -> Style:
    """Draw a style with one of these scales; the first is the simplest."""
    return Style(
        draw(st.sampled_from(["float64", "float32"])),
        draw(st.sampled_from(scales)),
        draw(st.sampled_from(LAYOUTS)),
    )


def values(draw: Any, style: Style, *shape: int, scale: str = "") -> np.ndarray:
    """Draw an array of 0, 1, -1, 2, -2, 3, -3 at the scale of the style; values shrink towards 0.

    One string of bytes makes a draw cheap. Which byte an element takes depends on its index alone,
    so an element keeps its value when the shape shrinks.
    """
    indices = np.indices(shape, sparse=True)
    index = sum(step * i for step, i in zip(STEPS, indices, strict=False))
    numbers = np.frombuffer(draw(drawn), np.uint8)[index % BYTES]
    part = (index * GOLDEN + numbers * GOLDEN**2) % 1
    numbers = numbers % 7
    whole = np.where(numbers % 2, numbers // 2 + 1, 0.0 - numbers // 2)
    scale = scale or style.scale
    a = SCALES[scale](whole, part, indices[0], indices[-1])
    if scale == "very negative":
        a = a * LARGEST[style.dtype]
    return arranged(np.broadcast_to(a, shape).astype(style.dtype), style.layout)


def arranged(a: np.ndarray, layout: str) -> np.ndarray:
    """The same values in another order in memory."""
    if layout == "F":
        return np.asfortranarray(a)
    if layout == "reversed":
        return np.flip(np.flip(a).copy())
    a = np.ascontiguousarray(a)
    a.flags.writeable = layout != "read-only"
    return a


def to(draw: Any, largest: int) -> int:
    """Draw a whole number from 1 to `largest`."""
    return int(draw(st.integers(1, largest)))


# ----------------------------------------------------------------------------------------- windows


@st.composite
def windows(draw: Any, size: Size, pooling: bool = False) -> tuple[int, ...]:
    """H, W, KH, KW, stride, pad of a window that fits.

    For pooling it is square and never lies in the padding alone.
    """
    KH = to(draw, size.kernel)
    stride = to(draw, min(size.kernel, 4))
    KW = KH if pooling else to(draw, size.kernel)
    pad = draw(st.integers(0, KH // 2 if pooling else min(size.images // 2, 3)))
    H = draw(st.integers(max(1, KH - 2 * pad), max(size.images, KH)))
    W = draw(st.integers(max(1, KW - 2 * pad), max(size.images, KW)))
    return H, W, KH, KW, stride, pad


@st.composite
def im2col_cases(draw: Any, size: Size) -> Case:
    """Arguments of im2col."""
    H, W, KH, KW, stride, pad = draw(windows(size))
    style = draw(styles("whole", "fractions", "large"))
    x = values(draw, style, to(draw, size.batch), H, W, to(draw, size.channels))
    return {"x": x, "KH": KH, "KW": KW, "stride": stride, "pad": pad}


@st.composite
def col2im_cases(draw: Any, size: Size) -> Case:
    """Arguments of col2im."""
    case = draw(im2col_cases(size))
    x = case["x"]
    _, H, W, _ = x.shape
    style = Style(x.dtype.name, draw(st.sampled_from(["whole", "fractions"])), _layout(draw))
    cols = values(draw, style, *numpy_ops.im2col(**case).shape)
    return {"cols": cols, "H": H, "W": W, "stride": case["stride"], "pad": case["pad"]}


def _layout(draw: Any) -> str:
    return str(draw(st.sampled_from(LAYOUTS)))


@st.composite
def convolution_cases(draw: Any, size: Size) -> Case:
    """Arguments of conv2d_forward."""
    H, W, KH, KW, stride, pad = draw(windows(size))
    N = to(draw, size.batch)
    C = to(draw, size.channels)
    K = to(draw, size.channels)
    style = draw(styles("whole", "fractions", "large"))
    x = values(draw, style, N, H, W, C)
    w = values(draw, style, KH, KW, C, K)
    return {"x": x, "w": w, "stride": stride, "pad": pad}


@st.composite
def max_pool_cases(draw: Any, size: Size) -> Case:
    """Arguments of max_pool_forward; many values are equal."""
    if size.is_large:  # so that winner indices exceed 255
        size = replace(size, images=20, kernel=18, channels=2, batch=2)
    H, W, KH, _, stride, pad = draw(windows(size, pooling=True))
    style = draw(styles("whole", "fractions", "very negative"))
    x = values(draw, style, to(draw, size.batch), H, W, to(draw, size.channels))
    return {"x": x, "size": KH, "stride": stride, "pad": pad}


# ----------------------------------------------------------------- layers without windows, the loss


@st.composite
def images(draw: Any, size: Size, style: Style, ranks: tuple[int, ...] = (4,)) -> np.ndarray:
    """An x of shape (N, ..., C)."""
    rank = draw(st.sampled_from(ranks))
    middle = [to(draw, size.images) for _ in range(rank - 2)]
    ends = [to(draw, max(size.images, size.batch)), to(draw, size.channels)][2 - min(rank, 2) :]
    return values(draw, style, *ends[:1], *middle, *ends[1:])


@st.composite
def relu_cases(draw: Any, size: Size) -> Case:
    """Arguments of relu_forward."""
    style = draw(styles("whole", "fractions", "large", "tiny"))
    return {"x": draw(images(size, style, ranks=(2, 1, 3, 4)))}


@st.composite
def average_cases(draw: Any, size: Size) -> Case:
    """Arguments of global_avg_pool_forward."""
    style = draw(styles("whole", "fractions", "large", "offset"))
    return {"x": draw(images(size, style))}


@st.composite
def batch_norm_cases(draw: Any, size: Size, inference: bool = False) -> Case:
    """Arguments of batchnorm_forward, or of batchnorm_inference."""
    style = draw(styles("whole", "fractions", "offset", "tiny"))
    x = draw(images(size, style, ranks=(2, 4, 3)))
    C = x.shape[-1]
    scale = "whole" if style.scale == "whole" else "fractions"
    case = {"x": x}
    for name in ("gamma", "beta", "mean", "var") if inference else ("gamma", "beta"):
        case[name] = values(draw, style, C, scale=style.scale if name == "mean" else scale)
    if inference:
        case["var"] = arranged(abs(case["var"]), style.layout)
    return case | {"eps": draw(st.sampled_from([1.0, 0.25, 0.01, 1e-5]))}


@st.composite
def linear_cases(draw: Any, size: Size) -> Case:
    """Arguments of linear_forward."""
    N = to(draw, max(size.images, size.batch))
    C = to(draw, size.channels)
    K = to(draw, size.channels)
    style = draw(styles("whole", "fractions", "large"))
    x = values(draw, style, N, C)
    w = values(draw, style, C, K)
    return {"x": x, "w": w, "b": values(draw, style, K)}


@st.composite
def cross_entropy_cases(draw: Any, size: Size) -> Case:
    """Arguments of softmax_cross_entropy; some logits are large, and some far from others."""
    N = to(draw, max(size.images, size.batch))
    K = to(draw, 12 if size.is_large else size.images)
    style = draw(styles("whole", "fractions", "shifted", "rows apart", "classes apart"))
    labels = draw(st.lists(st.integers(0, K - 1), min_size=N, max_size=N))
    return {"logits": values(draw, style, N, K), "labels": np.array(labels)}


@st.composite
def forward_backward_cases(draw: Any, op: str, inputs: st.SearchStrategy[Case]) -> Case:
    """Arguments of a forward, and a gradient for its backward."""
    case = draw(inputs)
    y = getattr(get_ops("numpy"), f"{op}_forward")(**case)[0]
    style = Style(
        y.dtype.name, draw(st.sampled_from(["whole", "fractions", "tiny"])), _layout(draw)
    )
    return case | {"dy": values(draw, style, *y.shape)}


# ------------------------------------------------------------------------- blocks and the optimiser


@st.composite
def residual_block_cases(draw: Any, size: Size) -> Case:
    """A residual block whose body is one convolution, with each kind of shortcut."""
    C = to(draw, size.channels)
    N = 1 + to(draw, size.batch - 1)  # batch norm in option B needs two values per channel
    H = 2 * to(draw, 3 if size.is_large else 1)
    option = draw(st.sampled_from(["A", "B"]))
    grows = draw(st.booleans())
    style = draw(styles("whole", "fractions"))
    K, stride = (2 * C, 2) if grows else (C, 1)
    x = values(draw, style, N, H, H, C)
    w = values(draw, style, 1, 1, C, K)
    dy = values(draw, style, N, H // stride, H // stride, K)
    return {"x": x, "w": w, "stride": stride, "option": option, "dy": dy}


@st.composite
def sgd_cases(draw: Any, size: Size) -> Case:
    """Some parameters of different shapes, and the gradients of a few steps."""
    style = draw(styles("whole", "fractions", "tiny"))
    live = replace(style, layout="F" if style.layout == "F" else "C")  # changed in place
    names = ["w", "b", "gamma"][: to(draw, 3)]
    shapes = {
        name: [to(draw, size.images) for _ in range(to(draw, 4 if size.is_large else 2))]
        for name in names
    }
    order = names[::-1] if draw(st.booleans()) else names
    rates = st.sampled_from([0.0, 0.5, 0.25, 0.9])
    return {
        "parameters": {name: values(draw, live, *shapes[name]) for name in names},
        "gradients": [
            {name: values(draw, style, *shapes[name]) for name in order} for _ in range(to(draw, 3))
        ],
        "momentum": draw(rates),
        "weight_decay": draw(rates),
        "lr": draw(st.sampled_from([1.0, 0.5, 0.1])),
    }


@st.composite
def schedule_cases(draw: Any, size: Size) -> Case:
    """Arguments of step_schedule."""
    last, most = (64_000, 8) if size.is_large else (9, 3)
    milestones = sorted(draw(st.lists(st.integers(0, last), max_size=most, unique=True)))
    iterations = st.integers(0, last + 1)
    if milestones:
        iterations |= st.sampled_from([*milestones, max(0, milestones[-1] - 1), last + 1])
    lr = draw(st.sampled_from([1.0, 0.1, 0.25]))
    return {"lr": lr, "milestones": milestones, "iteration": draw(iterations)}
