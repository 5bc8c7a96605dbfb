"""The op of `numpy_alexnet` that is faster when compiled; the others are NumPy's in both backends.

Results equal those of NumPy to rounding.
"""

from __future__ import annotations

from minires.ops import numpy_alexnet
from minires.ops.compiled import response_norm
from minires.ops.compiled.fallback import numpy_if_complex

__all__ = ["local_response_norm_backward", "local_response_norm_forward"]

local_response_norm_forward = numpy_if_complex(numpy_alexnet.local_response_norm_forward)(
    response_norm.local_response_norm_forward
)
local_response_norm_backward = numpy_if_complex(numpy_alexnet.local_response_norm_backward)(
    response_norm.local_response_norm_backward
)
