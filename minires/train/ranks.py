"""The conversation of the ranks that train one network together, above any transport.

Every rank sends its messages in the same order. So a rank that fails can send its error in the
place of the next message, and all ranks end with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

from minires.errors import InputError
from minires.layers.base import Array
from minires.ops import threads_to_share, use_threads
from minires.runs.provenance import differing_versions, processor, processors_allowed, versions
from minires.train.stopping import Interrupted
from minires.train.transport import Alone, DismissedError, LostRankError, Mpi, Transport

VALUES = "values"  # name of the array that holds the JSON part of a message

Message = tuple[Any, dict[str, Array]]


class OtherRankError(InputError):
    """Another rank has failed; the message says which one, and why."""


def pack(values: Any, arrays: Mapping[str, Array]) -> bytes:
    """A message: JSON values, and arrays by name."""
    text = np.frombuffer(json.dumps(values).encode(), np.uint8)
    return to_safetensors({VALUES: text} | {f"/{name}": a for name, a in arrays.items()})


def unpack(message: bytes) -> Message:
    """Inverse of `pack`; nothing in a message is executed."""
    arrays = from_safetensors(message)
    values = json.loads(arrays.pop(VALUES).tobytes())
    return values, {name[1:]: a for name, a in arrays.items()}


class Ranks:
    """The ranks, seen from one of them.

    Parameters
    ----------
    transport : Transport
        By default, the process trains alone.

    Attributes
    ----------
    rank, size : int
        Number of this rank, and the number of ranks.
    exchanged : float
        Seconds that messages took, including the time in which this rank waited for others.
    """

    def __init__(self, transport: Transport | None = None) -> None:
        self.exchanged = 0.0
        self._transport = transport or Alone()
        self.rank = self._transport.rank
        self.size = self._transport.size

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes the run folder and speaks to the user."""
        return self.rank == 0

    def command(self, words: str) -> str:
        """A command that starts as many ranks as there are now, in the same way."""
        if self.size == 1:
            return words
        if isinstance(self._transport, Mpi):
            return f"mpiexec -n {self.size} {words}"
        return f"{words} --ranks {self.size}"

    def share(self, values: Any, arrays: Mapping[str, Array] | None = None) -> list[Message]:
        """Exchange values and arrays; return those of all ranks, in the order of the ranks.

        Parameters
        ----------
        values : object
            JSON values.
        arrays : dict of str to ndarray, optional

        Raises
        ------
        OtherRankError
            If another rank has failed.
        LostRankError
            If another rank has ended.
        """
        if self.size == 1:
            return [(values, dict(arrays or {}))]
        return self._exchange({"shared": values}, arrays or {})

    def _exchange(self, sent: dict[str, Any], arrays: Mapping[str, Array]) -> list[Message]:
        start = time.perf_counter()
        found = [unpack(message) for message in self._transport.gather(pack(sent, arrays))]
        self.exchanged += time.perf_counter() - start
        for rank, (values, _) in enumerate(found):
            if "failed" in values and rank != self.rank:
                raise OtherRankError(f"rank {rank} of {self.size}: {values['failed']}")
        return [(values.get("shared"), theirs) for values, theirs in found]

    def any(self, asked: bool) -> bool:
        """Whether this is true on any rank."""
        return any(values for values, _ in self.share(bool(asked)))

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Stay with the other ranks until all of them are done; an error ends them all."""
        clean = False
        try:
            yield
            self.share(None)
            clean = True
        except (OtherRankError, LostRankError, DismissedError):
            clean = True  # the others know, or the launcher ends them
            raise
        except Interrupted:  # all ranks have agreed on it
            self.share(None)
            clean = True
            raise
        except Exception as e:
            with contextlib.suppress(OtherRankError, LostRankError, DismissedError):
                text = str(e) if isinstance(e, InputError) else f"{type(e).__name__}: {e}"
                self._exchange({"failed": text}, {})
            clean = True
            raise
        finally:
            self._transport.close(clean)

    def agree(self, config: Mapping[str, Any], data: str) -> None:
        """Make sure that all ranks train the same run, with the same versions.

        Rank 0 warns if they have different processors: these may round differently.

        Parameters
        ----------
        config : dict
            The recipe, as JSON values.
        data : str
            SHA-256 of the data.

        Raises
        ------
        InputError
            If a rank differs from rank 0; both values are named.
        """
        mine = {"config": config, "data": data, "versions": versions(), "processor": processor()}
        found = [values for values, _ in self.share(mine)]
        for rank, theirs in enumerate(found):
            differing = differing_versions(found[0]["versions"], theirs["versions"])
            differing += [
                f"{name} {found[0]['config'].get(name)} and {value}"
                for name, value in theirs["config"].items()
                if found[0]["config"].get(name) != value
            ]
            if theirs["data"] != found[0]["data"]:
                digests = [values["data"][:12] for values in (found[0], theirs)]
                differing.append(f"data with SHA-256 {digests[0]} and {digests[1]}")
            if differing:
                raise InputError(
                    f"ranks 0 and {rank} must be the same in everything, they have "
                    f"{'; '.join(differing)}; give both the same installation and the same data"
                )
        kinds = list(dict.fromkeys(values["processor"] for values in found))
        if self.leads and len(kinds) > 1:
            warnings.warn(
                f"the ranks run on different processors ({', '.join(kinds)}); with other numbers "
                "of ranks the last bits may differ",
                stacklevel=2,
            )

    @contextlib.contextmanager
    def threads(self, backend: str) -> Iterator[None]:
        """Divide the kernel threads among the ranks that may run on the same processors.

        NUMBA_NUM_THREADS, if it is set, is the number of threads of each rank.
        """
        threads = threads_to_share(backend) if self.size > 1 else 0
        mine = (socket.gethostname(), processors_allowed())
        places = [tuple(values) for values, _ in self.share(mine)]
        sharing = sum(host == mine[0] and bool({*mine[1]} & {*some}) for host, some in places)
        divided = threads and "NUMBA_NUM_THREADS" not in os.environ
        if divided:
            use_threads(backend, max(1, threads // sharing))
        try:
            yield
        finally:
            if divided:
                use_threads(backend, threads)


ALONE = Ranks()
