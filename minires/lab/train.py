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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minires.data import Dataset, normalise, option, per_pixel_mean, stream, training_batch
from minires.errors import InputError, quoted
from minires.lab import checkpoint
from minires.lab.config import Config, provenance, read_record
from minires.lab.runs import read_run
from minires.layers import BatchNorm, Layer, layer_outputs, recompute_statistics
from minires.optim import SGD, step_schedule
from minires.resnet import Network, by_name, fuse

Array = np.ndarray
WARMUP_ERROR = 0.8  # section 4.2: warm up until the training error is below 80 %
SMOOTHING = 0.02  # weight of the latest batch in the running training error
LINES = 1000  # training lines in metrics.jsonl: fewer than twice as many
LAYER_STEPS = (1, 100)  # steps whose gradients and responses are recorded layer by layer; the last one too
CHECKPOINT_SECONDS = 30.0


class Interrupted(BaseException):
    """The user stopped the run, and it was saved; the message says how to go on. No handler of errors catches it."""


class DivergenceError(InputError):
    """The loss is not finite any more; the message says where it began and what helps."""


@dataclass
class Progress:
    """Where a run stands after `iteration` of `iterations`; errors are fractions."""

    iteration: int
    iterations: int
    loss: float
    error: float
    lr: float


def train_step(net: Network, optimizer: SGD, x: Array, labels: Array, lr: float) -> tuple[float, float]:
    """One step of gradient descent; return the loss and the error of the batch before it.

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C)
    labels : ndarray of shape (N,), int64
    lr : float
    """
    logits = net.forward(x, train=True)
    loss, dlogits = net.ops.softmax_cross_entropy(logits, labels)
    if not np.isfinite(loss):
        raise FloatingPointError("the loss is not finite")
    net.backward(dlogits)
    optimizer.step(net.gradients(), lr)
    return float(loss), float((logits.argmax(axis=1) != labels).mean())


def evaluate(net: Network, images: Array, labels: Array, mean: Array, batch_size: int) -> tuple[float, float]:
    """Mean loss and error of the network in evaluation mode, images as they are: no crop, no flip.

    Parameters
    ----------
    images : ndarray of shape (N, H, W, C), uint8
    labels : ndarray of shape (N,)
    mean : ndarray of shape (H, W, C)
        Per-pixel mean of the training images.
    """
    loss = wrong = 0.0
    for i in range(0, len(images), batch_size):
        part = slice(i, i + batch_size)
        logits = net.forward(normalise(images[part], mean))
        loss += float(net.ops.softmax_cross_entropy(logits, labels[part])[0]) * len(logits)
        wrong += float((logits.argmax(axis=1) != labels[part]).sum())
    return loss / len(images), wrong / len(images)


def by_layer(net: Layer) -> dict[str, dict[str, float]]:
    """Norms of each convolution's last gradient and weights, and standard deviation of each batch norm's response.

    The response is what batch norm puts out, before ReLU or addition (the paper's figure 7). It needs no forward pass:
    in channel c the mean is beta and the variance gamma^2 var / (var + eps), so over a batch and all channels the
    variance is the mean of the channels' variances plus the variance of their means.

    Returns
    -------
    record : dict
        "gradient_norm", "weight_norm" and "response_std", each by the layers' dotted names in network order. After a
        training step the weights are already those that it left behind.
    """
    kernels = {name: dw for name, dw in net.gradients().items() if dw.ndim == 4}
    gradients = {name.removesuffix(".w"): np.linalg.norm(dw) for name, dw in kernels.items()}
    weights = {name.removesuffix(".w"): np.linalg.norm(net.parameters()[name]) for name in kernels}
    responses = {}
    for name, layer in net.named_layers():
        if isinstance(layer, BatchNorm):
            var = layer.buffers["running_var"]
            within = layer.params["gamma"] ** 2 * (var / (var + layer.eps))
            responses[name] = np.sqrt(within.mean() + layer.params["beta"].var())
    record = {"gradient_norm": gradients, "weight_norm": weights, "response_std": responses}
    return {kind: {name: float(f"{v:.6g}") for name, v in values.items()} for kind, values in record.items()}


def evaluation_rows(config: Config, images: int) -> tuple[Array, Array]:
    """Which of so many training images serve batch norm's statistics, and which the training error: no image both."""
    chosen = stream(config.seed, "evaluation", 0).permutation(images)
    return chosen[: config.bn_images], chosen[config.bn_images : config.bn_images + config.eval_images]


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
    checkpoint.make_folder(folder)
    with checkpoint.locked(folder):
        claim(config, folder, data)
        run = _Run(config, folder, data, net)
        run.restore()
        asked = contextlib.nullcontext(stop) if stop else stop_requests()
        with asked as stop, np.errstate(over="ignore", invalid="ignore"):  # what overflows is explained
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
        checkpoint.sync(self.folder / "metrics.jsonl")  # never behind the checkpoint
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
            if theirs != self.config.net or any(f"velocity/{name}" not in arrays for name in self.optimizer.velocity):
                raise InputError(f"{self.folder}: its checkpoint is of {theirs}, not {self.config.net}; restore it")
            self.net.load_state({k.removeprefix("net/"): a for k, a in arrays.items() if k.startswith("net/")})
            for name, v in self.optimizer.velocity.items():
                v[...] = arrays[f"velocity/{name}"]
            self.iteration, self.seconds, self.warm = meta["iteration"], meta["seconds"], meta["warm"]
            self.running_error, self.window = meta["running_error"], meta["window"]
            kept = self.iteration
        metrics = self.folder / "metrics.jsonl"
        if metrics.exists():
            if not found and metrics.stat().st_size:  # of a run whose checkpoint is gone, or that never had one
                names = (f"metrics.previous{number or ''}.jsonl" for number in itertools.count())
                aside = next(path for path in map(self.folder.joinpath, names) if not path.exists())
                checkpoint.write_whole(aside, metrics.read_bytes())
            lines = [json.dumps(m) + "\n" for m in checkpoint.read_lines(metrics) if m["iteration"] <= kept]
            checkpoint.write_whole(metrics, "".join(lines).encode())

    def step(self) -> Progress:
        """Train on the next batch, then record, evaluate and save where it is time to."""
        config, start = self.config, time.monotonic()
        lr = step_schedule(config.lr, config.milestones, self.iteration)
        if not self.warm and config.warmup_lr is not None:
            lr = config.warmup_lr
        x, labels = training_batch(
            self.data, self.mean, config.seed, self.iteration, config.batch_size, augment=config.augment
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
            self._record("train", loss=self.window["loss"] / steps, error=self.window["error"] / steps, lr=lr)
            self.window = {"loss": 0.0, "error": 0.0, "steps": 0}
        if last or self.iteration % config.eval_every == 0:
            self._evaluate(lr)
        if last or self.iteration in LAYER_STEPS:
            self._record("layers", **by_layer(self.net))
        if last or time.monotonic() - self.saved_at > CHECKPOINT_SECONDS:
            self.save()
        return Progress(self.iteration, config.iterations, loss, self.running_error, lr)

    def _record(self, kind: str, **values: Any) -> None:
        line = {"kind": kind, "iteration": self.iteration, "seconds": round(self.seconds, 3), **values}
        checkpoint.append_line(self.folder / "metrics.jsonl", line)

    def _evaluate(self, lr: float) -> None:
        config, images, labels = self.config, self.data.train_images, self.data.train_labels
        size = config.batch_size
        if len(self.bn_rows):
            rows = [self.bn_rows[i : i + size] for i in range(0, len(self.bn_rows), size)]
            recompute_statistics(self.net, (normalise(images[r], self.mean) for r in rows))
        sets = {
            "train": (images[self.eval_rows], labels[self.eval_rows]),
            "test": (self.data.test_images[: config.eval_images], self.data.test_labels[: config.eval_images]),
        }
        values = {}
        for name, (x, y) in sets.items():
            values[f"{name}_loss"], values[f"{name}_error"] = evaluate(self.net, x, y, self.mean, size)
        if not np.isfinite(list(values.values())).all():
            raise DivergenceError(self._explain(normalise(images[self.eval_rows[:size]], self.mean), lr))
        self._record("eval", **values)

    def _explain(self, x: Array, lr: float) -> str:
        cold = f"Lower the learning rate (it was {lr:g}; --lr), or warm up (--warmup-lr 0.01)"
        advice = cold if self.warm else f"Lower the learning rate of the warm-up (it was {lr:g}; --warmup-lr)"
        if checkpoint.load(self.folder):
            advice += f", and choose another --out: the checkpoint in {self.folder} is from before"
        begins = f"{self.config.net} diverged at iteration {self.iteration}: the loss is not finite. "
        arrays = [("the images", x), *self.net.parameters().items()]
        for name, a in arrays:
            if not np.isfinite(a).all():
                return f"{begins}First values that are not finite: {name}. {advice}"
        for name, y in layer_outputs(self.net, x, train=True).items():
            if not np.isfinite(y).all():
                return f"{begins}First values that are not finite: the output of {name}. {advice}"
        return f"{begins}All activations are finite, the loss itself overflowed. {advice}"


def claim(config: Config, folder: Path, data: Dataset) -> None:
    """Write config.json, or make sure that the one there asks for the same run, if anything of a run is left.

    Raises
    ------
    InputError
        If the folder holds another run, or a checkpoint that nothing is known of, or the data have too few images.
    """
    needed, images = config.bn_images + config.eval_images, len(data.train_images)
    if needed > images or config.eval_images > len(data.test_images):
        raise InputError(
            f"evaluation needs {needed} training and {config.eval_images} test images, {data.name} has {images} and "
            f"{len(data.test_images)}; ask for fewer (--eval-images)"
        )
    path, wanted = folder / "config.json", config.to_json()
    found = read_record(folder) if path.exists() else None
    if not found and any((folder / name).exists() for name in (checkpoint.NAME, checkpoint.PREVIOUS)):
        raise InputError(f"{folder} has a checkpoint but no config.json; put it back, or choose another --out")
    there, here = found and (found["config"], found["data"]["sha256"]), (wanted, data.sha256)
    if not found or (there != here and not position(folder) and not read_run(folder).evals):  # nothing was saved yet
        source = Path(data.source).name  # a record is to be shared: it names no path of a machine
        record = {
            "config": wanted,
            "data": {"name": data.name, "source": source, "sha256": data.sha256},
            "provenance": provenance(),
            "continued": [],
        }
        checkpoint.write_whole(path, (json.dumps(record, indent=2) + "\n").encode())
        return
    recipe = found["config"]
    differing = [f"{k} {recipe.get(k)} there, {v} asked for" for k, v in wanted.items() if recipe.get(k) != v]
    if differing:
        raise InputError(f"{folder} holds another run: {'; '.join(differing)}. Choose another --out")
    if found["data"]["sha256"] != data.sha256:
        raise InputError(
            f"{folder} was trained on other data: {found['data']['name']} with SHA-256 {found['data']['sha256'][:12]}, "
            f"now {data.sha256[:12]}; give the data it began with (--data), or choose another --out"
        )


def note_who_trains(folder: Path, iteration: int) -> None:
    """Say in config.json which commit, versions and machine train from here on, where they are not those so far.

    "provenance" is that of the first iteration; "continued" lists from which iteration another one took over.
    """
    record, here = read_record(folder), provenance()
    first = record.get("provenance", {}) if iteration else here
    parts = [part for part in record.get("continued", []) if part["iteration"] < iteration]
    if (parts[-1]["provenance"] if parts else first) != here:
        parts.append({"iteration": iteration, "provenance": here})
    noted = record | {"provenance": first, "continued": parts}
    if noted != record:
        checkpoint.write_whole(folder / "config.json", (json.dumps(noted, indent=2) + "\n").encode())


def position(folder: Path) -> int:
    """Iterations that a run has behind it: by its checkpoint, or all of them if it was finished and has none."""
    found = checkpoint.load(folder)
    if found:
        return int(found[1]["iteration"])
    run = read_run(folder)
    return int(run.config["iterations"]) if run.done else 0


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
