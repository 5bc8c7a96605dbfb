"""Commands about trained weights: weights inspect, weights convert, evaluate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minires.cli import names, normalising
from minires.cli.options import (
    BatchOption,
    Command,
    DataOption,
    DatasetOption,
    JsonOption,
    NetArgument,
    Output,
    QuietOption,
    choose,
    compile_kernels,
    expanded,
    load,
    out_option,
    path_option,
)
from minires.cli.views import ScalesOption, TenCropOption, several_views
from minires.errors import InputError

if TYPE_CHECKING:
    from minires.data import Dataset
    from minires.nets.network import Network

ROWS = 12  # arrays that `weights inspect` shows at the top, and at the end

weights_app = typer.Typer(
    help="Look at files of weights, and convert them.\n\n"
    "Example: minires weights inspect resnet20.th",
    short_help="Look at files of weights, and convert them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
FileArgument = Annotated[
    Path,
    typer.Argument(
        help="A file of weights: safetensors, or .pth, .th, .pt of PyTorch.",
        metavar="FILE",
        parser=expanded,
    ),
]
ZerosOption = Annotated[
    str | None,
    typer.Option(
        help="end or both: where option A of FILE has its zeros [default: recognised].",
        metavar="SIDE",
        show_default=False,
    ),
]
NormaliseOption = Annotated[
    str | None,
    typer.Option(
        help="imagenet, per-pixel-mean, per-channel-mean [default: the file's].",
        metavar="HOW",
        show_default=False,
    ),
]
StyleOption = Annotated[
    str,
    typer.Option("--names", help="minires, torchvision, timm, huggingface.", metavar="NAMES"),
]
ToOption = Annotated[
    str | None,
    typer.Option(
        help="safetensors, torch, onnx [default: as --out ends].",
        metavar="KIND",
        show_default=False,
    ),
]
SizeOption = Annotated[
    int | None, typer.Option(help="Rows and columns of a picture.", metavar="N", min=1)
]
LabelsOption = Annotated[Path | None, path_option("Table of class names: folder, space, name.")]
FigureOption = Annotated[
    Path | None, out_option("Draw the confusion matrix into FILE: .png, .svg or .pdf.")
]


@weights_app.command("inspect", cls=Command, short_help="Arrays of a file, and its network.")
def inspect_command(file: FileArgument, json_output: JsonOption = False) -> None:
    """Show the arrays of a file of weights, and which network it seems to be of.

    Nothing in the file is run, and PyTorch is not needed.

    Example: minires weights inspect resnet20.th
    """
    from minires.exchange.guess import guess
    from minires.exchange.weights import read
    from minires.text import columns, shown

    output = Output(json_output)
    found = read(file)
    nets = guess(found.state, found.metadata.get("net"))
    rows = [
        (shown(name, 60), "x".join(map(str, a.shape)), str(a.dtype))
        for name, a in found.state.items()
    ]
    hidden = len(rows) - 2 * ROWS
    cut = [("...", f"{hidden} more", ""), *rows[-ROWS:]] if hidden > 0 else rows[ROWS:]
    output.show(columns([("array", "shape", "type"), *rows[:ROWS], *cut], left=3))
    numbers = sum(a.size for a in found.state.values())
    output.show(f"{found.kind}: {len(rows)} arrays, {numbers:,} numbers")
    output.show(f"network: {' or '.join(nets) or 'none that is known here'}")
    for key, value in found.metadata.items():
        output.show(f"{key}: {shown(value, 100)}")
    arrays = {name: {"shape": a.shape, "dtype": str(a.dtype)} for name, a in found.state.items()}
    output.result(
        {"file": file, "kind": found.kind, "nets": nets, **found.metadata, "arrays": arrays}
    )


@weights_app.command("convert", cls=Command, short_help="Write weights for another library.")
def convert(
    file: FileArgument,
    net: Annotated[str, typer.Option(help="The network of FILE.", metavar="NET")],
    out: Annotated[Path, out_option("The file to write.")],
    style: StyleOption = "minires",
    to: ToOption = None,
    zeros: ZerosOption = None,
    normalise: NormaliseOption = None,
    image_size: SizeOption = None,
    labels: LabelsOption = None,
    json_output: JsonOption = False,
) -> None:
    """Write weights under other names, or in another format. The names in FILE are recognised.

    --normalise, --image-size and --labels are stored in the new file. Without --normalise, it says
    what FILE says, or the library of its names. ONNX expects images (N, H, W, 3), normalised.

    Example: minires weights convert a.th --net resnet20 --out a.safetensors
    """
    from minires.exchange import weights
    from minires.runs.files import write_whole

    output = Output(json_output)
    if out.resolve() == file.resolve():
        raise InputError(f"--out names FILE itself, {file}; choose another file")
    to = weights.kind_of(out, to)
    facts = names.network(net)
    network, about = weights.load_network(facts.name, file, zeros=zeros)
    about |= normalising.stored(about, normalise, file)
    about |= _pictures(image_size, labels, network.facts.classes)
    content = weights.to_bytes(network, style, to, about)
    if to == "onnx":
        _check_onnx(network, content, about["normalise"], output)
    write_whole(out, content)
    size = out.stat().st_size
    output.show(
        f"{out}: {network.title}, {to}, {size / 1e6:.2f} MB (names in FILE: {about['names']})"
    )
    if about["normalise"] == normalising.UNKNOWN:
        output.say(
            f"note: FILE does not say how its pictures are normalised, so {out} does not either; "
            "store it with --normalise"
        )
    described = {"out": out, "net": network.title, "names": style, "to": to, "bytes": size}
    output.result(described | {"normalise": about["normalise"]})


def _check_onnx(network: Network, content: bytes, normalise: str | None, output: Output) -> None:
    """Run a model in onnxruntime, and say what it expects."""
    from minires.exchange import onnx

    difference = onnx.check_in_onnxruntime(network, content)
    shape = ", ".join(map(str, network.facts.input_shape))
    how = normalising.in_words(normalise or normalising.OF_FILE)
    output.show(f"input: images (N, {shape}), normalised by: {how}")
    output.show(f"onnxruntime: logits within {difference:.1e} of the largest logit of ours")


def _pictures(image_size: int | None, labels: Path | None, classes: int) -> dict[str, Any]:
    """Metadata from the options about the size and the classes of pictures."""
    from minires.data.image_folder import read_table

    found: dict[str, Any] = {}
    if image_size:
        found["image_size"] = image_size
    if labels:
        found["labels"] = list(read_table(labels).values())
        if len(found["labels"]) != classes:
            raise InputError(
                f"--labels {labels} names {len(found['labels'])} classes, expected {classes}; give "
                "the table of its classes, in their order"
            )
    return found


def evaluate(
    net: Annotated[str, NetArgument],
    weights: Annotated[Path, path_option("A file of weights.")],
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    normalise: NormaliseOption = None,
    zeros: ZerosOption = None,
    ten_crop: TenCropOption = False,
    scales: ScalesOption = None,
    batch_size: BatchOption = 128,
    out: FigureOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Evaluate trained weights on test images: top-1 and top-5 error, by class, and confusion.

    Pictures are normalised as --normalise or the file says, else as the library of its names does;
    weights of your own runs may say nothing. Other files need --normalise.

    Example: minires evaluate resnet20 --weights a.th --normalise imagenet
    """
    from minires.exchange.weights import load_network
    from minires.lab import evaluation, plots
    from minires.train import progress

    output = Output(json_output)
    facts = names.network(net)
    if out:
        plots.check_format(out)
    network, about = load_network(facts.name, weights, zeros=zeros)
    backend = choose(None, output.say)
    how = normalising.chosen(about, normalise, weights)
    found = load(dataset, data, output.say)
    found = _prepared(found, how, about, normalise is None, network.facts.input_shape[0])
    _check_classes(weights, network, found)
    compile_kernels(backend, quiet)
    network.astype("float32").use(backend)
    predict = several_views(network, found, ten_crop, scales)
    predict = predict or evaluation.single_view(network, found.prepare)
    with progress.bar(len(found.test), quiet) as bar:
        result = evaluation.evaluate(predict, found.test, found.classes, batch_size, bar.update)
    output.show(evaluation.table(result))
    output.show(f"normalised by: {normalising.in_words(_how(found))}")
    if out:
        plots.save(evaluation.confusion_figure(result, network.title, found.name), out)
        output.show(f"confusion matrix: {out}")
    described = {"net": network.title, "weights": weights, "data": found.name, "figure": out}
    output.result(described | {"normalise": _how(found)} | result.to_json())


def _check_classes(weights: Path, net: Network, found: Dataset) -> None:
    if net.facts.classes != len(found.classes):
        raise InputError(
            f"{weights} has {net.facts.classes} classes, {found.name} has {len(found.classes)}; "
            "give the data that it was trained for, or fine-tune it with: "
            f"minires train {net.title} --weights FILE --head new"
        )


def _prepared(found: Dataset, how: str, about: dict[str, Any], as_said: bool, side: int) -> Dataset:
    """The data, prepared as the network needs its pictures; those on disk get its `side`.

    A mean per channel is that of the file, if it has one and is not overruled (`as_said`). A mean
    per pixel is the data's, which is finer than the average in the file.
    """
    from minires.data.normalisation import Normalisation

    on_disk = getattr(found.prepare, "on_disk", False)
    given = as_said and about["mean"] and how in (normalising.OF_FILE, "per-channel-mean")
    name = _usual(found) if how == normalising.OF_FILE else how
    sized = found.with_images(about["image_size"] or (side if on_disk else None), name)
    if not given or not hasattr(sized.prepare, "with_normalisation"):
        return sized
    numbers = Normalisation.of(tuple(about["mean"]), tuple(about["deviation"] or (1, 1, 1)))
    return replace(sized, prepare=sized.prepare.with_normalisation(numbers))


def _how(found: Dataset) -> str:
    """The normalisation as it is reported: its name, or "file" for numbers of the weights' file."""
    return (
        normalising.OF_FILE if getattr(found.prepare, "given", None) is not None else _usual(found)
    )


def _usual(found: Dataset) -> str:
    from minires.data.normalisation import NORMALISE

    return getattr(found.prepare, "normalise", NORMALISE[0])
