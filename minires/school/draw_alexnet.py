"""Draw small problems for the exercises of AlexNet: see `minires.school.draw`."""

from __future__ import annotations

from typing import Any

from minires.school.draw import Case, Size, arranged, images, st, styles, to, values


@st.composite
def response_norm_cases(draw: Any, size: Size) -> Case:
    """Arguments of local_response_norm_forward; alpha is large enough for channels to compete."""
    n = draw(st.sampled_from([3, 1, 5] if size.is_large else [3, 1]))
    style = draw(styles("whole", "fractions", "tiny"))
    middle = [to(draw, size.images) for _ in range(draw(st.integers(0, 2)))]
    x = values(draw, style, to(draw, size.batch), *middle, n - 1 + to(draw, size.channels))
    return {
        "x": x,
        "n": n,
        "k": draw(st.sampled_from([1.0, 2.0])),
        "alpha": draw(st.sampled_from([1.0, 0.5, 0.25])),
        "beta": draw(st.sampled_from([1.0, 0.75, 0.5])),
    }


@st.composite
def mask_cases(draw: Any, size: Size) -> Case:
    """Arguments of dropout_mask."""
    style = draw(styles("fractions", "whole"))
    u = abs(draw(images(size, style, ranks=(2, 1, 4, 3)))) % 1
    return {"u": arranged(u, style.layout), "rate": draw(st.sampled_from([0.5, 0.25, 0.75, 0.0]))}


@st.composite
def dropout_cases(draw: Any, size: Size) -> Case:
    """Arguments of dropout_forward."""
    style = draw(styles("whole", "fractions", "large", "tiny"))
    x = draw(images(size, style, ranks=(2, 1, 3, 4)))
    scale = x.dtype.type(draw(st.sampled_from([2.0, 4.0])))
    mask = (values(draw, style, *x.shape, scale="whole") > 0) * scale
    return {"x": x, "mask": arranged(mask, style.layout)}


@st.composite
def tanh_cases(draw: Any, size: Size) -> Case:
    """Arguments of tanh_forward."""
    style = draw(styles("whole", "fractions", "large", "tiny"))
    return {"x": draw(images(size, style, ranks=(2, 1, 3, 4)))}
