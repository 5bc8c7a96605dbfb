"""config.json: a run's recipe, network, data and machine; the only reader of old records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.nets import registry
from minires.nets.network import Facts
from minires.runs import files
from minires.runs.config import Config
from minires.runs.metric import ERROR, Metric
from minires.text import shown

NAME = "config.json"


@dataclass(frozen=True)
class Record:
    """The content of config.json.

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
        Changes of provenance: each entry's "provenance" applies from its "iteration" on.
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
        If the folder is not a run, or the file is damaged.
    """
    path = folder / NAME
    where = shown(path)
    try:
        return _parse(files.escaped(files.parse_json(path.read_text(encoding="utf-8"))))
    except InputError as e:
        raise InputError(f"{where}: {shown(e)}") from e
    except OSError as e:
        reason = files.cause(e)
        if isinstance(e, (FileNotFoundError, NotADirectoryError)) and reason == e.strerror:
            raise InputError(
                f"{shown(folder)} is not a run folder: it has no config.json; "
                "give the folder of one run"
            ) from None
        raise InputError(f"{where} cannot be read: {reason}; {files.advice(e)}") from e
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        reason = f"{shown(e)} is missing" if isinstance(e, KeyError) else shown(e)
        raise InputError(
            f"{where} is damaged ({reason}); restore it, or delete {shown(folder)} to train this "
            "run again"
        ) from e


def _parse(found: Any) -> Record:
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        raise TypeError("expected an object with a config")
    config = Config.from_json(found["config"])
    # version 0.1 recorded neither facts nor metrics
    known = {"network": None, "metrics": [ERROR.to_json()]} | dict(found)
    metrics = tuple(Metric.from_json(_object(metric)) for metric in known["metrics"])
    network = known["network"]
    facts = registry.facts(config.net) if network is None else Facts.from_json(network)
    if not metrics:
        raise TypeError("it names no metric")
    record = Record(
        config,
        facts,
        metrics,
        _object(found["data"]),
        _provenance(found.get("provenance", {})),
        [_continuation(part) for part in found.get("continued", [])],
    )
    _check_facts(record.facts, config.net)
    for name in ("name", "sha256"):
        if not isinstance(record.data[name], str) or not record.data[name]:
            raise TypeError(f"{name} of the data is {record.data[name]!r}")
    return record


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {value!r}")
    return value


def _provenance(value: Any) -> dict[str, Any]:
    plugins = _object(value).get("plugins", [])
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        raise TypeError(f"the plugins are {plugins!r}")
    return value


def _check_facts(facts: Facts, net: str) -> None:
    """Refuse facts of another network than the recipe's; of users' families only the name."""
    if facts.name != net:
        raise TypeError(f"net is {net}, and the network's facts are of {facts.name}")
    if facts.family in registry.FAMILIES:
        known = registry.facts(net)
        same = all(getattr(known, n) == getattr(facts, n) for n in ("family", "depth", "variant"))
        if not same or len(known.input_shape) != len(facts.input_shape):
            raise TypeError(f"the network's facts are not those of {net}")


def _continuation(part: Any) -> dict[str, Any]:
    iteration = _object(part)["iteration"]
    if type(iteration) is not int or not 0 <= iteration < 2**63:
        raise TypeError(f"a run was continued at iteration {iteration!r}")
    return {"iteration": iteration, "provenance": _provenance(part["provenance"])}


def differences(there: Config, here: Config) -> Sequence[str]:
    """Each setting in which a recorded recipe differs from the one asked for, in words."""
    recorded = there.to_json()
    return [
        f"{name} {recorded[name]} there, {value} asked for"
        for name, value in here.to_json().items()
        if recorded[name] != value
    ]
