"""Residual networks in NumPy, to be read: every layer with its forward and its backward.

The letters, used everywhere: `N, H, W, C` batch, rows, columns, channels; `KH, KW, K` kernel rows,
kernel columns, filters; `OH, OW` output rows and columns. `x, y` are input and output, `dx` is the
gradient of the loss with respect to `x`, and so for every other name. `w, b, gamma, beta` are
parameters; `mean, var, eps` statistics. Activations are NHWC, filters (KH, KW, C, K).
"""

from minires import gradcheck
from minires.errors import InputError
from minires.nets.resnet import imagenet_plain, imagenet_resnet, plain, resnet
from minires.ops import get_ops

__version__ = "0.2.0"
__all__ = [
    "InputError",
    "__version__",
    "get_ops",
    "gradcheck",
    "imagenet_plain",
    "imagenet_resnet",
    "plain",
    "resnet",
]
