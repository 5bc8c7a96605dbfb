"""Everything that decides the result of a run, in one record that is written beside it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import minires
from minires.errors import InputError
from minires.ops import BACKENDS

LIBRARIES = ("numpy", "numba", "safetensors")


@dataclass(frozen=True)
class Config:
    """Recipe of one run; the defaults are the paper's for CIFAR-10 (section 4.2), iterations and milestones apart.

    Attributes
    ----------
    net : str
        Such as "plain20", "resnet56", "resnet20B".
    dataset : str
        Name of the data, such as "CIFAR-10" or "shapes10".
    iterations, batch_size : int
    lr : float
        Learning rate, divided by 10 at each of `milestones`.
    milestones : tuple of int
        See `paper_milestones`.
    warmup_lr : float or None
        Learning rate until the running training error is below `WARMUP_ERROR`, which milestones do not lower; the
        paper's 0.01 from 110 layers on.
    momentum, weight_decay : float
    seed : int
        Decides initial weights, order, crops and flips; the same for every net of an experiment.
    augment : bool
        Pad by 4, crop, flip.
    eval_every : int
        Iterations between two evaluations; there is one at the end in any case.
    eval_images : int
        Fixed training images, not augmented, and as many test images, on which errors are measured.
    bn_images : int
        Other training images, over which batch norm's statistics are recomputed before each evaluation, as the paper's
        authors did; 0 keeps the moving averages of training.
    backend : str
    """

    net: str
    dataset: str
    iterations: int
    batch_size: int = 128
    lr: float = 0.1
    milestones: tuple[int, ...] = ()
    warmup_lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    seed: int = 0
    augment: bool = True
    eval_every: int = 1000
    eval_images: int = 5000
    bn_images: int = 5000
    backend: str = "numpy"

    def __post_init__(self) -> None:
        least = {"iterations": 1, "batch_size": 2, "seed": 0, "eval_every": 1, "eval_images": 1, "bn_images": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < bound:
                raise InputError(f"{name} must be an integer of at least {bound}, got {value!r}")
        for name in ("lr", "momentum", "weight_decay", *(["warmup_lr"] if self.warmup_lr is not None else [])):
            if not isinstance(getattr(self, name), (int, float)):
                raise InputError(f"{name} must be a number, got {getattr(self, name)!r}")
        for name in ("lr", "warmup_lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                papers = 0.1 if name == "lr" else 0.01
                raise InputError(f"{name} must be a positive number, got {value!r}; the paper's is {papers}")
        if any(a >= b for a, b in zip(self.milestones, self.milestones[1:], strict=False)):
            raise InputError(f"milestones must rise, got {self.milestones}")
        if self.backend not in BACKENDS:  # a record is read where its backend is not installed, too
            raise InputError(f"backend must be one of {', '.join(BACKENDS)}, got {self.backend!r}")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"milestones": list(self.milestones)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`.

        Raises
        ------
        InputError
            If a field is missing or unknown.
        """
        known = {f.name for f in fields(cls)}
        if known != set(values):
            raise InputError(
                f"a run's config must have the fields {sorted(known)}; differing: {sorted(known ^ set(values))}. "
                "It was written by another version; train into another folder"
            )
        return cls(**{**values, "milestones": tuple(values["milestones"])})


def paper_milestones(iterations: int) -> tuple[int, ...]:
    """Half and three quarters of the way, as 32k and 48k of 64k; none below 2,000 iterations, too short to anneal."""
    return (iterations // 2, iterations * 3 // 4) if iterations >= 2000 else ()


def paper_warmup(net: str, lr: float) -> float | None:
    """The paper's warm-up (section 4.2): at 110 layers 0.1 is too large to start with, hence 0.01; fewer have none."""
    return 0.01 if int("".join(filter(str.isdigit, net))) >= 110 and lr > 0.01 else None


@dataclass(frozen=True)
class Tier:
    """A size of the degradation experiment, and what is claimed of it before it is run.

    Attributes
    ----------
    iterations : int
    lr : float
    eval_images : int
    evaluations : int
        Evenly spread; the last one at the end.
    margin : float
        Percentage points of training error by which plain-56 must end above plain-20, and above resnet-56.
    batch_size : int
    warmup_lr : float or None
        For every net; None leaves it to `paper_warmup`.
    augment : bool
        See `Config`.
    """

    iterations: int
    lr: float
    eval_images: int
    evaluations: int
    margin: float
    batch_size: int = 128
    warmup_lr: float | None = None
    augment: bool = True


# Margins are well below what two full sets of public runs on CIFAR-10 show (github.com/a-martyn/resnet): plain-56 is 30
# to 40 points above plain-20 over epochs 3 to 20, and 2.6 and 4.4 points at the end.
TIERS = {
    # At the paper's 0.1, residual nets need longer to leave plain ones; and to leave chance takes steps, not images. No
    # image is seen twice, so crops and flips, which are against learning by heart, have nothing to do.
    "quick": Tier(280, 0.01, 512, 2, 10, batch_size=64, augment=False),
    # Of so few steps ResNet-56 would spend a quarter at chance, were the first ones at 0.1.
    "lesson": Tier(2_000, 0.1, 2_000, 5, 15, warmup_lr=0.01),
    "quarter": Tier(16_000, 0.1, 5_000, 16, 5),
    "paper": Tier(64_000, 0.1, 10_000, 32, 1),
}


def tier_name(config: Mapping[str, Any]) -> str | None:
    """Tier that a run's config belongs to, if any: its size and all of its recipe."""
    own = config["iterations"], config["lr"], config["batch_size"], config["warmup_lr"], config["augment"]
    rest = tuple(config["milestones"]), config["momentum"], config["weight_decay"]
    if rest != (paper_milestones(config["iterations"]), Config.momentum, Config.weight_decay):
        return None
    for name, t in TIERS.items():
        if own == (t.iterations, t.lr, t.batch_size, t.warmup_lr or paper_warmup(config["net"], t.lr), t.augment):
            return name
    return None


def provenance() -> dict[str, Any]:
    """Where and with what this process runs; `commit` is None where the package is not tracked by git."""
    commit = _git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    tracked = _git("ls-files", "--error-unmatch", "__init__.py") is not None
    return {
        "commit": commit if tracked else None,
        "versions": {"minires": minires.__version__, "python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES if find_spec(name)},
        "machine": {"system": platform.platform(), "processor": processor(), "cores": _cores()},
    }


def _cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _git(*words: str) -> str | None:
    """What git says about the folder of the package, None if it says nothing."""
    package = Path(minires.__file__).resolve().parent
    if not any((folder / ".git").exists() for folder in package.parents):
        return None  # a Mac without git would offer to install it
    command = ["git", "-C", str(package), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def processor() -> str:
    """Name of the processor as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def read_record(folder: Path) -> dict[str, Any]:
    """config.json of a run folder: its recipe under "config", then "data", "provenance" and "continued".

    Raises
    ------
    InputError
        If the folder is no run, or the file is damaged.
    """
    path = folder / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        config = Config.from_json(record["config"])
        if not re.search(r"[a-z]\d", config.net):
            raise TypeError(f"net is {config.net}")
        origins = [record.get("provenance", {}), *(part["provenance"] for part in record.get("continued", []))]
        _ = [part["iteration"] for part in record.get("continued", [])], [dict(origin) for origin in origins]
        _ = record["data"]["sha256"] + record["data"]["name"]
    except InputError as e:
        raise InputError(f"{path}: {e}") from e
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder} is no run folder: it has no config.json; give the folder of one run") from None
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from e
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"{path} is damaged ({type(e).__name__}: {e}); restore it or choose another folder") from e
    return dict(record)
