"""Commands in several processes: those that mpiexec starts, and those of --ranks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from minires.errors import InputError
from minires.train.stopping import Interrupted

if TYPE_CHECKING:
    from minires.train.ranks import Ranks

COMMANDS = ("train", "resume")  # those that ranks can share

RanksOption = Annotated[
    int,
    typer.Option(
        help="Share --shards among N processes; same bits.",
        metavar="N",
        min=1,
        show_default=False,
    ),
]
ResumedRanksOption = Annotated[
    int,
    typer.Option(
        help="Share the shards among N processes; N may differ from before.",
        metavar="N",
        min=1,
        show_default=False,
    ),
]


@contextlib.contextmanager
def launched() -> Iterator[Ranks]:
    """Join the other processes of mpiexec, if there are some; ranks other than 0 print nothing."""
    from minires.train.ranks import Ranks
    from minires.train.transport import launched, launched_rank

    try:
        ranks = Ranks(launched())
    except InputError:
        if launched_rank():  # all ranks have the same mistake, and rank 0 shows it
            raise SystemExit(0) from None
        raise
    if ranks.leads:
        with ranks.joined():
            yield ranks
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        silent = contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere)
        # rank 0 shows the error, and has the exit code
        with silent[0], silent[1], contextlib.suppress(InputError, Interrupted), ranks.joined():
            yield ranks


def check_command(ranks: Ranks | None, command: str | None) -> None:
    """Refuse several processes for a command that they cannot share.

    Raises
    ------
    InputError
        If there are.
    """
    if ranks is not None and ranks.size > 1 and command not in COMMANDS:
        raise InputError(
            f"{ranks.size} processes of mpiexec can share minires {' and '.join(COMMANDS)}, got "
            f"{command}; start it without mpiexec"
        )


def together(launched: Ranks | None, asked: int) -> Ranks:
    """The ranks of mpiexec; refuse --ranks beside them.

    Raises
    ------
    InputError
        If both are given.
    """
    from minires.train.ranks import ALONE

    ranks = launched or ALONE
    if asked > 1 and ranks.size > 1:
        raise InputError(
            f"mpiexec has started {ranks.size} ranks, and --ranks asks for {asked}; drop --ranks"
        )
    return ranks
