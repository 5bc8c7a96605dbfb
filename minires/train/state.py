"""The state of a run between two iterations, and the step to the next one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minires.data import Dataset, Rows, Split, even_batches, seeds, training_batch
from minires.data.prefetch import Prefetch
from minires.layers.base import Array, layer_outputs
from minires.layers.core import recompute_statistics
from minires.nets.freeze import trained_parameters
from minires.nets.network import Network
from minires.optim import SGD, Plateau, step_schedule
from minires.runs.config import Config
from minires.runs.run_folder import RunFolder
from minires.train.layerwise import by_layer
from minires.train.progress import Progress
from minires.train.ranks import ALONE, Ranks
from minires.train.resuming import check_checkpoint
from minires.train.rows import evaluation_rows, prepared
from minires.train.shards import sharded_step
from minires.train.stopping import DivergenceError
from minires.train.task import get_task, guess_of, measured_by

SMOOTHING = 0.02  # weight of the latest batch in the running training metric
LINES = 1000  # metrics.jsonl gets from LINES to 2 LINES training lines in a long run
LAYER_STEPS = (1, 100)  # iterations that are recorded layer by layer, beside the last one
CHECKPOINT_SECONDS = 30.0


def _one(batch: Array) -> int:
    """Weight of a batch in runs that give every batch the same."""
    return 1


def _net_state(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The network's part of a checkpoint's arrays, as `Layer.load_state` takes it."""
    return {k.removeprefix("net/"): a for k, a in arrays.items() if k.startswith("net/")}


class TrainingRun:
    """A run in progress.

    Parameters
    ----------
    config : Config
    folder : RunFolder
        Acquired and locked.
    data : Dataset
    net : Network
        With its initial weights.
    ranks : Ranks
        The processes that train this run together. Each of them takes every step and evaluates,
        which takes no longer than waiting for one that does.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        data: Dataset,
        net: Network,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config = config
        self.folder = folder
        self.net = net
        self.ranks = ranks
        self.data = prepared(config, data)
        self.task = get_task(config.task)
        self.metric = self.task.metrics[0]
        trained = trained_parameters(net)
        self.optimizer = SGD(trained, config.momentum, config.weight_decay)
        self.plateau = self._new_plateau()
        self.prefetch: Prefetch | None = None
        self.bn_rows, self.eval_rows = evaluation_rows(config, len(data.train))
        self.iteration = 0
        self.ended = False
        self.seconds = 0.0
        self.waited = 0.0  # seconds of these that steps waited for pictures
        self.saved_at = time.monotonic()
        self.warm = config.warmup_lr is None
        self.running = guess_of(self.task, config.task, data)  # main metric, a moving average
        self.window: dict[str, float] = {"steps": 0}  # sums of metrics since the last training line

    @property
    def on_disk(self) -> bool:
        """Whether images are read from the disk when they are prepared, so ahead of the step."""
        return getattr(self.data.prepare, "on_disk", False)

    def _new_plateau(self) -> Plateau | None:
        """The rule that lowers the rate when the test metric no longer improves, if asked for."""
        epochs = self.config.plateau
        if epochs is None:
            return None
        iterations = -(-epochs * len(self.data.train) // self.config.batch_size)
        return Plateau(iterations, self.metric.lower_is_better)

    def close(self) -> None:
        """Stop the thread that prepares batches."""
        if self.prefetch:
            self.prefetch.close()
            self.prefetch = None

    # ------------------------------------------------------------------------------ checkpoints

    def arrays(self) -> dict[str, Array]:
        """Arrays of a checkpoint: the network's state and the optimizer's velocities."""
        velocity = {f"velocity/{name}": v for name, v in self.optimizer.velocity.items()}
        return {f"net/{name}": a for name, a in self.net.state().items()} | velocity

    def meta(self) -> dict[str, Any]:
        """JSON values of a checkpoint."""
        meta: dict[str, Any] = {
            "config": self.config.to_json(),
            "iteration": self.iteration,
            "seconds": self.seconds,
            "warm": self.warm,
            "running_error": self.running,
            "window": self.window,
            "waited": self.waited,
        }
        if self.plateau:
            meta["plateau"] = self.plateau.state()
        return meta

    def save(self) -> None:
        """Write a checkpoint."""
        self.folder.save(self.arrays(), self.meta())
        self.saved_at = time.monotonic()

    def join(self) -> None:
        """Continue from the state of rank 0, which has read its checkpoint."""
        told = {"ended": self.ended, **self.meta()}
        meta, arrays = self.ranks.share(told, self.arrays())[0]
        self.ended = meta["ended"]
        self._continue_from(arrays, meta)

    def restore(self) -> None:
        """Continue from the latest checkpoint, if there is one.

        A run that is complete but for the record of its last evaluation is evaluated again.
        """
        found = self.folder.load()
        if found is None and self.folder.read().done:
            self.iteration = self.folder.position()
            self.ended = True
            return
        if found:
            # before anything is dropped
            check_checkpoint(self.folder, self.config, self.arrays(), *found)
            self._continue_from(*found)
        self.folder.drop_newer(self.iteration, self.metric, keep_copy=not found)
        self.ended = self.folder.read().done
        if self.iteration == self.config.iterations and not self.ended:
            self._evaluate(self._learning_rate())
            self.ended = True

    def _continue_from(self, arrays: dict[str, Array], meta: dict[str, Any]) -> None:
        self.net.load_state(_net_state(arrays))
        for name, v in self.optimizer.velocity.items():
            v[...] = arrays[f"velocity/{name}"]
        self.iteration = meta["iteration"]
        self.seconds = meta["seconds"]
        self.warm = meta["warm"]
        self.running = meta["running_error"]
        self.window = meta["window"]
        self.waited = meta.get("waited", 0.0)
        if self.plateau:
            self.plateau.load_state(meta.get("plateau", {}))

    # -------------------------------------------------------------------------------- iterations

    def step(self) -> Progress:
        """Train on the next batch, then record, evaluate and save as scheduled."""
        start = time.monotonic()
        lr = self._learning_rate()
        measured = self._train(lr)
        self.iteration += 1
        self._average(measured)
        self.seconds += time.monotonic() - start
        last = self.iteration == self.config.iterations
        evaluate = last or self.iteration % self.config.eval_every == 0
        if last or self.iteration % max(1, self.config.iterations // LINES) == 0:
            self._record_window(lr)
        if evaluate:
            value = self._evaluate(lr)[f"train_{self.metric.name}"]
            last = last or self.metric.reaches(value, self.config.until)
        if last or self.iteration in LAYER_STEPS:
            self._record_layers()
        if last or time.monotonic() - self.saved_at > CHECKPOINT_SECONDS:
            self.save()
        self.ended = last
        loss = measured["loss"]
        iterations = self.config.iterations
        return Progress(self.iteration, iterations, loss, self.running, lr, self.metric, last)

    def _learning_rate(self) -> float:
        config = self.config
        if not self.warm and config.warmup_lr is not None:
            return config.warmup_lr
        lr = step_schedule(config.lr, config.milestones, self.iteration)
        return self.plateau.lr(lr) if self.plateau else lr

    def _train(self, lr: float) -> dict[str, float]:
        """Take one step; return the metrics of its batch."""
        config = self.config
        batch = self._batch()
        drawn = seeds(config.seed, "layers", self.iteration)
        work = (self.task, self.net, self.optimizer, batch, lr)
        try:
            values = sharded_step(*work, config.shards, drawn, self.ranks)
        except FloatingPointError:
            raise DivergenceError(self._explain(batch[0], lr)) from None
        measured = measured_by(self.task, config.task, "step", values)
        if not np.isfinite(measured["loss"]):
            raise DivergenceError(self._explain(batch[0], lr))
        return measured

    def _batch(self) -> tuple[Array, Array]:
        """The batch of this iteration; pictures on disk were prepared during earlier steps."""
        if not self.on_disk:
            return self._make_batch(self.iteration)
        if self.prefetch is None:
            self.prefetch = Prefetch(self._make_batch, self.iteration, self.config.iterations)
        before = self.prefetch.waited
        batch = self.prefetch.get(self.iteration)
        self.waited += self.prefetch.waited - before
        return batch

    def _make_batch(self, iteration: int) -> tuple[Array, Array]:
        config = self.config
        augment = config.augment or config.pca_colour
        return training_batch(self.data, config.seed, iteration, config.batch_size, augment)

    def _average(self, measured: dict[str, float]) -> None:
        """Update the running metric, the warm-up that depends on it, and the sums of the window."""
        self.running += SMOOTHING * (measured[self.metric.name] - self.running)
        if self.task.warm_below is not None:
            self.warm = self.warm or self.running < self.task.warm_below
        for name, value in measured.items():
            self.window[name] = self.window.get(name, 0.0) + value
        self.window["steps"] += 1

    # ---------------------------------------------------------------------------------- metrics

    def _record(self, kind: str, **values: Any) -> None:
        line: dict[str, Any] = {
            "kind": kind,
            "iteration": self.iteration,
            "seconds": round(self.seconds, 3),
        }
        if self.on_disk and kind == "train":
            line["waited"] = round(self.waited, 3)
        self.folder.append(line | values)

    def _record_window(self, lr: float) -> None:
        steps = self.window.pop("steps")
        self._record("train", **{name: v / steps for name, v in self.window.items()}, lr=lr)
        self.window = {"steps": 0}

    def _record_layers(self) -> None:
        record = by_layer(self.net)
        if record["gradient_norm"]:
            self._record("layers", **record)

    def _evaluate(self, lr: float) -> dict[str, float]:
        """Evaluate and record; return the metrics by their recorded names."""
        config, data, size = self.config, self.data, self.config.batch_size
        self._recompute_statistics()
        sets: dict[str, Split] = {
            "train": Rows(data.train, self.eval_rows),
            "test": Rows(data.test, np.arange(config.eval_images)),
        }
        values: dict[str, float] = {}
        for name, split in sets.items():
            returned = self.task.evaluate(self.net, split, data.prepare, size)
            measured = measured_by(self.task, config.task, "evaluate", returned)
            values |= {f"{name}_{key}": value for key, value in measured.items()}
        if not np.isfinite(list(values.values())).all():
            images, _ = data.train[self.eval_rows[:size]]
            raise DivergenceError(self._explain(data.prepare(images, None), lr))
        self._record("eval", **values)
        if self.plateau:
            self.plateau.observe(self.iteration, values[f"test_{self.metric.name}"])
        return values

    def _recompute_statistics(self) -> None:
        """Recompute batch norm's statistics in the way that the run's record names."""
        rows, size, data = self.bn_rows, self.config.batch_size, self.data
        self.net.reseed(seeds(self.config.seed, "statistics", self.iteration))
        if self.config.bn_average == "images":
            batches = even_batches(rows, size)
            weigh: Callable[[Array], int] = len
        else:  # a run that version 0.1 began goes on as it began
            batches = [rows[i : i + size] for i in range(0, len(rows), size)]
            weigh = _one
        if batches:
            images = (data.prepare(data.train[r][0], None) for r in batches)
            recompute_statistics(self.net, images, weigh)

    def _explain(self, x: Array, lr: float) -> str:
        """The message of a divergence: where values stop being finite, and what helps."""
        begins = (
            f"{self.config.net} diverged at iteration {self.iteration}: the loss is not finite. "
        )
        advice = self._advice(lr)
        for name, a in [("the images", x), *self.net.parameters().items()]:
            if not np.isfinite(a).all():
                return f"{begins}First values that are not finite: {name}. {advice}"
        for name, y in layer_outputs(self.net, x, train=True).items():
            if not np.isfinite(y).all():
                return f"{begins}First values that are not finite: the output of {name}. {advice}"
        return f"{begins}All activations are finite, the loss itself overflowed. {advice}"

    def _advice(self, lr: float) -> str:
        advice = f"Lower the learning rate of the warm-up (it was {lr:g}; --warmup-lr)"
        if self.warm:
            advice = f"Lower the learning rate (it was {lr:g}; --lr), or warm up (--warmup-lr 0.01)"
        if self.folder.has_checkpoint():
            advice += f", and choose another --out: the checkpoint in {self.folder} is from before"
        return advice
