"""Everything that decides the result of a run, in one record that is written beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from minires.errors import InputError
from minires.ops import BACKENDS


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
        least = {
            "iterations": 1,
            "batch_size": 2,
            "seed": 0,
            "eval_every": 1,
            "eval_images": 1,
            "bn_images": 0,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < bound:
                raise InputError(f"{name} must be an integer of at least {bound}, got {value!r}")
        for name in (
            "lr",
            "momentum",
            "weight_decay",
            *(["warmup_lr"] if self.warmup_lr is not None else []),
        ):
            if not isinstance(getattr(self, name), (int, float)):
                raise InputError(f"{name} must be a number, got {getattr(self, name)!r}")
        for name in ("lr", "warmup_lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                papers = 0.1 if name == "lr" else 0.01
                raise InputError(
                    f"{name} must be a positive number, got {value!r}; the paper's is {papers}"
                )
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
        origins = [
            record.get("provenance", {}),
            *(part["provenance"] for part in record.get("continued", [])),
        ]
        _ = (
            [part["iteration"] for part in record.get("continued", [])],
            [dict(origin) for origin in origins],
        )
        _ = record["data"]["sha256"] + record["data"]["name"]
    except InputError as e:
        raise InputError(f"{path}: {e}") from e
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder} is no run folder: it has no config.json; give the folder of one run"
        ) from None
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from e
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(
            f"{path} is damaged ({type(e).__name__}: {e}); restore it or choose another folder"
        ) from e
    return dict(record)
