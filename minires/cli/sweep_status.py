"""The option --status of the command sweep: where the runs of the sweep in a folder stand."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from minires.cli import names
from minires.cli.options import RUNS, Output, load
from minires.errors import InputError
from minires.runs import sweep_record
from minires.runs.config import Config

if TYPE_CHECKING:
    from minires.data import Dataset
    from minires.lab.status import Status
    from minires.train.sweep import Job


def show(context: typer.Context, asked: dict[str, Any], output: Output) -> None:
    """Show where the runs stand; nothing is trained or written.

    The sweep is the one in the folder of --out. Other options are not needed: those that are typed
    are checked against it.

    Parameters
    ----------
    context : Context
        Of the command sweep.
    asked : dict
        The options of the recipe that were typed.
    output : Output

    Raises
    ------
    InputError
        If the folder holds no sweep, or another one than the options describe.
    """
    from minires.lab import status

    out = context.params["out"]
    if out:
        sweep_record.read(out)  # before data are loaded
    wanted = None
    if not out or any(_is_typed(context, name) for name in ("tier", "dataset", "data")):
        wanted = load(context.params["dataset"], context.params["data"], output.say)
    out = out or _usual_folder(context, asked, wanted)
    base, data = sweep_record.read(out)
    if wanted:
        _check_name(out, base, wanted)
    _check(context, out, asked, base, wanted)
    if wanted:
        sweep_record.check_data(out, data, wanted.sha256)
    found = status.status(_chosen(context, status.jobs(out, base)))
    output.show(status.text(found))
    rows = [_row(s) for s in found]
    output.result({"runs": rows, "seconds_left": status.seconds_left(found)})


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _usual_folder(context: typer.Context, asked: dict[str, Any], wanted: Any) -> Path:
    """The folder of a sweep that was started without --out."""
    return usual_folder(wanted, _tier(context, asked, wanted))


def usual_folder(found: Dataset, base: Config) -> Path:
    """The folder of a sweep if none is typed."""
    return RUNS / f"sweep-{found.slug}-{base.iterations}"


def _tier(context: typer.Context, asked: dict[str, Any], wanted: Any) -> Config:
    from minires.lab import presets

    return presets.base_config(wanted, context.params["tier"], **asked)


def _check_name(out: Path, base: Config, wanted: Dataset) -> None:
    """Refuse data of another name: that says more than their SHA-256."""
    from minires import data as images

    if images.key(wanted.name) != images.key(base.dataset):
        raise InputError(
            f"{out} holds a sweep on {base.dataset}, not on {wanted.name}; leave out --dataset and "
            "--data, or give another --out"
        )


def _check(
    context: typer.Context, out: Path, asked: dict[str, Any], base: Config, wanted: Any
) -> None:
    """Refuse another recipe; a typed --tier describes all of it."""
    typed = dict(asked)
    if _is_typed(context, "tier"):
        typed = _tier(context, {"backend": base.backend, **asked}, wanted).to_json()
    sweep_record.check_recipe(out, base, typed)


def _chosen(context: typer.Context, jobs: list[Job]) -> list[Job]:
    """The runs of --nets and --seeds if these are typed, else all."""
    if context.params["nets"] is not None:
        listed = [_name(name) for name in names.listed("--nets", context.params["nets"])]
        known = list(dict.fromkeys(job.config.net for job in jobs))
        for name in listed:
            if name not in known:
                raise InputError(f"the sweep has no runs of {name}; its nets: {', '.join(known)}")
        jobs = [job for job in jobs if job.config.net in listed]
    if _is_typed(context, "seeds"):
        there = sorted({job.config.seed for job in jobs})
        seeds = range(context.params["seeds"])
        if missing := [str(seed) for seed in seeds if seed not in there]:
            raise InputError(
                f"the sweep has no runs of seeds {', '.join(missing)}; its seeds: "
                f"{', '.join(map(str, there))}"
            )
        jobs = [job for job in jobs if job.config.seed in seeds]
    return jobs


def _name(typed: str) -> str:
    """The network's name as runs record it; as it is typed if there is no such network."""
    with contextlib.suppress(InputError):
        return names.network(typed).name
    return typed


def _row(s: Status) -> dict[str, Any]:
    config = s.job.config
    names = {"folder": s.job.folder, "net": config.net, "seed": config.seed}
    where = {"iteration": s.iteration, "iterations": config.iterations}
    return {**names, "state": s.state, "worker": s.worker, "why": s.why, **where}
