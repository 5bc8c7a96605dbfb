"""Commands that look at networks and machines: info, bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minires.cli import names, results
from minires.cli.options import (
    DataOption,
    JsonOption,
    NetArgument,
    Output,
    QuietOption,
    choose,
    compile_kernels,
    load,
    new_file,
    out_option,
    path_option,
)
from minires.errors import InputError
from minires.nets import registry
from minires.nets.network import Facts
from minires.ops import default_backend, describe_threads, usable_backends, why_not_numba
from minires.runs.provenance import provenance

if TYPE_CHECKING:
    from minires.data import Dataset

ShownDataOption = Annotated[
    str | None,
    typer.Option(
        help="Show these images, or the net for them.",
        metavar="NAME",
        show_default=False,
        callback=names.one_of("--dataset", names.data_sets),
        autocompletion=names.completing(names.data_sets),
    ),
]


def info(
    net: Annotated[str | None, NetArgument] = None,
    dataset: ShownDataOption = None,
    data: DataOption = None,
    warmup: Annotated[
        bool, typer.Option("--warmup", help="Compile the kernels of the compiled backend now.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Audit a network layer by layer; without NET, say what is installed and found here.

    Example: minires info resnet56
    """
    facts = names.network(net) if net else None
    output = Output(json_output)
    result: dict[str, Any] = {}
    if dataset or data:
        found = load(dataset or "cifar10", data, output.say)
        result["dataset"] = _images(found, output)
        if facts:
            facts = registry.fit(facts, found.input_shape, len(found.classes) or facts.classes)
    if warmup:
        backend = choose(None, output.say)
        compile_kernels(backend)
        output.say(f"{backend} backend: ready")
        result["ready"] = backend
    if facts:
        result |= _audit(facts, output)
    elif not result:
        result |= _machine_and_data(output)
    output.result(result)


def _images(found: Dataset, output: Output) -> dict[str, Any]:
    """Say how many images there are, and of which shape."""
    sizes = {"train": len(found.train), "test": len(found.test)}
    shape = {"input_shape": found.input_shape, "classes": len(found.classes)}
    output.show(
        f"{sizes['train']:,} training and {sizes['test']:,} test images, "
        f"{'x'.join(map(str, found.input_shape))}, {shape['classes']} classes"
    )
    return {"name": found.name, "source": found.source, **shape, **sizes}


def _audit(facts: Facts, output: Output) -> dict[str, Any]:
    """Show the audit of a network."""
    from minires.nets.audit import table

    net = registry.make(facts)
    output.show(table(net))
    return results.audit(net)


def _machine_and_data(output: Output) -> dict[str, Any]:
    """Say which versions, processor, backends and images are here."""
    from minires import data as images

    here = provenance()
    machine = here["machine"]
    folder = images.find_cifar10()
    output.show("  ".join(f"{name} {number}" for name, number in here["versions"].items()))
    output.show(f"{machine['processor']}, {machine['cores']} cores, {machine['system']}")
    backends = usable_backends()
    output.show(f"backends: {', '.join(backends)}; the default is {default_backend()}")
    reason = why_not_numba()
    if reason:
        output.show(f"no compiled backend: {reason}")
    threads = describe_threads()
    if threads:
        output.show(f"threads of the compiled backend: {threads}")
    output.show(f"CIFAR-10: {folder or 'not found; get it with: minires data cifar10'}")
    return {
        **here,
        "backends": backends,
        "default_backend": default_backend(),
        "no_compiled_backend": reason,
        "threads": threads,
        "cifar10": folder,
    }


BackendsOption = Annotated[
    str | None,
    typer.Option(help="numpy, numba or both [default: all installed].", metavar="NAMES"),
]
PeersOption = Annotated[
    str, typer.Option(help="torch, torch.compile, jax, onnxruntime; if installed.", metavar="NAMES")
]
RoundsOption = Annotated[
    int | None,
    typer.Option(help="Rounds, in turn [default: 15; --against: 10].", metavar="N", min=1),
]
SizeOption = Annotated[
    int | None,
    typer.Option(help="Images per step; 1: inference only [128, ImageNet 8].", metavar="N"),
]
ThreadsOption = Annotated[
    str, typer.Option(help="Compare numbers of threads, such as 1,2,4.", metavar="NUMBERS")
]
ManyRanksOption = Annotated[
    str, typer.Option(help="Compare numbers of ranks, such as 1,2,4.", metavar="NUMBERS")
]
FigureOption = Annotated[Path | None, out_option("Draw --ranks to FILE: .png, .svg or .pdf.")]
ProfileOption = Annotated[
    bool, typer.Option("--profile", help="Find the share of a step outside kernels.")
]
ShapesOption = Annotated[
    str, typer.Option(help="Time each convolution of NET instead.", metavar="NET")
]
OpsOption = Annotated[
    bool, typer.Option("--ops", help="Time single ops against PyTorch's instead.")
]
AgainstOption = Annotated[
    Path | None, path_option("Time this checkout against the one in DIR.", "DIR")
]


def bench(
    nets: Annotated[str, typer.Option(help="Networks.", metavar="NAMES")] = "resnet20,resnet56",
    backend: BackendsOption = None,
    peer: PeersOption = "",
    rounds: RoundsOption = None,
    batch_size: SizeOption = None,
    threads: ThreadsOption = "",
    ranks: ManyRanksOption = "",
    figure: FigureOption = None,
    profile: ProfileOption = False,
    shapes: ShapesOption = "",
    ops: OpsOption = False,
    against: AgainstOption = None,
    out: Annotated[Path | None, out_option("Also write the result as JSON.", new_file)] = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Time training and inference: backends, PyTorch, or another checkout of minires.

    Several names are separated by commas.

    Example: minires bench --nets resnet20 --peer torch

    Example: minires bench --nets imagenet-resnet18 --batch-size 1 --peer onnxruntime

    Example: minires bench --against ../minires-1.0
    """
    from minires.cli import timing

    special = {"--against": against, "--ops": ops, "--shapes": shapes, "--threads": threads}
    _check_alone(special | {"--ranks": ranks}, peer)
    output = Output(json_output)
    task = timing.Timing(names.listed("--nets", nets), rounds, batch_size, quiet, output)
    task.check(out, ops)
    task.check_figure(figure, ranks)
    if ops:
        record = task.ops()
    elif against:
        record = task.against(against, backend)
    elif shapes:
        record = task.shapes(shapes)
    elif threads:
        record = task.threads(backend, peer, threads)
    elif ranks:
        record = task.ranks(backend, ranks, figure)
    else:
        record = task.nets(backend, peer, profile)
    task.write(record, out)


def _check_alone(special: dict[str, Any], peer: str) -> None:
    """Refuse several kinds of timing in one command."""
    given = [name for name, value in special.items() if value]
    given += ["--peer"] * bool(peer and given and given != ["--threads"])
    if len(given) > 1:
        raise InputError(f"expected one of {', '.join(given)}; give several commands")
