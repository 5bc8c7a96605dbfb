"""The command of the race between ReLU and tanh."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from minires.cli import names
from minires.cli.options import (
    RUNS,
    DataOption,
    DatasetOption,
    JsonOption,
    Output,
    QuietOption,
    choose,
    compile_kernels,
    load,
    path_option,
)
from minires.errors import quoted

ArmsOption = Annotated[
    str | None, typer.Option(help="Arms, such as relu,tanh [default: all].", metavar="NAMES")
]
SeedsOption = Annotated[
    int, typer.Option(help="Run each arm with seeds 0 .. N-1.", metavar="N", min=1)
]
LastOption = Annotated[
    int, typer.Option(help="The last iteration of the race.", metavar="N", min=1)
]
ImagesOption = Annotated[
    int,
    typer.Option("--eval-images", help="Images on which errors are measured.", metavar="N", min=1),
]
BackendOption = Annotated[
    str | None,
    typer.Option(
        help="numba (compiled, the default where installed) or numpy.",
        metavar="NAME",
        callback=names.one_of("--backend", ("numpy", "numba")),
    ),
]


def race_command(
    arms: ArmsOption = None,
    seeds: SeedsOption = 3,
    iterations: LastOption = 5000,
    images: ImagesOption = 5000,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    out: Annotated[Path | None, path_option("[default: runs/race-DATA-ITERATIONS]", "DIR")] = None,
    backend: BackendOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Race ReLU against tanh to a training error of 25 %, as in figure 1 of AlexNet.

    The arms relu, tanh, relu-bn and tanh-bn try five learning rates each; the best one runs with
    every seed. The ablations no-lrn, no-overlap, dropout and colour train for 2,000 iterations
    (fewer if the race is shorter), beside a baseline. If you stop it, run it again to resume.

    Example: minires race --dataset cifar10 --out runs/race
    """
    from minires.lab.race import arms as plans
    from minires.lab.race import run

    output = Output(json_output)
    chosen = (*plans.ARMS, *plans.ABLATIONS) if arms is None else names.listed("--arms", arms)
    plan = partial(
        plans.Plan,
        tuple(chosen),
        seeds,
        iterations,
        images=images,
        ablation_iterations=min(plans.Plan.ablation_iterations, iterations),
    )
    plan()  # refuse what is wrong before anything is loaded
    if out:
        run.check_folder(out)
    backend = choose(backend, output.say)
    found = load(dataset, data, output.say)
    folder = out or RUNS / f"race-{found.slug}-{iterations}"
    begin = partial(compile_kernels, backend, quiet)
    folders = run.run(plan(backend=backend), folder, found, quiet, output.say, begin)
    output.result(show(folders, folder, output))


def show(folders: list[Path], out: Path, output: Output) -> dict[str, Any]:
    """Print the tables and draw the figures; return the results as values for JSON."""
    from minires.lab import figure
    from minires.lab.race import figures, results

    lanes, groups = results.read(folders)
    output.show("\n" + results.text(lanes, groups))
    drawn = {}
    if lanes:
        drawn["race"] = out / "race.png"
        figure.save(figures.race(lanes), drawn["race"])
    if groups:
        drawn["ablations"] = out / "ablations.png"
        figure.save(figures.ablations(groups), drawn["ablations"])
    output.show("\nFigures: " + ", ".join(quoted(path) for path in drawn.values()))
    return {"figures": drawn, **results.values(lanes, groups)}
