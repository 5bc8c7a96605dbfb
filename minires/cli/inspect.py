"""Commands that look at networks and machines: info, bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from minires import data as images
from minires.bench import against as checkouts
from minires.bench import nets as networks
from minires.bench import ops as single_ops
from minires.cli.options import BatchOption, choose, say
from minires.errors import InputError
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
        machine = here["machine"]
        say(f"{machine['processor']}, {machine['cores']} cores, {machine['system']}")
        say(f"backends: {', '.join(BACKENDS)}; the default is {default_backend()}")
        say(f"CIFAR-10: {images.find_cifar10() or 'not found; get it with: minires data cifar10'}")


def bench(
    nets: Annotated[str, typer.Option(help="Names, separated by commas.")] = "resnet20,resnet56",
    backend: Annotated[
        str | None, typer.Option(help="Backends, separated by commas [default: all].")
    ] = None,
    peer: Annotated[
        str, typer.Option(help="torch, torch.compile, or both with a comma; needs PyTorch.")
    ] = "",
    rounds: Annotated[
        int | None,
        typer.Option(help="Rounds for each contender, in turn [default: 15; --against: 10]."),
    ] = None,
    batch_size: BatchOption = 128,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured to this file.")
    ] = None,
    ops: Annotated[
        bool, typer.Option("--ops", help="Time each op's passes against PyTorch's instead.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(help="Time this checkout of minires against the one in this folder instead."),
    ] = None,
) -> None:
    """Time training steps and inference: backends, PyTorch, or another checkout of minires.

    Example: minires bench --nets resnet20 --peer torch --json bench.json

    Example: minires bench --against ../minires-1.0
    """
    if against and (ops or peer):
        raise InputError("expected --against alone, got --ops or --peer too; give two commands")
    if json_file:
        files.make_folder(json_file.parent)
    names = nets.split(",")
    if ops:
        record = _bench_ops(rounds, batch_size)
    elif against:
        record = _bench_against(against, names, backend, rounds, batch_size)
    else:
        backends = ",".join(BACKENDS) if backend is None else backend
        chosen = networks.contenders(_words(backends), _words(peer))
        record = _bench_nets(names, chosen, rounds, batch_size)
    if json_file:
        files.write_whole(json_file, json.dumps(record, indent=1).encode())


def _words(listed: str) -> list[str]:
    return [word for word in listed.split(",") if word]


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _machine(batch_size: int) -> str:
    here = provenance()
    versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
    machine = f"{here['machine']['processor']}, {here['machine']['cores']} cores"
    return f"{machine}; {versions}; batch {batch_size}"


def _bench_ops(rounds: int | None, batch_size: int) -> dict[str, Any]:
    seconds = single_ops.bench(15 if rounds is None else rounds, batch_size, _tell)
    say(f"{_machine(batch_size)}\n{single_ops.table(seconds)}")
    return {"provenance": provenance(), "batch_size": batch_size, "seconds": seconds}


def _bench_nets(
    nets: list[str], contenders: list[str], rounds: int | None, batch_size: int
) -> dict[str, Any]:
    peak = networks.matrix_product_gflops()
    found = networks.bench(nets, contenders, 15 if rounds is None else rounds, batch_size, _tell)
    tables = f"{networks.table(found, peak)}\n\n{networks.kinds_table(found)}"
    say(f"{_machine(batch_size)}\nNumPy's matrix product: {peak:.0f} GFLOP/s\n{tables}")
    return networks.record(found, peak)


def _bench_against(
    path: Path, nets: list[str], backend: str | None, rounds: int | None, batch_size: int
) -> dict[str, Any]:
    other = checkouts.checkout(path)
    backend = default_backend() if backend is None else backend
    if backend not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise InputError(f"--against times one backend of {known}, got --backend {backend!r}")
    rounds = 10 if rounds is None else rounds
    found = checkouts.compare(other, nets, backend, rounds, batch_size, _tell)
    say(f"{_machine(batch_size)}; {backend} backend; rounds: {rounds}")
    say(f"{checkouts.this_checkout()} and other: {other}; above 1, this one is faster")
    say(checkouts.table(found))
    settings = {"backend": backend, "rounds": rounds, "batch_size": batch_size}
    return checkouts.record(found, other, **settings)
