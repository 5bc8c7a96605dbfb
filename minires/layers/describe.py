"""Effect of a layer on one image: shapes, multiply-adds, and the receptive field of an output.

Every layer has `describe(x_shape)`, which works without running the layer. Audits, FLOP counts and
progress estimates are built from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from minires.errors import InputError
from minires.ops.geometry import Pair, output_size

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Description:
    """Effect of a layer on an image of a given shape.

    Attributes
    ----------
    kind : str
        Such as "conv 3x3 /2", as an audit prints it.
    y_shape : tuple of int
        Output shape of one image: (OH, OW, K), or (K,) after pooling over the whole image.
    macs : int
        Multiply-adds of the forward pass for one image, 0 where they are not worth counting.
    window : pair of int, or None
        Rows and columns of the input that one output sees; None if it sees everything.
    stride : pair of int
        Rows and columns of the input from one output to the next.
    parts : dict of str to Description
        For a container: its children, in network order and under their names.
    side : bool
        True for a path beside the main one, such as a shortcut. It is counted, but receptive fields
        and depth follow the main path.
    listed : bool
        False for layers without parameters that keep the shape, such as ReLU: an audit omits them.
    """

    kind: str
    y_shape: Shape
    macs: int = 0
    window: Pair | None = (1, 1)
    stride: Pair = (1, 1)
    parts: dict[str, Description] = field(default_factory=dict)
    side: bool = False
    listed: bool = True


def in_sequence(kind: str, x_shape: Shape, /, **parts: Description) -> Description:
    """Describe a container whose parts follow one another; those with `side` are only counted.

    Parameters
    ----------
    kind : str
        What the container is, such as "residual block".
    x_shape : tuple of int
        Shape of its input; without parts, its output has the same shape.
    **parts : Description
        In network order.

    Returns
    -------
    whole : Description
    """
    y_shape = x_shape
    window: Pair | None = (1, 1)
    stride = (1, 1)
    for part in parts.values():
        if not part.side:
            y_shape = part.y_shape
            window, stride = see_through(window, stride, part)
    return Description(kind, y_shape, sum(p.macs for p in parts.values()), window, stride, parts)


def see_through(window: Pair | None, stride: Pair, after: Description) -> tuple[Pair | None, Pair]:
    """Window and stride of a layer on top of layers that have `window` and `stride`.

    window + (window' - 1) * stride, and stride * stride', along rows and along columns.
    """
    rows, columns = stride
    both = (rows * after.stride[0], columns * after.stride[1])
    if window is None or after.window is None:
        return None, both
    wider = (
        window[0] + (after.window[0] - 1) * rows,
        window[1] + (after.window[1] - 1) * columns,
    )
    return wider, both


def image(name: str, x_shape: Shape, C: int | None = None) -> Pair:
    """Return H and W of an image (H, W, C).

    Raises
    ------
    InputError
        If x_shape is not that of an image, or its number of channels is not C. The message says
        that the layer `name` expected one.
    """
    if len(x_shape) != 3 or C not in (None, x_shape[2]):
        raise InputError(f"{name}: expected an image (H, W, {C or 'C'}), got {x_shape}")
    return x_shape[0], x_shape[1]


def windows(kind: str, name: str, x_shape: Shape, size: int, stride: int, pad: int) -> Description:
    """Describe a pooling: size x size windows of every channel of an image.

    Parameters
    ----------
    kind : str
        What an audit prints, such as "max pool".
    name : str
        The layer, for a message about an `x_shape` that is not an image.
    x_shape : tuple of int
    size, stride, pad : int

    Returns
    -------
    Description
    """
    H, W = image(name, x_shape)
    OH = output_size(H, size, stride, pad)
    OW = output_size(W, size, stride, pad)
    return Description(kind, (OH, OW, x_shape[2]), window=(size, size), stride=(stride, stride))


def step(stride: Pair) -> str:
    """Stride as it is shown in `kind`: " /2", or " /2x1" for rows and columns, or ""."""
    rows, columns = stride
    if rows != columns:
        return f" /{rows}x{columns}"
    return f" /{rows}" if rows > 1 else ""
