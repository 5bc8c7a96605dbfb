"""
Record what lesson 12 cannot compute everywhere: it needs CIFAR-10, and weights of others.

`python record_transfer.py --weights FOLDER` writes transfer/record.json, in about ten minutes on two
cores. CIFAR-10 is found as by `minires train`; FOLDER has `resnet20-12fca82f.th` and
`resnet32-d509ac18.th` of github.com/akamaster/pytorch_resnet_cifar10.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from minires.data import Dataset, load, normalise, per_pixel_mean, shapes10
from minires.data.normalisation import imagenet_normalisation
from minires.exchange.weights import load_network
from minires.lab.studies.features import errors_by_labels, stage_features
from minires.lab.studies.transfer import error, fine_tune, with_statistics_of
from minires.nets.registry import by_name
from minires.ops import default_backend, prepare
from minires.runs.provenance import provenance

HERE = Path(__file__).parent
RECORD = HERE / "transfer" / "record.json"
SHAPES = HERE / "transfer" / "resnet20-shapes10.safetensors"
PHOTOGRAPHS = HERE / "runs" / "lesson-cifar10" / "resnet20-seed0" / "weights.safetensors"
COUNTS, DRAWS = (50, 100, 200, 500, 1000, 2000, 5000), 5
OTHERS = {"resnet20": "resnet20-12fca82f.th", "resnet32": "resnet32-d509ac18.th"}
PUBLISHED = {"resnet20": 8.27, "resnet32": 7.37}  # test error in %, by those who trained them
STATISTICS = 5000  # training images for batch norm's statistics
TUNING = {"steps": 200, "batch_size": 64}
WAYS = {  # how the 200 steps are taken: parts that are frozen, batch norm, rate
    "last layer": (("conv", "bn", "stage1", "stage2", "stage3"), "frozen", 0.01),
    "all, batch norm frozen": ((), "frozen", 0.001),
    "all": ((), "train", 0.001),
}
ONLY_RESNET20 = ("all, batch norm frozen", "all")  # the slow ways


def networks() -> dict[str, object]:
    """The networks whose features are compared, by what they were trained on."""
    nets = {name: load_network("resnet20", f)[0] for name, f in SOURCES.items()}
    nets["nothing"] = by_name("resnet20", rng=0)
    return {name: net.use(default_backend()) for name, net in nets.items()}


SOURCES = {"shapes": SHAPES, "photographs": PHOTOGRAPHS}


def features(cifar: Dataset) -> dict[str, dict[str, dict[str, list]]]:
    """Test errors in percent by target, source, stage, count and draw."""
    shapes = shapes10.dataset(train=STATISTICS, test=2000)
    found: dict[str, dict[str, dict[str, list]]] = {}
    for target, data in (("photographs", cifar), ("shapes", shapes)):
        images, labels = data.train[np.arange(STATISTICS)]
        test, test_labels = data.test[np.arange(2000)]
        mean = per_pixel_mean(images)
        x, y = normalise(images, mean), normalise(test, mean)
        found[target] = {}
        for source, net in networks().items():
            if source == "nothing":  # random weights have no statistics of their own
                with_statistics_of(net, x)
            known, seen = stage_features(net, x), stage_features(net, y)
            found[target][source] = {
                stage: (
                    100
                    * errors_by_labels(
                        known[stage], labels, seen[stage], test_labels, counts=COUNTS, draws=DRAWS
                    )
                )
                .round(3)
                .tolist()
                for stage in known
            }
            print(
                target,
                source,
                {s: np.mean(e, axis=1).round(1) for s, e in found[target][source].items()},
            )
    return found


def copy_of_cifar(folder: Path, cifar: Dataset, row: dict[str, float], name: str, save) -> None:
    """Test errors in percent of a network that others trained on lossless CIFAR-10, into `row`."""
    labels = cifar.train.labels
    x, test = (imagenet_normalisation()(part.images) for part in (cifar.train, cifar.test))

    def fresh():
        return load_network(name, folder / OTHERS[name])[0].use(default_backend())

    def note(way, net):
        row[way] = round(100 * error(net, test, cifar.test.labels), 3)
        save()

    if "as it is" not in row:
        note("as it is", fresh())
    if "statistics recomputed" not in row:
        note("statistics recomputed", with_statistics_of(fresh(), x[:STATISTICS]))
    for way, (frozen, norms, lr) in WAYS.items():
        if way not in row and (name == "resnet20" or way not in ONLY_RESNET20):
            net = fresh()
            fine_tune(net, x, labels, **TUNING, lr=lr, frozen=frozen, norms=norms)
            if norms == "train":
                with_statistics_of(net, x[:STATISTICS])
            note(way, net)


def measure(weights: Path, out: Path, data: Path | None = None) -> dict[str, object]:
    """Measure and write; what the file has already is not measured again."""
    prepare(default_backend())
    cifar = load("cifar10", data)
    files = {**SOURCES, **{name: weights / file for name, file in OTHERS.items()}}
    record = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}

    def save():
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    record |= {
        "command": "python lessons/record_transfer.py --weights FOLDER",
        "data": {"name": cifar.name, "sha256": cifar.sha256},
        "weights": {n: hashlib.sha256(f.read_bytes()).hexdigest() for n, f in files.items()},
        "provenance": provenance(),
        "counts": COUNTS,
        "statistics": STATISTICS,
        "tuning": TUNING | {"rates": {way: lr for way, (_, _, lr) in WAYS.items()}},
    }
    if "features" not in record:
        record["features"] = features(cifar)
        save()
    copies = record.setdefault("copy", {})
    for name, published in PUBLISHED.items():
        row = copies.setdefault(name, {"published": published})
        copy_of_cifar(weights, cifar, row, name, save)
        print(name, row)
    return record


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="folder of the .th files")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--out", type=Path, default=RECORD)
    asked = parser.parse_args()
    measure(asked.weights, asked.out, asked.data)


if __name__ == "__main__":
    main()
