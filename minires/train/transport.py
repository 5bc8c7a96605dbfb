"""How ranks exchange bytes: within one process, over pipes, and over MPI.

A rank is one of the processes that train a network together, numbered from 0. A transport only
carries bytes; nothing is added up on the way, so the result does not depend on who computed it.

A rank that has ended is noticed at once, and one that is stopped or hangs after a while
(`Patience`).
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from minires.errors import InputError
from minires.train.patience import LOOK_SECONDS, Patience

BUSY_LOOKS = 1000  # of a rank that waits for a message of MPI, before it sleeps between looks
PAUSE_SECONDS = 2e-5  # between two later looks
SOME = -1  # number of a rank that is not known
# set by the launchers of MPICH, Open MPI, and those that speak PMIx
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE")
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")


class LostRankError(InputError):
    """A rank has ended or hangs, so no message of it will arrive.

    Attributes
    ----------
    rank : int
        Its number.
    how : str
        How it was lost.
    saved : bool
        Whether the run has a checkpoint.
    """

    def __init__(self, rank: int, size: int, how: str = "has ended without a word") -> None:
        super().__init__(rank, size, how)
        self.rank = rank
        self.size = size
        self.how = how
        self.saved = True

    def __str__(self) -> str:
        name = "one rank" if self.rank == SOME else f"rank {self.rank}"
        advice = "there is no checkpoint yet: the same command starts the run again"
        if self.saved:
            advice = "give the command again, with any number of ranks, to resume from the last "
            advice += "checkpoint"
        return f"{name} of {self.size} {self.how}, so training stops; {advice}"


class SilentRankError(LostRankError):
    """A rank is there, and has sent nothing for too long."""

    def __init__(self, rank: int, size: int, seconds: float) -> None:
        why = "it is stopped, hangs, or is much slower than this one"
        super().__init__(rank, size, f"has been silent for {seconds:.0f} s ({why})")


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
            If another rank has ended; a `SilentRankError` if it hangs.
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
        self._patience = Patience(rank)

    def gather(self, message: bytes) -> Sequence[bytes]:
        """Exchange messages through rank 0, see `Transport`."""
        with self._patience.exchange():
            for connection in self._connections:
                _limit_silence(connection, self._patience.seconds)
            return self._gather(message)

    def _gather(self, message: bytes) -> Sequence[bytes]:
        if self.rank:
            self._send(0, message)
            return [self._receive(0) for _ in range(self.size)]
        try:
            messages = [message, *(self._receive(rank) for rank in range(1, self.size))]
            for rank in range(1, self.size):
                for part in messages:
                    self._send(rank, part)
        except LostRankError as e:
            self._dismiss(e.rank)
            raise
        return messages

    def _dismiss(self, lost: int) -> None:
        """Send an empty message to the ranks that are left, so that they end without a word."""
        for rank in range(1, self.size):
            if rank != lost:
                with contextlib.suppress(LostRankError):
                    self._send(rank, b"")

    def _connection(self, rank: int) -> Connection:
        return self._connections[0 if self.rank else rank - 1]

    def _send(self, rank: int, message: bytes) -> None:
        try:
            self._connection(rank).send_bytes(message)
        except BlockingIOError as e:
            raise self._silent(rank) from e
        except OSError as e:
            raise LostRankError(rank, self.size) from e

    def _receive(self, rank: int) -> bytes:
        connection = self._connection(rank)
        look = min(LOOK_SECONDS, self._patience.seconds)
        try:
            if not self._patience.lasts(lambda: connection.poll(look)):
                raise self._silent(rank)
            message = connection.recv_bytes()
        except BlockingIOError as e:
            raise self._silent(rank) from e
        except (EOFError, OSError) as e:
            raise LostRankError(rank, self.size) from e
        if not message:
            raise DismissedError("rank 0 has ended the training")
        return message

    def _silent(self, rank: int) -> SilentRankError:
        return SilentRankError(rank, self.size, self._patience.seconds)

    def close(self, clean: bool) -> None:
        """Close the connections; a rank that waits for a message then learns that none comes."""
        for connection in self._connections:
            connection.close()


def _limit_silence(connection: Connection, seconds: float) -> None:
    """Limit how long a message that has begun may stand still, where pipes are sockets."""
    limit = struct.pack("ll", int(seconds), int(1e6 * (seconds % 1)))
    with (
        contextlib.suppress(OSError),
        socket.socket(fileno=os.dup(connection.fileno())) as end,
    ):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


class Mpi:
    """All processes that one `mpiexec` has started.

    If one of them is killed, `mpiexec` ends the others. MPI waits in a loop that never sleeps, so
    several ranks on one core would take turns in waiting; here a rank that waits gives its core
    away.
    """

    def __init__(self) -> None:
        self._mpi: Any = importlib.import_module("mpi4py.MPI")
        self._world = self._mpi.COMM_WORLD
        self.rank = self._world.Get_rank()
        self.size = self._world.Get_size()
        self._patience = Patience(self.rank)

    def gather(self, message: bytes) -> Sequence[bytes]:
        """Exchange messages by MPI_Iallgatherv, see `Transport`.

        MPI does not say which rank hangs, and cannot go on without it: all ranks are ended here.
        """
        with self._patience.exchange():
            sizes = np.empty(self.size, np.int64)
            mine = np.array([len(message)], np.int64)
            self._wait_for(self._world.Iallgather(mine, sizes))
            ends = np.cumsum(sizes)
            joined = np.empty(int(ends[-1]), np.uint8)
            counts = (sizes.tolist(), (ends - sizes).tolist())
            own = [np.frombuffer(message, np.uint8), self._mpi.BYTE]
            self._wait_for(self._world.Iallgatherv(own, [joined, counts, self._mpi.BYTE]))
        return [part.tobytes() for part in np.split(joined, ends[:-1])]

    def _wait_for(self, request: Any) -> None:
        looks = itertools.count()

        def arrived() -> bool:
            if request.Test():
                return True
            time.sleep(0 if next(looks) < BUSY_LOOKS else PAUSE_SECONDS)
            return False

        if not self._patience.lasts(arrived):
            words = f"error: {SilentRankError(SOME, self.size, self._patience.seconds)}"
            print(words, file=sys.__stderr__, flush=True)
            self._world.Abort(2)

    def close(self, clean: bool) -> None:
        """End all ranks if this one cannot go on."""
        if not clean:
            self._world.Abort(1)


def launched_rank() -> int:
    """The number that the launcher has given this process, read without MPI; 0 without one."""
    numbers = (os.environ.get(name, "") for name in RANKS)
    return next((int(number) for number in numbers if number.isdecimal()), 0)


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
