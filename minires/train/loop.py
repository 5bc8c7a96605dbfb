"""Training, from a recipe to a run folder.

Every random draw is a function of the seed and the iteration. So a run that is killed at any
instant and started again by the same command ends with the same bits as one that was never stopped.
`step.train_step` is one step of gradient descent. `state.TrainingRun` holds the state that a
checkpoint saves.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minires import data as images
from minires import plugins
from minires.data import Dataset, option, stream
from minires.data.paths import expanded
from minires.errors import InputError, quoted
from minires.layers.base import Array
from minires.nets import registry
from minires.nets.freeze import freeze, start_from
from minires.nets.fuse import fuse
from minires.nets.initialise import initialise
from minires.nets.network import Facts, Network
from minires.runs.config import Config
from minires.runs.run_folder import NoFolder, RunFolder
from minires.text import shown
from minires.train.progress import Progress
from minires.train.ranks import ALONE, Ranks
from minires.train.rows import prepared
from minires.train.shards import check_number
from minires.train.state import TrainingRun
from minires.train.stopping import DivergenceError, Interrupted, stop_requests
from minires.train.task import get_task
from minires.train.transport import LostRankError

__all__ = ["DivergenceError", "Interrupted", "fitted_facts", "initial_net", "train"]


def fitted_facts(net: str, data: Dataset) -> Facts:
    """Facts of the network of that name for these data: their image shape and their classes."""
    facts = registry.facts(net)
    classes = len(data.classes) or facts.classes
    return registry.fit(facts, data.input_shape, classes)


def initial_net(config: Config, facts: Facts | None = None) -> Network:
    """The network with the initial weights of this recipe: the same bits at every call.

    Parameters
    ----------
    config : Config
    facts : Facts, optional
        By default, the facts of `config.net`. For data of another shape, pass those of the run.
    """
    facts = facts or registry.facts(config.net)
    net = registry.make(facts, rng=stream(config.seed, "weights", 0))
    initialise(net, config.init, stream(config.seed, "weights", 0))
    freeze(net, config.freeze, config.bn)
    return fuse(net.use(config.backend))


def train(
    config: Config,
    folder: Path | RunFolder,
    data: Dataset | Path | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    stop: threading.Event | None = None,
    weights: Mapping[str, Array] | None = None,
    ranks: Ranks = ALONE,
) -> Path:
    """Train a network by its recipe into a run folder; resume a run that was stopped.

    Parameters
    ----------
    config : Config
    folder : Path or RunFolder
        Receives config.json, metrics.jsonl and checkpoint.safetensors. A finished run is left as
        it is. A "~" at its beginning is the home folder.
    data : Dataset or Path, optional
        By default, `config.dataset` is loaded. If a folder is given, it is loaded from there.
    report : callable
        Called after each iteration, for progress bars.
    stop : Event, optional
        Asks the run to save and stop, as Ctrl-C does. By default only Ctrl-C does, see
        `stop_requests`.
    weights : dict of str to ndarray, optional
        The state that the run starts from, where the recipe names `weights`. It is saved in the
        run's first checkpoint, so a run that has one needs it no longer.
    ranks : Ranks
        The processes that train this run together, see `minires.train.parallel`; each of them calls
        this inside `ranks.joined()`. Rank 0 alone reads and writes the folder.

    Returns
    -------
    folder : Path

    Raises
    ------
    InputError
        If the folder holds a run of another recipe or other data, is in use, or cannot be
        written; or if `weights` are missing or of another network.
    DivergenceError
        If the loss is not finite.
    Interrupted
        After Ctrl-C or `stop`, once the run is saved.
    """
    if not isinstance(data, Dataset):
        data = images.load(images.key(config.dataset), data)
    data = data.with_images(config.image_size, config.normalise)
    facts = fitted_facts(config.net, data)
    config = replace(config, net=facts.name)  # "resnet-20" names resnet20
    check_number(config.shards, ranks.size, config.batch_size)
    run_folder = _run_folder(folder, ranks)
    with run_folder.locked(), _checkpoint_named(run_folder):
        config = acquire(run_folder, config, facts, data)
        config = _agreed(config, data, ranks)
        run = TrainingRun(config, run_folder, data, initial_net(config, facts), ranks)
        if ranks.leads:
            if config.weights and not (run_folder.has_checkpoint() or run_folder.read().done):
                _start_from(run, weights)
            run.restore()
        run.join()
        asked = contextlib.nullcontext(stop) if stop else stop_requests()
        # `TrainingRun` explains what overflows
        ignored = np.errstate(over="ignore", invalid="ignore")
        with contextlib.closing(run), asked as stop, ignored, ranks.threads(config.backend):
            if not run.ended:
                run_folder.note_who_trains(run.iteration)
            while not run.ended:
                report(run.step())
                if ranks.any(stop.is_set()):
                    run.save()
                    raise Interrupted(_after_a_stop(run, run_folder, data))
    return run_folder.path


@contextlib.contextmanager
def _checkpoint_named(folder: RunFolder) -> Iterator[None]:
    """Let the error of a lost rank say whether the run has a checkpoint."""
    try:
        yield
    except LostRankError as e:
        e.saved = RunFolder(folder.path).has_checkpoint()
        raise


def _run_folder(folder: Path | RunFolder, ranks: Ranks) -> RunFolder:
    """The folder as an object: rank 0 has one to write to."""
    if isinstance(folder, RunFolder):
        return folder
    path = expanded(folder)
    return RunFolder(path) if ranks.leads else NoFolder(path)


def _agreed(config: Config, data: Dataset, ranks: Ranks) -> Config:
    """The recipe that rank 0 trains by; an `InputError` if this rank was given another one."""
    led, _ = ranks.share(config.to_json())[0]
    config = config.as_begun(Config.from_json(led))
    ranks.agree(config.to_json(), data.sha256)
    return config


def _start_from(run: TrainingRun, weights: Mapping[str, Array] | None) -> None:
    """Load the weights that a recipe names, and save them: resuming does not need their file."""
    if weights is None:
        raise InputError(
            f"{run.config.net} starts from weights with the SHA-256 {shown(run.config.weights, 15)}"
            "; give them with --weights FILE"
        )
    start_from(run.net, weights, run.config.head)
    run.save()


def _after_a_stop(run: TrainingRun, folder: RunFolder, data: Dataset) -> str:
    """The message after Ctrl-C: where the run is saved, and the command that resumes it."""
    iterations = run.config.iterations
    if run.ended:
        return f"{run.config.net} is finished: all {run.iteration} iterations are saved in {folder}"
    command = f"{plugins.command()} resume {quoted(folder.path)}{option(data)}"
    return (
        f"stopped and saved at iteration {run.iteration} of {iterations} in {folder}; run it again "
        f"to resume, or: {run.ranks.command(command)}"
    )


def acquire(run_folder: RunFolder, config: Config, facts: Facts, data: Dataset) -> Config:
    """Write a run's record to its folder, or check the one there; return the recipe to train by.

    Raises
    ------
    InputError
        If the data have too few images, the task has no warm-up, or `RunFolder.acquire` raises it.
    """
    needed = config.bn_images + config.eval_images
    if needed > len(data.train) or config.eval_images > len(data.test):
        raise InputError(
            f"evaluation needs {needed} training and {config.eval_images} test images, "
            f"{shown(data.name)} has {len(data.train)} and {len(data.test)}; "
            "ask for fewer (--eval-images)"
        )
    task = get_task(config.task)
    if config.warmup_lr is not None and task.warm_below is None:
        raise InputError(f"the task {config.task!r} has no warm-up; drop --warmup-lr")
    source = Path(data.source).name  # records are shared, so they name no path of a machine
    known: dict[str, Any] = {"name": data.name, "source": source, "sha256": data.sha256}
    prepare = prepared(config, data).prepare
    if hasattr(prepare, "about"):
        known["pictures"] = prepare.about() | {"labels": list(data.classes)}
    return run_folder.acquire(config, facts, task.metrics, known)
