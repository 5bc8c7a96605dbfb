"""The front door: what a person types. It reads arguments, calls the lab, and turns mistakes into one line each."""

from __future__ import annotations

import json
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from tqdm.auto import tqdm

from minires import data as images
from minires.data import Dataset, cifar10, shapes10
from minires.errors import InputError
from minires.lab import audit, bench_ops, checkpoint, claims, degradation, plots, report
from minires.lab import bench as timing
from minires.lab.config import TIERS, Config, provenance, read_record
from minires.lab.runs import begun, find_runs, settled, trained_folders
from minires.lab.train import Interrupted, train
from minires.ops import BACKENDS, default_backend, get_ops, prepare
from minires.resnet import by_name
from minires.school import commands as exercise

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
SIZES = ", ".join(f"{name} ({t.iterations:,} iterations of {t.batch_size} images)" for name, t in TIERS.items())
WATCH_SECONDS = 5.0
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of CIFAR-10 [env: MINIRES_DATA].")]
DatasetOption = Annotated[str, typer.Option(help="cifar10, shapes10, shapes10-fresh, or auto.")]
FoldersArgument = Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.")]
LrOption = Annotated[float, typer.Option(help="Learning rate.")]
BatchOption = Annotated[int, typer.Option(help="Images a step.")]
EvalOption = Annotated[int, typer.Option(help="Training and test images on which errors are measured.")]
BackendOption = Annotated[str | None, typer.Option(help="numba (compiled, the default where installed) or numpy.")]
EveryOption = Annotated[int | None, typer.Option(help="Iterations between evaluations [default: a quarter of all].")]
WarmupOption = Annotated[float | None, typer.Option(help="Learning rate until the training error is below 80 %.")]
MovingOption = Annotated[bool, typer.Option("--moving-average", help="Evaluate with batch norm's moving averages.")]
AugmentOption = Annotated[bool | None, typer.Option("--augment/--no-augment", help="Crop and flip the images.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


def say(text: str) -> None:
    """Print a line at once."""
    typer.echo(text)


def load(dataset: str, folder: Path | None) -> Dataset:
    """Images to train on; says which, and how to get CIFAR-10 where it was not found."""
    found = images.load(dataset, folder)
    say(f"Data: {found.name} ({found.source})")
    if not found.name.startswith("CIFAR-10") and dataset == "auto":
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


@app.command("degradation")
def degradation_command(
    tier: Annotated[str, typer.Option(help=f"Size: {SIZES}.")] = "quick",
    iterations: Annotated[int | None, typer.Option(help="Steps for each net, if not those of the tier.")] = None,
    depths: Annotated[str | None, typer.Option(help="Depths of the nets [default: 20,56].")] = None,
    shortcut: Annotated[str | None, typer.Option(help="Their shortcuts: A, B or C [default: A].")] = None,
    nets: Annotated[str | None, typer.Option(help="Nets by name instead, such as plain20,resnet32B.")] = None,
    seeds: Annotated[int, typer.Option(help="Repeat with seeds 0 .. K-1.", metavar="K")] = 1,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder [default: runs/degradation-DATA-ITERATIONS].")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate, if not the tier's; without its warm-up.")] = None,
    warmup_lr: WarmupOption = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step, if not as many as the tier's.")] = None,
    augment: AugmentOption = None,
    eval_images: Annotated[int | None, typer.Option(help="Images for errors, if not as many as the tier's.")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Iterations between evaluations, if not the tier's.")] = None,
    moving_average: MovingOption = False,
    backend: BackendOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train plain and residual nets side by side, draw their errors, and check what was claimed of them.

    All tiers but the quick one crop and flip, and divide the learning rate by 10 at half and at three quarters of the
    way; the lesson tier warms up before. The same command goes on where it was stopped, and only draws what is
    finished. Claims read from the runs are printed; one that does not hold makes the exit code 1. Claims that take
    computing: minires claims.

    Example: minires degradation --tier lesson --seeds 3
    """
    if nets is not None and (depths or shortcut):
        raise InputError(f"expected either --nets or --depths and --shortcut, got both: --nets {nets}")
    asked = depths.split(",") if depths else degradation.DEPTHS
    names = degradation.nets(asked, shortcut or "A") if nets is None else list(filter(str.strip, nets.split(",")))
    for name in names:
        by_name(name)
    if seeds < 1 or not names:
        raise InputError(f"expected at least one net and one seed, got --nets {nets!r} --seeds {seeds}")
    found = load(dataset, data)
    base = degradation.base_config(
        found,
        tier,
        iterations=iterations,
        lr=lr,
        eval_images=eval_images,
        eval_every=eval_every,
        moving_average=moving_average,
        warmup_lr=warmup_lr,
        batch_size=batch_size,
        augment=augment,
        backend=choose(backend),
    )
    folder = out or RUNS / f"degradation-{found.slug}-{base.iterations}"
    say(f"Recipe: {degradation.in_words(base)}")
    folders = degradation.run(names, seeds, base, folder, found, quiet, say)
    show(folders, folder / "degradation.png")
    print_claims(folders)


def print_claims(folders: list[Path], compute: bool = False, data: Path | None = None) -> None:
    """Verdict and numbers of every claim; exit code 1 if one does not hold."""
    verdicts = claims.judge(find_runs(folders), compute, data)
    say("\n" + claims.text(verdicts))
    if any(verdict.held is False for rows in verdicts.values() for _, verdict in rows):
        raise typer.Exit(1)


@app.command("claims")
def claims_command(
    folders: FoldersArgument,
    compute: Annotated[bool, typer.Option("--all", help="Compute (v) and (vi) too; about a minute.")] = False,
    data: DataOption = None,
) -> None:
    """Check what the program claims of an experiment; exit code 1 if a claim does not hold.

    Claims (i) to (iv) are read from recorded runs: deeper is worse, shortcuts mend it, it is neither overfitting nor
    vanishing gradients. With --all, (v) the deeper net as good as the shallow one is constructed, and (vi) the growth
    of a rounding error is measured; their verdicts are kept beside the runs.

    Example: minires claims runs/degradation-shapes10-280 --all
    """
    print_claims(folders, compute, data)


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
    augment: AugmentOption = True,
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
    config = degradation.base_config(
        found,
        net=name,
        iterations=iterations,
        lr=lr,
        eval_images=eval_images,
        eval_every=max(1, iterations // 4) if eval_every is None else eval_every,
        moving_average=moving_average,
        warmup_lr=warmup_lr,
        batch_size=batch_size,
        augment=augment,
        seed=seed,
        backend=choose(backend),
    )
    folder = out or RUNS / f"{name}-{found.slug}-{iterations}-seed{seed}"
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
    found = images.load(images.key(record["data"]["name"]), data)
    run_one(replace(config, backend=choose(config.backend)), folder, found, quiet)


def run_one(config: Config, folder: Path, found: Dataset, quiet: bool) -> None:
    """Train one run with a bar, then show it."""
    with degradation.bar(config.iterations, quiet) as progress:
        train(config, folder, found, degradation.follower(progress, f"{config.net} seed {config.seed}", 1))
    show([folder], folder / "errors.png")


def show(folders: list[Path], figure: Path) -> None:
    """Table to the terminal, figure to a file."""
    runs = find_runs(folders)
    say("\n" + plots.table(runs))
    plots.save(plots.errors(runs), figure)
    say(f"\n{plots.message(runs)}.\nFigure: {figure}")


@app.command()
def plot(
    folders: FoldersArgument,
    kind: Annotated[str, typer.Option(help="errors (by iteration), depth (errors by it) or layers.")] = "errors",
    out: Annotated[Path | None, typer.Option(help="File; .png, .svg or .pdf [default: KIND.png].")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Draw anew every 5 seconds until the runs are done.")] = False,
) -> None:
    """Draw recorded runs and print their table.

    The kind "layers" shows gradient norms and responses layer by layer, as the paper's figure 7.

    Example: minires plot runs/degradation-shapes10-280 --kind depth --out figure.svg
    """
    if kind not in plots.FIGURES:
        raise InputError(f"--kind must be one of {', '.join(plots.FIGURES)}, got {kind!r}")
    figure = out or Path(f"{kind}.png")
    plots.check_format(figure)
    try:
        while watch and not settled(folders):
            if runs := plots.drawable(kind, begun(folders)):
                plots.save(plots.FIGURES[kind](runs), figure)
                say(f"drawn {time.strftime('%H:%M:%S')}: {figure}")
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        say("stopped watching")
    runs = find_runs(folders)
    plots.save(plots.FIGURES[kind](runs), figure)
    say(f"\n{plots.table(runs)}\n\n{plots.message(runs)}.\nFigure: {figure}")


@app.command("report")
def report_command(
    folders: FoldersArgument,
    out: Annotated[Path | None, typer.Option(help="File [default: report.html in the first folder].")] = None,
) -> None:
    """Write figures, tables, claims and provenance of recorded runs to one HTML page that needs nothing else.

    Example: minires report runs/degradation-shapes10-280
    """
    runs = find_runs(folders)
    path = out or folders[0] / "report.html"
    checkpoint.write_whole(path, report.page(runs, claims.judge(runs)).encode())
    say(f"Report: {path}")


@app.command()
def export(folders: FoldersArgument) -> None:
    """Write the weights of trained nets alone to weights.safetensors in their folders, to be kept or given away.

    Example: minires export runs/degradation-shapes10-280/resnet20-seed0
    """
    for folder in trained_folders(folders):
        path = checkpoint.export_weights(folder)
        say(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


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
    if net:
        say(audit.table(by_name(net)))
    elif not warmup:
        here = provenance()
        say("  ".join(f"{name} {number}" for name, number in here["versions"].items()))
        say(f"{here['machine']['processor']}, {here['machine']['cores']} cores, {here['machine']['system']}")
        say(f"backends: {', '.join(BACKENDS)}; the default is {default_backend()}")
        say(f"CIFAR-10: {images.find_cifar10() or 'not found; get it with: minires data cifar10'}")


@app.command()
def bench(
    nets: Annotated[str, typer.Option(help="Names, separated by commas.")] = "resnet20,resnet56",
    backend: Annotated[str, typer.Option(help="Backends, separated by commas.")] = ",".join(BACKENDS),
    peer: Annotated[str, typer.Option(help="torch, torch.compile, or both with a comma; needs PyTorch.")] = "",
    rounds: Annotated[int, typer.Option(help="Rounds for each contender, in turn.")] = 15,
    batch_size: BatchOption = 128,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.")] = None,
    ops: Annotated[bool, typer.Option("--ops", help="Time each op's passes against PyTorch's instead.")] = False,
) -> None:
    """Time training steps and inference, backend against backend and against PyTorch.

    Example: minires bench --nets resnet20 --peer torch --json bench.json
    """
    if json_file:
        checkpoint.make_folder(json_file.parent)
    here = provenance()
    versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
    machine = f"{here['machine']['processor']}, {here['machine']['cores']} cores; {versions}; batch {batch_size}"
    if ops:
        seconds = bench_ops.bench(rounds, batch_size, lambda line: typer.echo(line, err=True))
        say(f"{machine}\n{bench_ops.table(seconds)}")
        record = {"provenance": here, "batch_size": batch_size, "seconds": seconds}
    else:
        names = timing.contenders([b for b in backend.split(",") if b], [p for p in peer.split(",") if p])
        peak = timing.matrix_product_gflops()
        found = timing.bench(nets.split(","), names, rounds, batch_size, lambda line: typer.echo(line, err=True))
        tables = f"{timing.table(found, peak)}\n\n{timing.kinds_table(found)}"
        say(f"{machine}\nNumPy's matrix product: {peak:.0f} GFLOP/s\n{tables}")
        record = timing.record(found, peak)
    if json_file:
        checkpoint.write_whole(json_file, json.dumps(record, indent=1).encode())


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
    say(f"{found.name} is in {folder}: {len(found.train_images):,} training and {len(found.test_images):,} test images")


@data_app.command("shapes10")
def data_shapes10(
    out: Annotated[Path, typer.Option(help="File; .png, .svg or .pdf.")] = Path("shapes10.png"),
    seed: Annotated[int, typer.Option(help="Which images.")] = 0,
) -> None:
    """Draw a contact sheet of shapes10, a column for each class.

    Example: minires data shapes10 --out sheet.png
    """
    plots.save(plots.sheet(shapes10.sheet(seed=seed), shapes10.CLASSES), out)
    say(f"{', '.join(shapes10.CLASSES)}: {out}")


app.add_typer(exercise.app, name="exercise")


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2."""
    warnings.showwarning = lambda message, *_: typer.echo(f"note: {message}", err=True)
    try:
        app()
    except (InputError, MemoryError, OSError) as e:
        more = "; ask for less, such as a smaller --batch-size" if isinstance(e, MemoryError) else ""
        typer.echo(f"error: {e}{more}", err=True)
        sys.exit(2)
    except Interrupted as e:
        typer.echo(f"\n{e}", err=True)
        sys.exit(130)
