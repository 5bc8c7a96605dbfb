"""How the pictures of trained weights are normalised: the rule of every command with --weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from minires.cli import names
from minires.errors import InputError
from minires.text import shown

if TYPE_CHECKING:
    from minires.data.normalisation import Normalisation

# libraries whose weights for ImageNet expect its mean and deviation, unless the file says otherwise
IMAGENET_NAMES = ("torchvision", "timm", "huggingface")
OF_FILE = "file"  # the mean and the deviation that the file of weights holds
UNKNOWN = "unknown"  # what `weights convert` stores where nobody says it


def chosen(about: dict[str, Any], asked: str | None, path: Path) -> str:
    """How pictures are normalised: as asked, as the file says, or as its library does.

    A file under our own names that says nothing is of a run, and has the per-pixel mean.

    Parameters
    ----------
    about : dict
        What `load_network` says of the file.
    asked : str or None
        The option --normalise.
    path : Path
        The file, for the message.

    Returns
    -------
    how : str
        One of `minires.data.normalisation.NORMALISE`, or `OF_FILE`.

    Raises
    ------
    InputError
        If nothing says it, or the name is unknown.
    """
    from minires.data.normalisation import NORMALISE

    said = about.get("normalise")
    if asked is not None:
        return names.one_of("--normalise", NORMALISE)(asked)
    if said in NORMALISE:
        return str(said)
    if said not in (None, UNKNOWN):
        raise InputError(
            f"{shown(path)} says that its pictures are normalised by {shown(said, 60)!r}, which is "
            f"none of {', '.join(NORMALISE)}; give the right one with --normalise"
        )
    if about.get("mean"):
        return OF_FILE
    if about.get("names") in IMAGENET_NAMES and _is_for_imagenet(about["net"]):
        return "imagenet"
    if about.get("names") == "minires" and said is None:
        return NORMALISE[0]
    raise InputError(
        f"{shown(path)} does not say how its pictures are normalised, and a wrong guess can cost "
        f"most of the accuracy; give --normalise {', '.join(NORMALISE[:-1])} or {NORMALISE[-1]}, "
        "as in its training"
    )


def _is_for_imagenet(net: str) -> bool:
    """Whether a network is made for ImageNet: libraries publish no weights of the others."""
    from minires.lab.recipes import IMAGENET_SIDE
    from minires.nets import registry

    return max(registry.facts(net).input_shape) >= IMAGENET_SIDE


def numbers(about: dict[str, Any], asked: str | None, path: Path) -> Normalisation:
    """The mean and the deviation that `chosen` names, where there are no training images.

    Raises
    ------
    InputError
        As `chosen`, or if the file has no mean where one of training images is asked for.
    """
    from minires.data.normalisation import Normalisation, imagenet_normalisation

    how = chosen(about, asked, path)
    if about.get("mean") and how in (OF_FILE, about.get("normalise")):
        return Normalisation.of(tuple(about["mean"]), tuple(about.get("deviation") or (1, 1, 1)))
    if how == "imagenet":
        return imagenet_normalisation()
    raise InputError(
        f"{shown(path)} does not say which mean to subtract from pictures; give --normalise "
        "imagenet for weights of torchvision, or export the weights of a run on pictures with: "
        "minires export"
    )


def in_words(how: str) -> str:
    """The normalisation as a result names it."""
    return "the mean and deviation in the file of weights" if how == OF_FILE else how


def stored(about: dict[str, Any], asked: str | None, path: Path) -> dict[str, Any]:
    """Metadata of a converted file of weights: "normalise", "mean" and "deviation"."""
    from minires.data import normalisation

    try:
        how = chosen(about, asked, path)
    except InputError:
        if asked is not None:
            raise
        return {"normalise": UNKNOWN}
    if how == "imagenet":
        mean, deviation = normalisation.IMAGENET_MEAN, normalisation.IMAGENET_DEVIATION
        return {"normalise": how, "mean": list(mean), "deviation": list(deviation)}
    if how in (OF_FILE, about.get("normalise")):
        return {key: about[key] for key in ("normalise", "mean", "deviation")}
    return {"normalise": how, "mean": None, "deviation": None}
