"""Load weights that were trained elsewhere, and write ours for others.

    net, about = load_network("imagenet-resnet50-torchvision", Path("resnet50.pth"))
    Path("resnet50.safetensors").write_bytes(to_bytes(net, "huggingface"))

Nothing in a file is executed, and PyTorch is not needed: see `pickles` and `torch_files`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as to_safetensors

from minires.errors import InputError
from minires.exchange import names, safetensors_files, torch_files
from minires.exchange.blank import blank
from minires.exchange.guess import guess, head, same_shape
from minires.exchange.option_a import zeros_to_the_end
from minires.exchange.safetensors_files import METADATA
from minires.layers.base import Rng
from minires.nets import registry
from minires.nets.network import Facts, Network
from minires.text import shown

Array = np.ndarray
__all__ = ["KINDS", "METADATA", "WeightFile", "kind_of", "load_network", "read", "to_bytes"]

KINDS = ("safetensors", "torch", "onnx")  # what can be written
ENDINGS = {f".{kind}": kind for kind in ("safetensors", "onnx")}  # by the end of a name
ENDINGS |= dict.fromkeys((".pth", ".pt", ".th", ".bin"), "torch")
ZEROS = ("end", "both")  # where option A has its zeros
# what a file may say about the pictures that its network needs, and the type of each
PICTURES: dict[str, type] = {
    "normalise": str,
    "mean": list,
    "deviation": list,
    "image_size": int,
    "labels": list,
}


EXPECTED = {
    "mean": "three numbers",
    "deviation": "three numbers",
    "image_size": "a number of pixels up to 4096",
    "labels": "a list of texts",
}


@dataclass(frozen=True)
class WeightFile:
    """The arrays of a file, as they are there, and what the file says about them.

    Attributes
    ----------
    path : Path
    kind : str
        "safetensors", "torch zip", "torch legacy" or "onnx".
    state : dict of str to ndarray
        Without prefixes that all names share, and without counters of batches.
    metadata : dict
        "net" and "zeros", where minires wrote the file, and `PICTURES`.
    """

    path: Path
    kind: str
    state: dict[str, Array] = field(repr=False)
    metadata: dict[str, Any]


# --------------------------------------------------------------------------------------- reading


def read(path: str | Path) -> WeightFile:
    """Read a file of weights: safetensors, or what `torch.save` wrote.

    Raises
    ------
    InputError
        If it is not such a file, is cut short, or asks for anything but tensors.
    """
    path = Path(path)
    name = shown(path)
    if not path.is_file():
        there = "a folder" if path.is_dir() else "nothing"
        raise InputError(f"{name}: expected a file of weights, found {there}; correct the path")
    try:
        with path.open("rb") as f:
            start = f.read(9)
        if start[8:9] == b"{":
            state, metadata = safetensors_files.read(path)
            kind = "safetensors"
        elif start[:2] == b"PK" or start[:1] == b"\x80":
            state, metadata, kind = torch_files.read(path)
        elif start[:1] == b"\x08":  # the first field of a model
            from minires.exchange import onnx

            state, metadata = onnx.read(path)
            kind = "onnx"
        else:
            raise InputError(
                f"{name} is not a file of weights: expected safetensors, a .pth, .th or .pt file "
                f"of PyTorch, or ONNX, got one that begins with {start[:4]!r}; give another file"
            )
    except InputError:
        raise
    except torch_files.RefusedError as e:
        raise InputError(
            f"{name} is refused, and nothing in it was run: expected tensors alone, found {e}; "
            "use weights from a source that you trust, saved with torch.save(model.state_dict())"
        ) from e
    except Exception as e:  # a damaged file can raise nearly anything
        reason = shown(e, 200) or type(e).__name__
        raise InputError(f"{name} cannot be read: {reason}; get the file again") from e
    return WeightFile(path, kind, names.without_prefix(state), _checked(path, metadata))


def _checked(path: Path, metadata: Any) -> dict[str, Any]:
    """Our metadata; keys of other versions are dropped."""
    known = {"net": str, "zeros": str, **PICTURES}
    given = metadata if isinstance(metadata, dict) else {}
    found = {key: v for key, v in given.items() if key in known and v is not None}
    for key, value in found.items():
        right = type(value) is known[key]
        if key in ("mean", "deviation"):
            right = right and len(value) == 3 and all(type(v) is float for v in value)
        if key == "labels":
            right = right and all(isinstance(v, str) for v in value)
        if key == "image_size":
            right = right and 1 <= value <= 4096
        if not right:
            raise InputError(
                f"{shown(path)}: its metadata says {key} = {shown(repr(value), 60)}, expected "
                f"{EXPECTED.get(key, 'a text')}; write the file again"
            )
    return found


# --------------------------------------------------------------------------------------- loading


def load_network(
    name: str,
    path: str | Path,
    classes: int | None = None,
    *,
    zeros: str | None = None,
    rng: Rng = 0,
) -> tuple[Network, dict[str, Any]]:
    """Build a network and load its weights from a file.

    Parameters
    ----------
    name : str
        Of the network, such as "resnet20". "imagenet-resnet50" strides in the first 1x1
        convolution of a bottleneck, "imagenet-resnet50-torchvision" in the 3x3.
    path : str or Path
        See `read`. The names in it are recognised.
    classes : int, optional
        By default the number of the file. With another one, the last layer is new.
    zeros : {"end", "both"}, optional
        Where option A of the file has its zeros; by default what the file says, else what its names
        tell, else "end".
    rng : Generator or seed
        Draws the weights of a new last layer.

    Returns
    -------
    net : Network
        In float32, or float64 if all weights of the file are.
    metadata : dict
        "kind", "names", "zeros", "net", "new_head" (bool), and `PICTURES`: "normalise", "mean",
        "deviation", "image_size", "labels"; None where the file says nothing.

    Raises
    ------
    InputError
        If the file cannot be read; if it belongs to another network: the message says to which, and
        the first names that differ; or if an array has integers, NaN, infinity or a negative
        variance.
    """
    file = read(path)
    facts = registry.facts(name)
    net, style = _net_of(facts, file)
    zeros = zeros or file.metadata.get("zeros") or ("both" if style == "akamaster" else "end")
    if zeros not in ZEROS:
        raise InputError(f"zeros must be one of {', '.join(ZEROS)}, got {shown(zeros)!r}")
    state = _state(net, style, file)
    if zeros == "both":
        state = zeros_to_the_end(net, state)
    about: dict[str, Any] = dict.fromkeys(PICTURES) | file.metadata
    about |= {"kind": file.kind, "names": style, "zeros": zeros, "net": facts.name}
    about["new_head"] = classes not in (None, net.facts.classes)
    if about["new_head"]:
        fitted = registry.fit(net.facts, net.facts.input_shape, classes or net.facts.classes)
        net, state = _new_head(fitted, state, rng)
        about["labels"] = None
    if all(a.dtype == np.float64 for a in file.state.values()):
        net.astype("float64")
    return net.load_state(state), about


def _net_of(facts: Facts, file: WeightFile) -> tuple[Network, str]:
    """The network with the number of classes that the file has, and the style of its names."""
    told = file.metadata.get("net")
    if told not in (None, facts.name):
        raise InputError(
            f"{shown(file.path)} holds weights of {shown(told, 60)}, as it says itself, got the "
            f"network {facts.name}; give {shown(told, 60)}"
        )
    size = file.metadata.get("image_size")
    shape = (size, size, facts.input_shape[2]) if size else facts.input_shape
    net = blank(registry.fit(facts, shape, facts.classes))
    style = names.recognise(net, file.state)
    classes = _classes(net, style, file)
    labels = file.metadata.get("labels")
    if labels is not None and len(labels) != classes:
        raise InputError(
            f"{shown(file.path)} names {len(labels)} labels for {classes} classes; write the file "
            "again with one label for each class"
        )
    if classes != facts.classes:
        net = blank(registry.fit(facts, shape, classes))
    return net, style


def _classes(net: Network, style: str, file: WeightFile) -> int:
    """The number of classes in the file: the length of the last bias."""
    last = list(net.children)[-1]
    entry = names.entries(net, style).get(f"{last}.b")
    bias = file.state.get(entry.name) if entry else None
    return len(bias) if bias is not None and bias.ndim == 1 and len(bias) else net.facts.classes


def _state(net: Network, style: str, file: WeightFile) -> dict[str, Array]:
    """The arrays of a file under our names and in our layout."""
    entries = names.entries(net, style)
    expected = {entry.name for entry in entries.values()}
    missing = [name for name in (e.name for e in entries.values()) if name not in file.state]
    unknown = [name for name in file.state if name not in expected]
    other = {
        entry.name: file.state[entry.name].shape
        for entry in entries.values()
        if entry.name in file.state and not same_shape(file.state[entry.name], entry)
    }
    if missing or unknown or other:
        raise InputError(_mismatch(net, file, missing, unknown, other))
    for name, entry in entries.items():
        _check_numbers(file.path, entry.name, file.state[entry.name], name)
    return {name: entry.load(file.state[entry.name]) for name, entry in entries.items()}


def _check_numbers(path: Path, there: str, a: Array, ours: str) -> None:
    """Refuse numbers that no trained network has."""
    if a.dtype.kind != "f":
        fault = f"{a.dtype} numbers, expected floating-point ones"
    elif not np.isfinite(a).all():
        bad = a.size - int(np.isfinite(a).sum())
        fault = f"{bad} of {a.size} numbers that are NaN or infinite"
    elif ours.endswith("running_var") and a.min(initial=0) < 0:
        fault = f"the variance {a.min():g}, which is negative"
    else:
        return
    raise InputError(
        f"{shown(path)}: {shown(there, 60)} holds {fault}; give weights of another checkpoint"
    )


def _mismatch(
    net: Network,
    file: WeightFile,
    missing: list[str],
    unknown: list[str],
    other: Mapping[str, tuple[int, ...]],
) -> str:
    """The message about weights of another network."""
    found = guess(file.state)
    seems = f"it seems to be of {' or '.join(found)}" if found else "it is of no network known here"
    differences = []
    if missing:
        differences.append(f"{len(missing)} arrays missing {missing[:3]}")
    if unknown:
        differences.append(f"{len(unknown)} unknown {[shown(n, 60) for n in unknown[:3]]}")
    if other:
        first, shape = next(iter(other.items()))
        differences.append(f"{len(other)} of another shape, such as {first} {shape}")
    advice = f"give {' or '.join(found) or 'the network that it was trained for'}"
    return (
        f"{shown(file.path)} does not hold the weights of {net.title}: {seems}; "
        f"{', '.join(differences)}; {advice}"
    )


def _new_head(facts: Facts, state: dict[str, Array], rng: Rng) -> tuple[Network, dict[str, Array]]:
    """A network with a new last layer, and the state with that layer's initial weights."""
    net = registry.make(facts, rng=rng)
    drawn = {name: a for name, a in net.state().items() if head(net, name)}
    return net, state | drawn


# --------------------------------------------------------------------------------------- writing


def kind_of(path: Path, asked: str | None) -> str:
    """The kind of file to write: the one asked for, else the one that its name ends with.

    Raises
    ------
    InputError
        If the kind is unknown, the name says nothing and none is asked for, or they differ.
    """
    ending = path.suffix.lower()
    if asked is not None and asked not in KINDS:
        raise InputError(f"--to must be one of {', '.join(KINDS)}, got {asked!r}")
    if asked is None and ending not in ENDINGS:
        raise InputError(
            f"{shown(path)}: expected a name that ends in {', '.join(ENDINGS)}; rename it, or say "
            f"what to write with --to {', '.join(KINDS[:-1])} or {KINDS[-1]}"
        )
    if asked is not None and ENDINGS.get(ending, asked) != asked:
        raise InputError(
            f"{shown(path)} is a name of {ENDINGS[ending]}, and --to asks for {asked}; drop --to, "
            "or rename the file"
        )
    return asked or ENDINGS[ending]


def to_bytes(
    net: Network,
    style: str = "minires",
    kind: str = "safetensors",
    pictures: Mapping[str, Any] | None = None,
) -> bytes:
    """The weights of a network as the content of a file.

    Parameters
    ----------
    net : Network
    style : {"minires", "torchvision", "timm", "huggingface"}
        The names, and the layout that belongs to them.
    kind : {"safetensors", "torch", "onnx"}
        "torch" is what `torch.load(..., weights_only=True)` reads. "onnx" is the whole network, see
        `minires.exchange.onnx`.
    pictures : dict, optional
        What the network needs of its pictures, see `PICTURES`; None is left out.

    Raises
    ------
    InputError
        If names or kind are unknown, or the network has no names in that style.
    """
    if kind not in KINDS:
        raise InputError(f"--to must be one of {', '.join(KINDS)}, got {kind!r}")
    metadata = {"net": net.facts.name, "zeros": "end"}
    metadata |= {key: v for key, v in (pictures or {}).items() if key in PICTURES and v is not None}
    if kind == "onnx":
        if style != "minires":
            raise InputError(f"ONNX holds the whole network under our names; drop --names {style}")
        from minires.exchange import onnx

        return onnx.to_bytes(net, metadata)
    state = names.exported(net, style)
    if kind == "torch":
        return torch_files.to_bytes(state, metadata)
    # "pt" tells Hugging Face that the layout is PyTorch's
    layout = {} if style == "minires" else {"format": "pt"}
    return to_safetensors(state, {METADATA: json.dumps(metadata), **layout})
