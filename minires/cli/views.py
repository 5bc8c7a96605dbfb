"""Options of minires evaluate that show a network several views of a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minires.errors import InputError
from minires.runs.options import integers

if TYPE_CHECKING:
    import numpy as np

    from minires.data import Dataset
    from minires.nets.network import Network

TenCropOption = Annotated[
    bool, typer.Option("--ten-crop", help="Average over corners and centre, mirrored, too.")
]
ScalesOption = Annotated[
    str | None,
    typer.Option(
        help="Average over whole pictures with these shorter sides, as 224,256.", metavar="N,N"
    ),
]


def several_views(
    net: Network, data: Dataset, ten_crop: bool, scales: str | None
) -> Callable[[Any], np.ndarray] | None:
    """Return the test that was asked for, see `minires.train.testing`; None for the usual one.

    Raises
    ------
    InputError
        If both are asked for, the sides make no sense, the data are not a folder of pictures, or
        the network needs images of one size.
    """
    if not ten_crop and scales is None:
        return None
    from minires.data.scale_and_crop import ScaleAndCrop
    from minires.layers import GlobalAvgPool
    from minires.train import testing

    if ten_crop and scales is not None:
        raise InputError("--ten-crop and --scales are two tests; give one of them")
    if not isinstance(data.prepare, ScaleAndCrop):
        raise InputError(
            f"--ten-crop and --scales are for pictures in a folder, not for {data.name}; drop them"
        )
    normalisation = data.prepare.normalisation
    if scales is None:
        return testing.ten_crop(net, normalisation, data.prepare.image_size)
    sides = integers(scales)
    if not sides or not all(32 <= side <= 2048 for side in sides):
        raise InputError(f"--scales expects sides from 32 to 2048 pixels, got {scales!r}")
    if not any(isinstance(layer, GlobalAvgPool) for layer in net.children.values()):
        raise InputError(
            f"--scales needs a network that averages its last map, and {net.title} does not; "
            "use --ten-crop"
        )
    return testing.at_scales(net, normalisation, sides)
