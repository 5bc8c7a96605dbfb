"""How ranks exchange bytes: within one process, over pipes, and over MPI.

A rank is one of the processes that train a network together, numbered from 0. A transport only
carries bytes; nothing is added up on the way, so the result does not depend on who computed it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from minires.errors import InputError

# set by the launchers of MPICH, Open MPI, and those that speak PMIx
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE")


class LostRankError(InputError):
    """A rank has ended, so no message of it will arrive; `rank` is its number."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(
            f"rank {rank} of {size} has ended without a word, so training stops; give the command "
            "again, with any number of ranks, to resume from the last checkpoint"
        )
        self.rank = rank


class DismissedError(InputError):
    """Rank 0 has ended the training, and says why."""


class Transport(Protocol):
    """The interface of a transport: two methods, called by all ranks in the same order.

    Attributes
    ----------
    rank, size : int
        Number of this rank, and the number of ranks.
    """

    rank: int
    size: int

    def gather(self, message: bytes) -> Sequence[bytes]:
        """Exchange messages: every rank gets those of all ranks, in the order of the ranks.

        Raises
        ------
        LostRankError
            If another rank has ended.
        DismissedError
            If rank 0 has noticed that before.
        """

    def close(self, clean: bool) -> None:
        """End the exchange; if it is not a `clean` end, end the other ranks, too."""


class Alone:
    """The transport of a process that trains alone."""

    rank = 0
    size = 1

    def gather(self, message: bytes) -> Sequence[bytes]:
        """Return the own message."""
        return [message]

    def close(self, clean: bool) -> None:
        """Nothing is open."""


class Pipes:
    """Connections between rank 0 and every other rank, on one machine.

    Parameters
    ----------
    rank, size : int
    connections : list of Connection
        For rank 0, those to ranks 1, 2, ... in this order; for another rank, the one to rank 0.
    """

    def __init__(self, rank: int, size: int, connections: Sequence[Connection]) -> None:
        self.rank = rank
        self.size = size
        self._connections = list(connections)

    def gather(self, message: bytes) -> Sequence[bytes]:
        """Exchange messages through rank 0, see `Transport`."""
        if self.rank:
            self._send(0, message)
            return [self._receive(0) for _ in range(self.size)]
        try:
            messages = [message, *(self._receive(rank) for rank in range(1, self.size))]
            for rank in range(1, self.size):
                for part in messages:
                    self._send(rank, part)
        except LostRankError:
            self._dismiss()
            raise
        return messages

    def _dismiss(self) -> None:
        """Send an empty message to the ranks that are left, so that they end without a word."""
        for rank in range(1, self.size):
            with contextlib.suppress(LostRankError):
                self._send(rank, b"")

    def _connection(self, rank: int) -> Connection:
        return self._connections[0 if self.rank else rank - 1]

    def _send(self, rank: int, message: bytes) -> None:
        try:
            self._connection(rank).send_bytes(message)
        except OSError as e:
            raise LostRankError(rank, self.size) from e

    def _receive(self, rank: int) -> bytes:
        try:
            message = self._connection(rank).recv_bytes()
        except (EOFError, OSError) as e:
            raise LostRankError(rank, self.size) from e
        if not message:
            raise DismissedError("rank 0 has ended the training")
        return message

    def close(self, clean: bool) -> None:
        """Close the connections; a rank that waits for a message then learns that none comes."""
        for connection in self._connections:
            connection.close()


class Mpi:
    """All processes that one `mpiexec` has started.

    If one of them is killed, `mpiexec` ends the others.
    """

    def __init__(self) -> None:
        self._mpi: Any = importlib.import_module("mpi4py.MPI")
        self._world = self._mpi.COMM_WORLD
        self.rank = self._world.Get_rank()
        self.size = self._world.Get_size()

    def gather(self, message: bytes) -> Sequence[bytes]:
        """Exchange messages by MPI_Allgatherv, see `Transport`."""
        sizes = np.empty(self.size, np.int64)
        self._world.Allgather(np.array([len(message)], np.int64), sizes)
        ends = np.cumsum(sizes)
        joined = np.empty(int(ends[-1]), np.uint8)
        counts = (sizes.tolist(), (ends - sizes).tolist())
        own = np.frombuffer(message, np.uint8)
        self._world.Allgatherv([own, self._mpi.BYTE], [joined, counts, self._mpi.BYTE])
        return [part.tobytes() for part in np.split(joined, ends[:-1])]

    def close(self, clean: bool) -> None:
        """End all ranks if this one cannot go on."""
        if not clean:
            self._world.Abort(1)


def launched() -> Transport:
    """The transport of the launcher that has started this process: MPI's, or `Alone`.

    Raises
    ------
    InputError
        If `mpiexec` has started several processes, and mpi4py is missing or of another MPI.
    """
    sizes = [int(size) for name in SIZES if (size := os.environ.get(name, "")).isdecimal()]
    if max(sizes, default=1) == 1:
        return Alone()
    try:
        transport = Mpi()
    except (ImportError, RuntimeError) as e:
        raise InputError(
            f"{max(sizes)} processes of mpiexec need mpi4py, which cannot be imported ({e}); "
            'install it with: pip install "minires[mpi]", or use --ranks on one machine'
        ) from e
    if transport.size != max(sizes):
        raise InputError(
            f"mpiexec has started {max(sizes)} processes, and mpi4py sees {transport.size}: it "
            "belongs to another MPI; use the mpiexec that is installed with it"
        )
    return transport
