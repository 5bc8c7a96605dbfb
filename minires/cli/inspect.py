"""Commands that look at networks and machines: info, bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from minires import data as images
from minires.cli.options import BatchOption, choose, say
from minires.nets import audit
from minires.nets.registry import by_name
from minires.ops import BACKENDS, default_backend
from minires.runs import files
from minires.runs.provenance import provenance


def info(
    net: Annotated[
        str | None, typer.Argument(help="Such as resnet56, plain20, imagenet-resnet50.")
    ] = None,
    warmup: Annotated[
        bool, typer.Option("--warmup", help="Compile the kernels of the compiled backend now.")
    ] = False,
) -> None:
    """Audit a network layer by layer; without a name, say what is installed and found here.

    Example: minires info resnet56
    """
    if warmup:
        say(f"{choose(None)} backend: ready")
    if net:
        say(audit.table(by_name(net)))
    elif not warmup:
        here = provenance()
        say("  ".join(f"{name} {number}" for name, number in here["versions"].items()))
        say(
            f"{here['machine']['processor']}, {here['machine']['cores']} cores, {here['machine']['system']}"
        )
        say(f"backends: {', '.join(BACKENDS)}; the default is {default_backend()}")
        say(f"CIFAR-10: {images.find_cifar10() or 'not found; get it with: minires data cifar10'}")


def bench(
    nets: Annotated[str, typer.Option(help="Names, separated by commas.")] = "resnet20,resnet56",
    backend: Annotated[str, typer.Option(help="Backends, separated by commas.")] = ",".join(
        BACKENDS
    ),
    peer: Annotated[
        str, typer.Option(help="torch, torch.compile, or both with a comma; needs PyTorch.")
    ] = "",
    rounds: Annotated[int, typer.Option(help="Rounds for each contender, in turn.")] = 15,
    batch_size: BatchOption = 128,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured to this file.")
    ] = None,
    ops: Annotated[
        bool, typer.Option("--ops", help="Time each op's passes against PyTorch's instead.")
    ] = False,
) -> None:
    """Time training steps and inference, backend against backend and against PyTorch.

    Example: minires bench --nets resnet20 --peer torch --json bench.json
    """
    if json_file:
        files.make_folder(json_file.parent)
    here = provenance()
    versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
    machine = f"{here['machine']['processor']}, {here['machine']['cores']} cores; {versions}; batch {batch_size}"
    if ops:
        seconds = ops.bench(rounds, batch_size, lambda line: typer.echo(line, err=True))
        say(f"{machine}\n{ops.table(seconds)}")
        record = {"provenance": here, "batch_size": batch_size, "seconds": seconds}
    else:
        names = nets.contenders(
            [b for b in backend.split(",") if b], [p for p in peer.split(",") if p]
        )
        peak = nets.matrix_product_gflops()
        found = nets.bench(
            nets.split(","), names, rounds, batch_size, lambda line: typer.echo(line, err=True)
        )
        tables = f"{nets.table(found, peak)}\n\n{nets.kinds_table(found)}"
        say(f"{machine}\nNumPy's matrix product: {peak:.0f} GFLOP/s\n{tables}")
        record = nets.record(found, peak)
    if json_file:
        files.write_whole(json_file, json.dumps(record, indent=1).encode())
