"""Training, from a recipe to a run folder. `train_step` is the heart; all the rest makes it exact, safe and recorded.

Every random draw is a function of the seed and the iteration, so a run that is killed at any instant and started again
by the same command ends with bitwise the weights of one that was never stopped.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minires.data import Dataset, normalise, option, per_pixel_mean, stream, training_batch
from minires.errors import InputError, quoted
from minires.layers.base import layer_outputs
from minires.layers.core import recompute_statistics
from minires.nets.fuse import fuse
from minires.nets.network import Network
from minires.nets.registry import by_name
from minires.optim import SGD, step_schedule
from minires.runs import checkpoint, files, run_folder
from minires.runs.config import Config
from minires.runs.run_folder import claim, note_who_trains, read_run
from minires.train.layerwise import by_layer
from minires.train.progress import Progress
from minires.train.step import evaluate, train_step

Array = np.ndarray
WARMUP_ERROR = 0.8  # section 4.2: warm up until the training error is below 80 %
SMOOTHING = 0.02  # weight of the latest batch in the running training error
LINES = 1000  # training lines in metrics.jsonl: fewer than twice as many
LAYER_STEPS = (
    1,
    100,
)  # steps whose gradients and responses are recorded layer by layer; the last one too
CHECKPOINT_SECONDS = 30.0


class Interrupted(BaseException):
    """The user stopped the run, and it was saved; the message says how to go on. No handler of errors catches it."""


class DivergenceError(InputError):
    """The loss is not finite any more; the message says where it began and what helps."""


def evaluation_rows(config: Config, images: int) -> tuple[Array, Array]:
    """Which of so many training images serve batch norm's statistics, and which the training error: no image both."""
    chosen = stream(config.seed, "evaluation", 0).permutation(images)
    return chosen[: config.bn_images], chosen[
        config.bn_images : config.bn_images + config.eval_images
    ]


def initial_net(config: Config) -> Network:
    """Network that a run of this recipe begins with: the same bits at every call."""
    return fuse(by_name(config.net, rng=stream(config.seed, "weights", 0)).use(config.backend))


def train(
    config: Config,
    folder: Path,
    data: Dataset,
    report: Callable[[Progress], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Path:
    """Train a network by its recipe into a run folder, from where an earlier call was stopped.

    Parameters
    ----------
    config : Config
    folder : Path
        Receives config.json, metrics.jsonl and checkpoint.safetensors. A finished run is left as it is.
    data : Dataset
    report : callable
        Called after each iteration, for progress bars.
    stop : Event, optional
        Asks the run to save and stop, as Ctrl-C does; by default Ctrl-C alone. See `stop_requests`.

    Returns
    -------
    folder : Path

    Raises
    ------
    InputError
        If the folder holds a run of another recipe or other data, is in use, or cannot be written.
    DivergenceError
        If the loss is not finite.
    Interrupted
        After Ctrl-C or `stop`, once the run is saved.
    """
    net = initial_net(config)
    config = replace(config, net=net.title)  # by_name takes "resnet-20", too
    files.make_folder(folder)
    with run_folder.locked(folder):
        claim(config, folder, data)
        run = _Run(config, folder, data, net)
        run.restore()
        asked = contextlib.nullcontext(stop) if stop else stop_requests()
        with (
            asked as stop,
            np.errstate(over="ignore", invalid="ignore"),
        ):  # what overflows is explained
            if run.iteration < config.iterations:
                note_who_trains(folder, run.iteration)
            while run.iteration < config.iterations:
                report(run.step())
                if stop.is_set():
                    run.save()
                    where = f"{quoted(folder)}{option(data)}"
                    raise Interrupted(
                        f"stopped and saved at iteration {run.iteration} of {config.iterations} in {folder}; "
                        f"the same command goes on from there, and so does: minires resume {where}"
                    )
    return folder


class _Run:
    """The state of a run between two iterations: what a checkpoint holds, and how to get to the next one."""

    def __init__(self, config: Config, folder: Path, data: Dataset, net: Network) -> None:
        self.config, self.folder, self.data, self.net = config, folder, data, net
        self.optimizer = SGD(net.parameters(), config.momentum, config.weight_decay)
        self.mean = per_pixel_mean(data.train_images)
        self.bn_rows, self.eval_rows = evaluation_rows(config, len(data.train_images))
        self.iteration, self.seconds, self.saved_at = 0, 0.0, time.monotonic()
        self.warm = config.warmup_lr is None
        self.running_error = 1 - 1 / len(data.classes)  # of a network that guesses
        self.window = {"loss": 0.0, "error": 0.0, "steps": 0}  # since the last training line

    def arrays(self) -> dict[str, Array]:
        """Everything a checkpoint must hold but the scalars."""
        velocity = {f"velocity/{name}": v for name, v in self.optimizer.velocity.items()}
        return {f"net/{name}": a for name, a in self.net.state().items()} | velocity

    def save(self) -> None:
        meta = {
            "config": self.config.to_json(),
            "iteration": self.iteration,
            "seconds": self.seconds,
            "warm": self.warm,
            "running_error": self.running_error,
            "window": self.window,
        }
        files.sync(self.folder / "metrics.jsonl")  # never behind the checkpoint
        checkpoint.save(self.folder, self.arrays(), meta)
        self.saved_at = time.monotonic()

    def restore(self) -> None:
        """Take up the latest checkpoint; metrics that came after it are dropped, they will be measured again."""
        found = checkpoint.load(self.folder)
        kept = 0
        if not found and read_run(self.folder).done:
            self.iteration = self.config.iterations
            return
        if found:
            arrays, meta = found
            theirs = meta.get("config", {}).get("net", "weights alone")
            if theirs != self.config.net or any(
                f"velocity/{name}" not in arrays for name in self.optimizer.velocity
            ):
                raise InputError(
                    f"{self.folder}: its checkpoint is of {theirs}, not {self.config.net}; restore it"
                )
            self.net.load_state(
                {k.removeprefix("net/"): a for k, a in arrays.items() if k.startswith("net/")}
            )
            for name, v in self.optimizer.velocity.items():
                v[...] = arrays[f"velocity/{name}"]
            self.iteration, self.seconds, self.warm = (
                meta["iteration"],
                meta["seconds"],
                meta["warm"],
            )
            self.running_error, self.window = meta["running_error"], meta["window"]
            kept = self.iteration
        metrics = self.folder / "metrics.jsonl"
        if metrics.exists():
            if (
                not found and metrics.stat().st_size
            ):  # of a run whose checkpoint is gone, or that never had one
                names = (f"metrics.previous{number or ''}.jsonl" for number in itertools.count())
                aside = next(path for path in map(self.folder.joinpath, names) if not path.exists())
                files.write_whole(aside, metrics.read_bytes())
            lines = [
                json.dumps(m) + "\n"
                for m in run_folder.read_lines(metrics)
                if m["iteration"] <= kept
            ]
            files.write_whole(metrics, "".join(lines).encode())

    def step(self) -> Progress:
        """Train on the next batch, then record, evaluate and save where it is time to."""
        config, start = self.config, time.monotonic()
        lr = step_schedule(config.lr, config.milestones, self.iteration)
        if not self.warm and config.warmup_lr is not None:
            lr = config.warmup_lr
        x, labels = training_batch(
            self.data,
            self.mean,
            config.seed,
            self.iteration,
            config.batch_size,
            augment=config.augment,
        )
        try:
            loss, error = train_step(self.net, self.optimizer, x, labels, lr)
        except FloatingPointError:
            raise DivergenceError(self._explain(x, lr)) from None
        self.iteration += 1
        self.running_error += SMOOTHING * (error - self.running_error)
        self.warm = self.warm or self.running_error < WARMUP_ERROR
        self.window["loss"] += loss
        self.window["error"] += error
        self.window["steps"] += 1
        last = self.iteration == config.iterations
        self.seconds += time.monotonic() - start
        if last or self.iteration % max(1, config.iterations // LINES) == 0:
            steps = self.window["steps"]
            self._record(
                "train", loss=self.window["loss"] / steps, error=self.window["error"] / steps, lr=lr
            )
            self.window = {"loss": 0.0, "error": 0.0, "steps": 0}
        if last or self.iteration % config.eval_every == 0:
            self._evaluate(lr)
        if last or self.iteration in LAYER_STEPS:
            self._record("layers", **by_layer(self.net))
        if last or time.monotonic() - self.saved_at > CHECKPOINT_SECONDS:
            self.save()
        return Progress(self.iteration, config.iterations, loss, self.running_error, lr)

    def _record(self, kind: str, **values: Any) -> None:
        line = {
            "kind": kind,
            "iteration": self.iteration,
            "seconds": round(self.seconds, 3),
            **values,
        }
        files.append_line(self.folder / "metrics.jsonl", line)

    def _evaluate(self, lr: float) -> None:
        config, images, labels = self.config, self.data.train_images, self.data.train_labels
        size = config.batch_size
        if len(self.bn_rows):
            rows = [self.bn_rows[i : i + size] for i in range(0, len(self.bn_rows), size)]
            recompute_statistics(self.net, (normalise(images[r], self.mean) for r in rows))
        sets = {
            "train": (images[self.eval_rows], labels[self.eval_rows]),
            "test": (
                self.data.test_images[: config.eval_images],
                self.data.test_labels[: config.eval_images],
            ),
        }
        values = {}
        for name, (x, y) in sets.items():
            values[f"{name}_loss"], values[f"{name}_error"] = evaluate(
                self.net, x, y, self.mean, size
            )
        if not np.isfinite(list(values.values())).all():
            raise DivergenceError(
                self._explain(normalise(images[self.eval_rows[:size]], self.mean), lr)
            )
        self._record("eval", **values)

    def _explain(self, x: Array, lr: float) -> str:
        cold = f"Lower the learning rate (it was {lr:g}; --lr), or warm up (--warmup-lr 0.01)"
        advice = (
            cold
            if self.warm
            else f"Lower the learning rate of the warm-up (it was {lr:g}; --warmup-lr)"
        )
        if checkpoint.load(self.folder):
            advice += f", and choose another --out: the checkpoint in {self.folder} is from before"
        begins = (
            f"{self.config.net} diverged at iteration {self.iteration}: the loss is not finite. "
        )
        arrays = [("the images", x), *self.net.parameters().items()]
        for name, a in arrays:
            if not np.isfinite(a).all():
                return f"{begins}First values that are not finite: {name}. {advice}"
        for name, y in layer_outputs(self.net, x, train=True).items():
            if not np.isfinite(y).all():
                return f"{begins}First values that are not finite: the output of {name}. {advice}"
        return f"{begins}All activations are finite, the loss itself overflowed. {advice}"


@contextlib.contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C (or SIGTERM) into a request to save and stop; the second one interrupts at once."""
    stop, before = threading.Event(), {}

    def ask(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
