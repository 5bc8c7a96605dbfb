"""Residual networks in NumPy, to be read: every layer with its forward and its backward, trained on CIFAR-10.

Words, declared once. `N, H, W, C` batch, rows, columns, channels; `KH, KW, K` kernel rows, columns, filters;
`OH, OW` output size. `x, y` input and output; `dx` the gradient of the loss with respect to `x`, always `d` + name.
`w, b, gamma, beta` parameters; `mean, var, eps` statistics. Activations are NHWC, filters (KH, KW, C, K).
"""

from minires import gradcheck
from minires.errors import InputError
from minires.nets.resnet import imagenet_resnet, plain, resnet
from minires.ops import get_ops

__version__ = "0.1.0"
__all__ = [
    "InputError",
    "__version__",
    "get_ops",
    "gradcheck",
    "imagenet_resnet",
    "plain",
    "resnet",
]
