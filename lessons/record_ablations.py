"""Record the ablations of lesson 7a in runs/ablations-cifar10.

`python lessons/record_ablations.py` trains 27 networks, which takes some hours on two cores, and
resumes what is unfinished. It needs CIFAR-10. The repository keeps config.json and metrics.jsonl of
each run.
"""

import itertools

from ablations import ARMS, FOLDER, SEEDS

from minires.data import load
from minires.lab.presets import base_config
from minires.ops import default_backend, prepare
from minires.runs.config import Config
from minires.train.loop import train


def config(data, arm, seed):
    """The recipe of a run."""
    _, changes = ARMS[arm]
    common = {"net": "resnet20", "seed": seed, "backend": default_backend()}
    return Config.from_json(base_config(data, "lesson", **common).to_json() | changes)


def main():
    """Train every arm with every seed."""
    data = load("cifar10")
    prepare(default_backend())
    for seed, arm in itertools.product(SEEDS, ARMS):
        train(config(data, arm, seed), FOLDER / f"{arm}-seed{seed}", data)
        print(f"{arm}, seed {seed}", flush=True)


if __name__ == "__main__":
    main()
