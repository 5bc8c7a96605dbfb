"""config.json: what a run is, recorded before it begins, and the one reader of old records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.nets import registry
from minires.nets.network import Facts
from minires.runs.config import Config
from minires.runs.metric import ERROR, Metric

NAME = "config.json"


@dataclass(frozen=True)
class Record:
    """What config.json says.

    Attributes
    ----------
    config : Config
    facts : Facts
        Of the network; derived from its name where version 0.1 did not record them.
    metrics : tuple of Metric
        Of the task, the main one first.
    data : dict
        "name", "source" and "sha256" of the data.
    provenance : dict
        Of the first iteration: commit, versions, machine.
    continued : list of dict
        From which "iteration" another "provenance" took over.
    """

    config: Config
    facts: Facts
    metrics: tuple[Metric, ...]
    data: dict[str, Any]
    provenance: dict[str, Any]
    continued: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "config": self.config.to_json(),
            "network": self.facts.to_json(),
            "metrics": [metric.to_json() for metric in self.metrics],
            "data": self.data,
            "provenance": self.provenance,
            "continued": self.continued,
        }


def read_record(folder: Path) -> Record:
    """Read config.json of a run folder.

    Raises
    ------
    InputError
        If the folder is no run, or the file is damaged.
    """
    path = folder / NAME
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except InputError as e:
        raise InputError(f"{path}: {e}") from e
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder} is no run folder: it has no config.json; give the folder of one run"
        ) from None
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from e
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise InputError(
            f"{path} is damaged ({type(e).__name__}: {e}); restore it or choose another folder"
        ) from e


def _parse(found: Mapping[str, Any]) -> Record:
    config = Config.from_json(found["config"])
    # version 0.1 recorded neither facts nor metrics
    known = {"network": None, "metrics": [ERROR.to_json()]} | dict(found)
    metrics = tuple(map(Metric.from_json, known["metrics"]))
    network = known["network"]
    facts = registry.facts(config.net) if network is None else Facts.from_json(network)
    if not metrics:
        raise TypeError("it names no metric")
    record = Record(
        config,
        facts,
        metrics,
        dict(found["data"]),
        dict(found.get("provenance", {})),
        [_continuation(part) for part in found.get("continued", [])],
    )
    _check_facts(record.facts, config.net)
    for name in ("name", "sha256"):
        if not isinstance(record.data[name], str):
            raise TypeError(f"{name} of the data is {record.data[name]}")
    return record


def _check_facts(facts: Facts, net: str) -> None:
    """Refuse facts of another network than the recipe's; of users' families only the name."""
    if facts.name != net:
        raise TypeError(f"net is {net}, and the network's facts are of {facts.name}")
    if facts.family in registry.FAMILIES:
        known = registry.facts(net)
        if (known.family, known.depth, known.variant) != (facts.family, facts.depth, facts.variant):
            raise TypeError(f"the network's facts are not those of {net}")


def _continuation(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"iteration": part["iteration"], "provenance": dict(part["provenance"])}


def differences(there: Config, here: Config) -> Sequence[str]:
    """What a recorded recipe and another one differ in, in words."""
    recorded = there.to_json()
    return [
        f"{name} {recorded[name]} there, {value} asked for"
        for name, value in here.to_json().items()
        if recorded[name] != value
    ]
