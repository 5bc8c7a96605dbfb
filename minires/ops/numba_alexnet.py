"""The op of `numpy_alexnet` that is faster when compiled; the others are NumPy's in both backends.

Results equal those of NumPy to rounding.
"""

from __future__ import annotations

import numpy as np

from minires.ops import numpy_alexnet
from minires.ops.compiled import response_norm
from minires.ops.compiled.fallback import numpy_if_complex
from minires.ops.geometry import Array, Cache

__all__ = ["local_response_norm_backward", "local_response_norm_forward"]

local_response_norm_forward = numpy_if_complex(numpy_alexnet.local_response_norm_forward)(
    response_norm.local_response_norm_forward
)


def local_response_norm_backward(dy: Array, cache: Cache) -> Array:
    """Read dy and x, write dx."""
    if any(np.iscomplexobj(a) for a in cache):
        return numpy_alexnet.local_response_norm_backward(dy, cache)
    return response_norm.local_response_norm_backward(dy, cache)
