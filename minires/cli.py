"""The front door: what a person types. It reads arguments, calls the lab, and turns mistakes into one line each."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm.auto import tqdm

from minires import data as images
from minires.data import Dataset, cifar10, shapes10
from minires.errors import InputError
from minires.lab import audit, degradation, plots
from minires.lab import bench as timing
from minires.lab.checkpoint import write_whole
from minires.lab.config import Config, paper_milestones, provenance, read_record
from minires.lab.train import Interrupted, train
from minires.ops import BACKENDS, default_backend, get_ops, prepare
from minires.resnet import by_name
from minires.school import exercises

app = typer.Typer(
    name="minires",
    help="Deep residual learning in NumPy: train plain and residual nets on a CPU and see the degradation problem.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

RUNS = Path("runs")
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of CIFAR-10 [env: MINIRES_DATA].")]
DatasetOption = Annotated[str, typer.Option(help="cifar10, shapes10, or auto: CIFAR-10 where it is found.")]
LrOption = Annotated[float, typer.Option(help="Learning rate.")]
BatchOption = Annotated[int, typer.Option(help="Images a step.")]
EvalOption = Annotated[int, typer.Option(help="Training and test images on which errors are measured.")]
BackendOption = Annotated[str | None, typer.Option(help="numba (compiled, the default where installed) or numpy.")]
EveryOption = Annotated[int | None, typer.Option(help="Iterations between evaluations [default: a quarter of all].")]
WarmupOption = Annotated[float | None, typer.Option(help="Learning rate until the training error is below 80 %.")]
MovingOption = Annotated[
    bool, typer.Option("--moving-average", help="Evaluate with batch norm's moving averages, not recomputed ones.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


def say(text: str) -> None:
    """Print a line at once."""
    typer.echo(text)
    sys.stdout.flush()


def load(dataset: str, folder: Path | None) -> Dataset:
    """Images to train on; says which, and how to get CIFAR-10 where it was not found."""
    found = images.load(dataset, folder)
    say(f"Data: {found.name} ({found.source})")
    if found.name != "CIFAR-10" and dataset == "auto":
        say(
            "CIFAR-10 was not found, so this runs on shapes10, drawn by the program itself. To get CIFAR-10 (170 MB):\n"
            "  minires data cifar10              (add --from FILE if you have it)\n"
            "or name its folder with --data DIR or MINIRES_DATA."
        )
    return found


def choose(backend: str | None) -> str:
    """Backend to use, compiled and ready; says what is compiled, and when the compiled one is missing."""
    if backend is None and default_backend() == "numpy":
        say("Numba is not installed, so this runs on plain NumPy, several times slower: pip install numba")
    chosen = backend or default_backend()
    get_ops(chosen)
    with tqdm(desc="compiling for this machine, once", unit=" kernels", delay=1, leave=False) as progress:
        prepare(chosen, lambda name: progress.update())
    return chosen


def recipe(
    net: str, dataset: Dataset, iterations: int, eval_images: int, eval_every: int | None, moving: bool, **rest: Any
) -> Config:
    """Config with what is left open filled in."""
    every = max(1, iterations // 4) if eval_every is None else eval_every
    milestones = paper_milestones(iterations)
    return Config(
        net=net,
        dataset=dataset.name,
        iterations=iterations,
        milestones=milestones,
        eval_every=every,
        eval_images=eval_images,
        bn_images=0 if moving else eval_images,
        **rest,
    )


@app.command("degradation")
def degradation_command(
    iterations: Annotated[int, typer.Option(help="Steps for each net.")] = 150,
    nets: Annotated[str, typer.Option(help="Names, separated by commas.")] = ",".join(degradation.NETS),
    seeds: Annotated[int, typer.Option(help="Repeat with seeds 0 .. K-1.", metavar="K")] = 1,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder [default: runs/degradation-DATA-ITERATIONS].")] = None,
    lr: Annotated[float, typer.Option(help="Learning rate; the paper's 0.1 needs longer runs.")] = 0.03,
    batch_size: BatchOption = 128,
    eval_images: EvalOption = 512,
    eval_every: EveryOption = None,
    moving_average: MovingOption = False,
    backend: BackendOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train plain and residual nets side by side and draw their errors in one figure.

    The same command goes on where it was stopped, and only draws what is finished.

    Example: minires degradation --iterations 400 --nets plain20,plain56,resnet56 --lr 0.1
    """
    names = [name for name in nets.split(",") if name.strip()]
    for name in names:
        by_name(name)
    if seeds < 1 or not names:
        raise InputError(f"expected at least one net and one seed, got --nets {nets!r} --seeds {seeds}")
    found = load(dataset, data)
    backend = choose(backend)
    rest = {"lr": lr, "batch_size": batch_size, "backend": backend}
    base = recipe(names[0], found, iterations, eval_images, eval_every, moving_average, **rest)
    folder = out or RUNS / f"degradation-{found.name.lower()}-{iterations}"
    say(f"Recipe: {iterations} iterations, batch {batch_size}, lr {lr:g}, momentum {base.momentum}, {backend} backend")
    folders = degradation.run(names, seeds, base, folder, found, quiet)
    show(folders, folder / "degradation.png")


@app.command("train")
def train_command(
    net: Annotated[str, typer.Argument(help="Such as resnet20, plain56, resnet32B.")],
    iterations: Annotated[int, typer.Option(help="Steps; the paper's is 64000.")] = 64_000,
    seed: Annotated[int, typer.Option(help="Decides weights, order, crops and flips.")] = 0,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder [default: runs/NET-DATA-ITERATIONS-seedK].")] = None,
    lr: LrOption = 0.1,
    warmup_lr: WarmupOption = None,
    batch_size: BatchOption = 128,
    eval_images: EvalOption = 2000,
    eval_every: EveryOption = None,
    moving_average: MovingOption = False,
    backend: BackendOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train one net by the paper's recipe; the same command goes on where it was stopped.

    From 2,000 iterations on, the learning rate is divided by 10 at half and at three quarters of the way.

    Example: minires train resnet20 --iterations 2000
    """
    name = by_name(net).title
    found = load(dataset, data)
    config = recipe(
        name,
        found,
        iterations,
        eval_images,
        eval_every,
        moving_average,
        lr=lr,
        warmup_lr=warmup_lr,
        batch_size=batch_size,
        seed=seed,
        backend=choose(backend),
    )
    folder = out or RUNS / f"{name}-{found.name.lower()}-{iterations}-seed{seed}"
    run_one(degradation.recipe(config), folder, found, quiet)


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    data: DataOption = None,
    quiet: QuietOption = False,
) -> None:
    """Go on with a run that was stopped, by its own recipe.

    Example: minires resume runs/resnet20-cifar-10-2000-seed0
    """
    record = read_record(folder)
    config = Config.from_json(record["config"])
    found = images.load("cifar10" if record["data"]["name"] == "CIFAR-10" else "shapes10", data)
    run_one(replace(config, backend=choose(config.backend)), folder, found, quiet)


def run_one(config: Config, folder: Path, found: Dataset, quiet: bool) -> None:
    """Train one run with a bar, then show it."""
    with degradation.bar(config.iterations, quiet) as progress:
        train(config, folder, found, degradation.follower(progress, f"{config.net} seed {config.seed}", 1))
    show([folder], folder / "errors.png")


def show(folders: list[Path], figure: Path) -> None:
    """Table to the terminal, figure to a file."""
    runs = plots.find_runs(folders)
    say("\n" + plots.table(runs))
    plots.draw_errors(runs, figure)
    say(f"\n{plots.message(runs)}.\nFigure: {figure}")


@app.command()
def plot(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.")],
    out: Annotated[Path, typer.Option(help="File; .png, .svg or .pdf.")] = Path("errors.png"),
) -> None:
    """Draw the errors of recorded runs and print their table.

    Example: minires plot runs/degradation-shapes10-40 --out figure.svg
    """
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--out must end in .png, .svg or .pdf, got {out}")
    show(folders, out)


@app.command()
def info(
    net: Annotated[str | None, typer.Argument(help="Such as resnet56, plain20, imagenet-resnet50.")] = None,
    warmup: Annotated[bool, typer.Option("--warmup", help="Compile the kernels of the compiled backend now.")] = False,
) -> None:
    """Audit a network layer by layer; without a name, say what is installed and found here.

    Example: minires info resnet56
    """
    if warmup:
        say(f"{choose(None)} backend: ready")
        return
    if net:
        say(audit.table(by_name(net)))
        return
    here = provenance()
    say("  ".join(f"{name} {number}" for name, number in here["versions"].items()))
    say(f"{here['machine']['processor']}, {here['machine']['cores']} cores, {here['machine']['system']}")
    say(f"backends: {', '.join(BACKENDS)}; the default is {default_backend()}")
    folder = images.find_cifar10()
    say(f"CIFAR-10: {folder or 'not found; get it with: minires data cifar10'}")


@app.command()
def bench(
    nets: Annotated[str, typer.Option(help="Names, separated by commas.")] = "resnet20,resnet56",
    backend: Annotated[str, typer.Option(help="Backends, separated by commas.")] = ",".join(BACKENDS),
    peer: Annotated[str, typer.Option(help="torch, torch.compile, or both with a comma; needs PyTorch.")] = "",
    rounds: Annotated[int, typer.Option(help="Rounds for each contender, in turn.")] = 15,
    batch_size: BatchOption = 128,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.")] = None,
) -> None:
    """Time training steps and inference, backend against backend and against PyTorch.

    Example: minires bench --nets resnet20 --peer torch --json bench.json
    """
    names = timing.contenders([b for b in backend.split(",") if b], [p for p in peer.split(",") if p])
    peak = timing.matrix_product_gflops()
    found = timing.bench(nets.split(","), names, rounds, batch_size, lambda line: typer.echo(line, err=True))
    here = provenance()
    say(f"{here['machine']['processor']}, {here['machine']['cores']} cores; {here['versions']}; batch {batch_size}")
    say(f"NumPy's matrix product: {peak:.0f} GFLOP/s")
    say(timing.table(found, peak) + "\n\n" + timing.kinds_table(found))
    if json_file:
        write_whole(json_file, json.dumps(timing.record(found, peak), indent=1).encode())


data_app = typer.Typer(help="Get CIFAR-10, or look at shapes10.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


@data_app.command("cifar10")
def data_cifar10(
    source: Annotated[Path | None, typer.Option("--from", help="A tarball or folder you have.")] = None,
    into: Annotated[Path | None, typer.Option(help="Folder to put it in [default: the cache folder].")] = None,
    trust: Annotated[bool, typer.Option(help="Take --from even if its hash is not the official one.")] = False,
) -> None:
    """Download CIFAR-10 (170 MB, checked by SHA-256), or take a copy that you have.

    Example: minires data cifar10 --from ~/Downloads/cifar-10-binary.tar.gz
    """
    folder = cifar10.install(source, into, trust) if source else cifar10.download(into)
    found = cifar10.read(folder, trust)
    say(f"CIFAR-10 is in {folder}: {len(found.train_images):,} training and {len(found.test_images):,} test images")


@data_app.command("shapes10")
def data_shapes10(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("shapes10.png"),
    seed: Annotated[int, typer.Option(help="Which images.")] = 0,
) -> None:
    """Draw a contact sheet of shapes10, a column for each class.

    Example: minires data shapes10 --out sheet.png
    """
    plots.save_sheet(shapes10.sheet(seed=seed), shapes10.CLASSES, out)
    say(f"{', '.join(shapes10.CLASSES)}: {out}")


exercise_app = typer.Typer(help="Write an op yourself, or find a bug.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(exercise_app, name="exercise")


@exercise_app.command("list")
def exercise_list() -> None:
    """Say what there is to write."""
    for chosen in exercises.EXERCISES.values():
        say(f"{chosen.name:26}{chosen.summary}")


@exercise_app.command("start")
def exercise_start(
    name: Annotated[str, typer.Argument(help="As in: minires exercise list.")],
    folder: Annotated[Path, typer.Argument(help="Folder for NAME.py.")] = Path(),
) -> None:
    """Write NAME.py: signature, what it should do, hints.

    Example: minires exercise start conv2d_backward
    """
    file = exercises.write(exercises.stub(name), folder / f"{name}.py")
    say(f"Write the function in {file}, then: minires exercise check {file}")


@exercise_app.command("check")
def exercise_check(
    file: Annotated[Path, typer.Argument(help="A file with a solution.")],
    json_output: Annotated[bool, typer.Option("--json", help="For grade books.")] = False,
) -> None:
    """Find the smallest case in which a solution is wrong, and say which bug explains it; exit code 1 if there is one.

    Example: minires exercise check conv2d_backward.py
    """
    from minires.school import grading  # hypothesis takes a moment to import

    report = grading.check_file(file)
    say(json.dumps(asdict(report)) if json_output else f"File: {file.resolve()}\n{report}")
    if not report.passed:
        sys.exit(1)


@exercise_app.command("hunt")
def exercise_hunt(
    name: Annotated[str | None, typer.Argument(help="An op's backward [default: any].")] = None,
    seed: Annotated[int, typer.Option(help="Which bug.", min=0)] = 0,
    folder: Annotated[Path, typer.Option("--into", help="Folder for the file.")] = Path(),
    reveal: Annotated[bool, typer.Option("--reveal", help="Say which bug it is.")] = False,
) -> None:
    """Write a whole op with one wrong line in it, to be found with the gradient checker.

    Example: minires exercise hunt batchnorm_backward --seed 2
    """
    chosen, bug = exercises.quarry(name, seed)
    if reveal:
        say(f"{chosen.name}, {bug.name}: right, but {bug.says}.\n  right: {bug.old}\n  wrong: {bug.new}")
        return
    file = exercises.write(exercises.hidden(chosen, bug), folder / f"hunt_{chosen.name}_{seed}.py")
    say(f"One line of {file} is wrong; its first lines say how to look. Stuck? {bug.hint}")


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2."""
    warnings.showwarning = lambda message, *_: typer.echo(f"note: {message}", err=True)
    try:
        app()
    except InputError as e:
        typer.echo(f"error: {e}", err=True)
        sys.exit(2)
    except Interrupted as e:
        typer.echo(f"\n{e}", err=True)
        sys.exit(130)
