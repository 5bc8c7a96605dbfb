"""How cases, arrays and exceptions are printed for a student."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

SHOWN = 40  # largest array that is printed, in elements
LARGEST = 2000  # largest array of a case that is printed


def show_case(case: dict[str, Any]) -> str:
    """Print a case as Python that can be pasted."""
    return "\n".join(f"    {name} = {_value(value)}" for name, value in case.items())


def _value(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{_array(value)}  # shape {value.shape}{_layout(value)}"
    return _inside(value)


def _inside(value: Any) -> str:
    """Print a value that stands inside a list or a dict."""
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_inside, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_inside(item)}" for key, item in value.items()) + "}"
    return repr(value)


def _array(a: np.ndarray) -> str:
    is_default = a.dtype.kind == "i" or a.dtype == np.float64
    order = ', order="F"' if _is_fortran(a) else ""
    dtype = "" if is_default else f", np.{a.dtype}"
    text = f"np.array({array_text(a)}{dtype}{order})"
    if a.ndim == 0 or not any(step < 0 for step in a.strides):
        return text
    return f"np.flip(np.flip({text}).copy())"


def _is_fortran(a: np.ndarray) -> bool:
    return a.flags.f_contiguous and not a.flags.c_contiguous


def _layout(a: np.ndarray) -> str:
    if not a.flags.writeable:
        return ", read-only"
    if any(step < 0 for step in a.strides):
        return ", negative strides"
    return ", in Fortran order" if _is_fortran(a) else ""


def array_text(a: np.ndarray) -> str:
    """Print an array on one line, whatever print options are set."""
    digits = 17 if a.dtype == np.float64 else 9
    with np.printoptions(formatter=None, floatmode="maxprec", sign="-", legacy=False):
        text = np.array2string(
            a, separator=",", max_line_width=10**9, threshold=LARGEST, precision=digits
        )
    text = re.sub(r",\s*", ", ", re.sub(r"\[\s+", "[", text))
    return re.sub(r"\b(nan|inf)\b", r"np.\1", text)


def show_both(expected: np.ndarray, got: np.ndarray) -> str:
    """Print two arrays one above the other; "" if they are large, or only numbers."""
    if max(expected.size, got.size) > SHOWN or expected.ndim == 0:
        return ""
    with np.printoptions(formatter=None, precision=6, floatmode="maxprec", sign="-", legacy=False):
        lines = [
            re.sub(r"\s+", " ", np.array2string(a, separator=", ", max_line_width=10**9))
            for a in (expected, got)
        ]
    return f"    expected {lines[0]}\n    got      {lines[1]}"


def plain(text: str) -> str:
    """The text with control characters written out; line breaks and tabs stay."""
    return "".join(
        c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def raised_text(raised: dict[str, Any]) -> str:
    """An exception, and the line of the student's file that it passed if there is one."""
    error = plain(f"{raised['type']}: {raised['text']}").rstrip(": ")
    if raised["memory"]:
        error += "\nIt needs more memory than a solution may use."
    if not raised["line"]:
        return error
    return f"  line {raised['line']}: {plain(raised['source'])}\n{error}"
