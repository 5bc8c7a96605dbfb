"""The command sweep: many runs, shared by workers on one machine or on several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minires.cli import experiment, names, sweep_status
from minires.cli.options import (
    DataOption,
    DatasetOption,
    JsonOption,
    Output,
    QuietOption,
    choose,
    compile_kernels,
    load,
    path_option,
    training_options,
)
from minires.runs.config import Config, in_words

if TYPE_CHECKING:
    from minires.data import Dataset
    from minires.train.cluster import Task
    from minires.train.sweep import Job

LeaseOption = Annotated[
    float,
    typer.Option(
        help="Seconds after which a silent worker loses its run.",
        metavar="X",
        min=0.1,
        hidden=True,
    ),
]

DaskOption = Annotated[
    str | None,
    typer.Option(
        help="Use dask: local:2, or its scheduler's tcp://HOST:8786.",
        metavar="ADDRESS",
        show_default=False,
    ),
]


@training_options(dict.fromkeys((*experiment.TIER_OPTIONS, "shards"), ""))
def sweep_command(
    asked: dict[str, Any],
    context: typer.Context,
    nets: Annotated[
        str | None, typer.Option(help="Names of the nets [default: as degradation].")
    ] = None,
    tier: experiment.TierOption = "quick",
    seeds: Annotated[
        int, typer.Option(help="Train each net with seeds 0 .. N-1.", metavar="N", min=1)
    ] = 1,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    out: Annotated[Path | None, path_option("[default: runs/sweep-DATA-ITERATIONS]", "DIR")] = None,
    status: Annotated[
        bool,
        typer.Option("--status", help="Train nothing; show where the runs in --out stand."),
    ] = False,
    dask: DaskOption = None,
    lease: LeaseOption = 90.0,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train nets with several seeds. Any number of workers may share the work.

    Give the same command on the same folder in as many terminals, or on as many machines, as you
    like, at any time. Each takes the next run that is free. If a worker is lost, another one
    resumes its run after 90 seconds.

    Example: minires sweep --nets plain20,resnet20 --seeds 5 --tier lesson --out FOLDER
    """
    from minires.lab import presets
    from minires.train import cluster_start

    output = Output(json_output)
    if status:
        return sweep_status.show(context, asked, output)
    if dask is not None:
        cluster_start.workers_asked(dask)
    chosen = experiment.chosen_nets(nets, None, None)
    experiment.check_recipes([names.network(name) for name in chosen], tier, asked)
    backend = choose(asked.pop("backend", None), output.say)
    found = load(dataset, data, output.say)
    base = presets.base_config(found, tier, **asked, backend=backend)
    folder = out or sweep_status.usual_folder(found, base)
    jobs = _jobs(chosen, seeds, base, folder, found)
    _train(dask, jobs, base, folder, found, lease, quiet, output)
    output.result(experiment.show([job.folder for job in jobs], folder / "sweep.png", output))
    return None


def _train(
    dask: str | None,
    jobs: list[Job],
    base: Config,
    folder: Path,
    found: Dataset,
    seconds: float,
    quiet: bool,
    output: Output,
) -> None:
    """Train all runs: in this process, beside those that others train, or on dask."""
    from minires.train import cluster, cluster_start
    from minires.train.sweep import is_finished

    if all(is_finished(job.folder) for job in jobs):
        _claim(folder, base, found, jobs)
        return output.say("All runs of this sweep are finished already.")
    output.say(f"Recipe: {in_words(base)}")
    stoppable = "Stop it with Ctrl-C at any time; run it again to resume."
    if dask is None:
        _claim(folder, base, found, jobs)
        compile_kernels(base.backend, quiet)
        output.say(stoppable)
        return _work(jobs, found, seconds, quiet, output)
    cluster_start.check_answers(dask)
    compile_kernels(base.backend, quiet)  # before the workers load them
    output.say(stoppable)
    with cluster_start.client(dask, output.say) as client:
        hosts = cluster.check_workers(client)
        _claim(folder, base, found, jobs)
        _say_who_holds(jobs, seconds, output)
        task = partial(_task, base, folder.absolute(), found, seconds, hosts)
        _work_on_dask(client, jobs, task, quiet, output)
    return None


def _claim(folder: Path, base: Config, found: Dataset, jobs: list[Job]) -> None:
    """Make the folder that of this sweep, or make sure that it is; make those of its runs."""
    from minires.runs import files, sweep_record

    sweep_record.claim(folder, base, found.sha256)
    for job in jobs:
        files.make_folder(job.folder)  # so that --status shows runs that wait


def _jobs(chosen: list[str], seeds: int, base: Config, folder: Path, found: Dataset) -> list[Job]:
    from minires.lab import presets
    from minires.nets import registry
    from minires.train.loop import fitted_facts
    from minires.train.sweep import plan

    for name in chosen:
        presets.check_size(registry.facts(name), found)
    facts = [fitted_facts(name, found) for name in chosen]
    return plan(facts, seeds, base, folder, presets.with_warmup)


def _work(jobs: list[Job], found: Dataset, seconds: float, quiet: bool, output: Output) -> None:
    """Be one worker until all runs are finished, with a bar over the runs that it trains."""
    from minires.lab.sweep_bar import SweepBar, total
    from minires.train.progress import bar
    from minires.train.stopping import stop_requests
    from minires.train.sweep import Reports, Worker

    with bar(total(jobs), quiet) as progress:
        shown = SweepBar(progress, jobs)
        reports = Reports(output.say, shown.follow, shown.look)
        with stop_requests() as stop:
            Worker(jobs, found, stop, seconds, reports=reports).work()


def _say_who_holds(jobs: list[Job], seconds: float, output: Output) -> None:
    """Say which runs other workers hold, lost ones among them."""
    from minires.lab import status
    from minires.train.sweep import waiting

    held = [s.job for s in status.status(jobs) if s.state in ("running", "silent")]
    if held:
        output.say(waiting(held, seconds))


def _work_on_dask(
    client: Any,
    jobs: list[Job],
    task: Callable[[tuple[Job, ...]], Task],
    quiet: bool,
    output: Output,
) -> None:
    """Let workers of dask train the runs, with a bar over all of them."""
    from minires.lab import status
    from minires.lab.sweep_bar import SweepBar, total
    from minires.train import cluster
    from minires.train.progress import bar
    from minires.train.stopping import stop_requests

    jobs = [replace(job, folder=job.folder.absolute()) for job in jobs]
    left = tuple(s.job for s in status.status(jobs) if s.state != "finished")
    output.say("The workers load data and kernels first.")
    with stop_requests() as stop, bar(total(jobs), quiet, at_once=True) as progress:
        shown = SweepBar(progress, jobs)
        watch = cluster.Watch(client, stop, output.say)

        def look() -> None:
            watch.look()
            shown.look()

        cluster.sweep_on(client, task(left), stop, look)


def _task(
    base: Config,
    folder: Path,
    found: Dataset,
    seconds: float,
    hosts: dict[str, int],
    left: tuple[Job, ...],
) -> Task:
    """The work of a worker of dask."""
    from minires import plugins
    from minires.train import cluster
    from minires.train.parallel import place

    files = tuple(map(str, plugins.LOADED))
    return cluster.Task(left, base, folder, place(found), files, seconds, hosts)
