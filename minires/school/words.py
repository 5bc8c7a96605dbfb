"""How cases, arrays and exceptions are printed for a student."""

from __future__ import annotations

import inspect
import re
import traceback
from typing import Any

import numpy as np

SHOWN = 40  # largest array that is printed, in elements


def show_case(case: dict[str, Any]) -> str:
    """Print a case as Python that can be pasted."""
    return "\n".join(f"    {name} = {_value(value)}" for name, value in case.items())


def _value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        is_default = value.dtype.kind == "i" or value.dtype == np.float64
        dtype = "" if is_default else f", np.{value.dtype}"
        return f"np.array({array_text(value)}{dtype})  # shape {value.shape}"
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return f"[{', '.join(f'np.array({array_text(a)})' for a in value)}]"
    return value


def array_text(a: np.ndarray) -> str:
    """Print an array on one line."""
    text = np.array2string(a, separator=",", max_line_width=10**6, threshold=10**6, precision=6)
    return re.sub(r",\s*", ", ", re.sub(r"\[\s+", "[", text))


def show_both(expected: np.ndarray, got: np.ndarray) -> str:
    """Print two arrays one above the other; "" if they are large, or only numbers."""
    if max(expected.size, got.size) > SHOWN or expected.ndim == 0:
        return ""
    return f"    expected {array_text(expected)}\n    got      {array_text(got)}"


def file_of(function: Any) -> str:
    """File that a function was written in; "" for functions without Python code."""
    return getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", "")


def error_with_line(e: BaseException, filename: str) -> str:
    """Exception, and the last line of the student's file that it passed; "" if it passed none."""
    if isinstance(e, SyntaxError) and e.filename == filename:
        return f"  line {e.lineno}: {(e.text or '').strip()}\n{type(e).__name__}: {e.msg}"
    passed = [
        frame for frame in traceback.extract_tb(e.__traceback__) if frame.filename == filename
    ]
    if not passed:
        return ""
    return f"  line {passed[-1].lineno}: {passed[-1].line}\n{type(e).__name__}: {e}"
