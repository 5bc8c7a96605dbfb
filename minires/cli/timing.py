"""The kinds of timing that `minires bench` does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from minires.bench import against as checkouts
from minires.bench import nets as networks
from minires.bench import ops as single_ops
from minires.bench import ranks as sharing
from minires.bench import scaling
from minires.bench import shapes as conv_shapes
from minires.cli.names import network
from minires.cli.options import Output
from minires.errors import InputError, quoted
from minires.lab import rank_plot
from minires.ops import BACKENDS, default_backend
from minires.runs import files
from minires.runs.provenance import provenance
from minires.text import counted, did_you_mean


@dataclass
class Timing:
    """Networks to time, for how long, and where the output goes."""

    names: list[str]
    rounds: int | None
    batch_size: int | None
    quiet: bool
    output: Output

    def check(self, file: Path | None, ops: bool) -> None:
        """Refuse what cannot be timed or written, before any process is started."""
        for name in self.names:
            network(name)
        if not ops:
            networks.timed_nets(self.names, self.rounds or 1, self.batch_size)
        if file:
            files.make_folder(file.parent)

    def check_figure(self, figure: Path | None, ranks: str) -> None:
        """Refuse a figure of something else than ranks, or in a format that is not known."""
        if figure and not ranks:
            raise InputError(
                f"--figure draws the numbers of --ranks, got --figure {quoted(figure)} without "
                "them; add --ranks 1,2"
            )
        if figure:
            rank_plot.check_format(figure)

    def nets(self, backend: str | None, peer: str, profile: bool = False) -> dict[str, Any]:
        """Time training and inference of networks, by backend, and by peers."""
        contenders = self._contenders(backend, peer)
        peak = networks.matrix_product_gflops()
        found = networks.bench(
            self.names, contenders, self.rounds or 15, self.batch_size, self._tell, profile
        )
        tables = f"{networks.table(found, peak)}\n\n{networks.kinds_table(found)}"
        self.output.show(f"{self._machine()}\nNumPy's matrix product: {peak:.0f} GFLOP/s\n{tables}")
        return networks.record(found, peak)

    def threads(self, backend: str | None, peer: str, listed: str) -> dict[str, Any]:
        """Time networks with several numbers of threads."""
        counts = scaling.counts(listed)
        contenders = self._contenders(backend, peer)
        rounds = self.rounds or 15
        found = scaling.bench(self.names, contenders, counts, rounds, self.batch_size, self._tell)
        self.output.show(f"{self._machine()}\n{scaling.table(found)}")
        return scaling.record(found)

    def ranks(self, backend: str | None, listed: str, figure: Path | None) -> dict[str, Any]:
        """Time training steps of the first network that several ranks share, and draw them."""
        size, net = self.batch_size or 128, network(self.names[0]).name
        counts = sharing.counts(listed, size)
        backend = default_backend() if backend is None else _words(backend, BACKENDS)[0]
        rows = sharing.bench(net, backend, counts, self.rounds or 15, size, self._tell)
        self.output.show(f"{self._machine()}\n{sharing.table(net, rows, size)}")
        if figure:
            rank_plot.save(self._figure(net, rows, size), figure)
            self.output.show(f"\nFigure: {quoted(figure)}")
        return sharing.record(net, rows, size)

    def _figure(self, net: str, rows: list[sharing.Row], size: int) -> rank_plot.Figure:
        """The figure of several ranks."""
        measured = [row for row in rows if not row.prediction]
        here = provenance()["machine"]
        caption = (
            f"Measured: the median of {counted(self.rounds or 15, 'step')}, batch {size}, "
            f"{here['processor']}, {counted(here['cores'], 'core')}. Predicted: seconds of a step "
            "= those of one rank / R + bytes that pass rank 0 / bandwidth. The prediction assumes "
            "that machines are joined by pipes as fast as those on this machine"
        )
        predicted = sharing.speeds(sharing.curve(net, rows, size), size)
        return rank_plot.speeds(net, sharing.speeds(measured, size), predicted, caption)

    def shapes(self, name: str) -> dict[str, Any]:
        """Time every distinct convolution of a network, and PyTorch's."""
        network(name)
        (facts,) = networks.timed_nets([name], self.rounds or 1, self.batch_size)
        size = self.batch_size or networks.default_batch(facts)
        seconds = conv_shapes.bench(name, self.rounds or 9, size, self._tell)
        self.output.show(f"{self._machine()}\n{conv_shapes.table(name, seconds)}")
        found = conv_shapes.record(seconds, name)
        return {"provenance": provenance(), "batch_size": size, **found}

    def _contenders(self, backend: str | None, peer: str) -> list[str]:
        if backend is None:
            backends = list(BACKENDS) if default_backend() == "numba" else ["numpy"]
            if len(backends) < len(BACKENDS):
                self.output.say("Numba is not installed, so only NumPy is timed: pip install numba")
        else:
            backends = _words(backend, BACKENDS)
        return networks.contenders(backends, _words(peer, networks.PEERS))

    def ops(self) -> dict[str, Any]:
        """Time single ops, and PyTorch's."""
        size = 128 if self.batch_size is None else self.batch_size
        seconds = single_ops.bench(self.rounds or 15, size, self._tell)
        self.output.show(f"{self._machine()}\n{single_ops.table(seconds)}")
        return {"provenance": provenance(), "batch_size": size, "seconds": seconds}

    def against(self, path: Path, backend: str | None) -> dict[str, Any]:
        """Time this checkout of minires and another one."""
        backend = default_backend() if backend is None else backend
        if backend not in BACKENDS:
            known = ", ".join(BACKENDS)
            raise InputError(f"--against times one backend of {known}, got --backend {backend!r}")
        other = checkouts.checkout(path)
        rounds = self.rounds or 10
        size = self.batch_size or 128
        found = checkouts.compare(other, self.names, backend, rounds, size, self._tell)
        self.output.show(f"{self._machine()}; {backend} backend; rounds: {rounds}")
        self.output.show(
            f"{checkouts.this_checkout()} and other: {other}; above 1, this one is faster"
        )
        self.output.show(checkouts.table(found))
        settings = {"backend": backend, "rounds": rounds, "batch_size": size}
        return checkouts.record(found, other, **settings)

    def write(self, record: dict[str, Any], file: Path | None) -> None:
        """Write what was measured to a file, or as JSON to standard output."""
        if file:
            files.write_whole(file, json.dumps(record, indent=1).encode())
        self.output.result(record)

    def _tell(self, line: str) -> None:
        if not self.quiet:
            typer.echo(line, err=True)

    def _machine(self) -> str:
        here = provenance()
        versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
        machine = f"{here['machine']['processor']}, {here['machine']['cores']} cores"
        size = f"batch {self.batch_size}" if self.batch_size else "batch 128, of large images 8"
        return f"{machine}; {versions}; {size}"


def _words(listed: str, known: Any) -> list[str]:
    """Names that are separated by commas; none for an empty text."""
    words = [word.strip() for word in listed.split(",") if word.strip()]
    for word in words:
        if word not in known:
            raise InputError(
                f"expected names of {', '.join(known)}, got {word!r}{did_you_mean(word, known)}"
            )
    return words
