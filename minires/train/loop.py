"""Training, from a recipe to a run folder.

Every random draw is a function of the seed and the iteration, so a run that is killed at any
instant and started again by the same command ends with bitwise the weights of one that was never
stopped. `step.train_step` is the heart; `state.TrainingRun` is what a checkpoint holds.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from minires import data as images
from minires import plugins
from minires.data import Dataset, option, stream
from minires.errors import InputError, quoted
from minires.nets import registry
from minires.nets.fuse import fuse
from minires.nets.initialise import initialise
from minires.nets.network import Facts, Network
from minires.runs.config import Config
from minires.runs.run_folder import RunFolder
from minires.train.progress import Progress
from minires.train.state import TrainingRun
from minires.train.stopping import DivergenceError, Interrupted, stop_requests
from minires.train.task import get_task

__all__ = ["DivergenceError", "Interrupted", "fitted_facts", "initial_net", "train"]


def fitted_facts(net: str, data: Dataset) -> Facts:
    """Facts of the network of that name for these data: their image shape and their classes."""
    facts = registry.facts(net)
    classes = len(data.classes) or facts.classes
    return registry.fit(facts, data.input_shape, classes)


def initial_net(config: Config, facts: Facts | None = None) -> Network:
    """Network that a run of this recipe begins with: the same bits at every call.

    Parameters
    ----------
    config : Config
    facts : Facts, optional
        Those of `config.net` by default; the facts of a run if its data have another shape.
    """
    facts = facts or registry.facts(config.net)
    net = registry.make(facts, rng=stream(config.seed, "weights", 0))
    initialise(net, config.init, stream(config.seed, "weights", 0))
    return fuse(net.use(config.backend))


def train(
    config: Config,
    folder: Path,
    data: Dataset | Path | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Path:
    """Train a network by its recipe into a run folder, from where an earlier call was stopped.

    Parameters
    ----------
    config : Config
    folder : Path
        Receives config.json, metrics.jsonl and checkpoint.safetensors. A finished run is left as
        it is.
    data : Dataset or Path, optional
        By default, `config.dataset` is loaded; from this folder, if a folder is given.
    report : callable
        Called after each iteration, for progress bars.
    stop : Event, optional
        Asks the run to save and stop, as Ctrl-C does; by default Ctrl-C alone. See
        `stop_requests`.

    Returns
    -------
    folder : Path

    Raises
    ------
    InputError
        If the folder holds a run of another recipe or other data, is in use, or cannot be
        written.
    DivergenceError
        If the loss is not finite.
    Interrupted
        After Ctrl-C or `stop`, once the run is saved.
    """
    if not isinstance(data, Dataset):
        data = images.load(images.key(config.dataset), data)
    facts = fitted_facts(config.net, data)
    config = replace(config, net=facts.name)  # "resnet-20" is a name, too
    run_folder = RunFolder(folder)
    with run_folder.locked():
        config = acquire(run_folder, config, facts, data)
        run = TrainingRun(config, run_folder, data, initial_net(config, facts))
        run.restore()
        asked = contextlib.nullcontext(stop) if stop else stop_requests()
        # what overflows is explained by `TrainingRun`
        with asked as stop, np.errstate(over="ignore", invalid="ignore"):
            if run.iteration < config.iterations:
                run_folder.note_who_trains(run.iteration)
            while run.iteration < config.iterations:
                report(run.step())
                if stop.is_set():
                    run.save()
                    raise Interrupted(_how_to_go_on(run, folder, data))
    return folder


def _how_to_go_on(run: TrainingRun, folder: Path, data: Dataset) -> str:
    where = f"{quoted(folder)}{option(data)}"
    return (
        f"stopped and saved at iteration {run.iteration} of {run.config.iterations} in {folder}; "
        f"run it again to resume, or: {plugins.command()} resume {where}"
    )


def acquire(run_folder: RunFolder, config: Config, facts: Facts, data: Dataset) -> Config:
    """Record in a run folder what is to be trained there; return the recipe to train by.

    Raises
    ------
    InputError
        If the data have too few images, or the task does not warm up, or as `RunFolder.acquire`.
    """
    needed = config.bn_images + config.eval_images
    if needed > len(data.train) or config.eval_images > len(data.test):
        raise InputError(
            f"evaluation needs {needed} training and {config.eval_images} test images, "
            f"{data.name} has {len(data.train)} and {len(data.test)}; "
            "ask for fewer (--eval-images)"
        )
    task = get_task(config.task)
    if config.warmup_lr is not None and task.warm_below is None:
        raise InputError(f"the task {config.task!r} has no warm-up; drop --warmup-lr")
    source = Path(data.source).name  # a record is to be shared: it names no path of a machine
    known = {"name": data.name, "source": source, "sha256": data.sha256}
    return run_folder.acquire(config, facts, task.metrics, known)


claim = acquire
