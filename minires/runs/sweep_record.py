"""sweep.json: the recipe, the data and the versions that all workers of a sweep must have."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.runs import files
from minires.runs.config import Config
from minires.runs.provenance import differing_versions, processor, versions
from minires.text import shown

NAME = "sweep.json"


def claim(out: Path, base: Config, data: str) -> None:
    """Make `out` the folder of this sweep, or make sure that it is.

    Other nets and seeds may be added later: they are runs of their own.

    Parameters
    ----------
    out : Path
    base : Config
        The recipe of every run, except for its net and seed.
    data : str
        SHA-256 of the data.

    Raises
    ------
    InputError
        If it is the folder of a sweep with another recipe, other data or other versions; both
        values are named.
    """
    recipe = {k: v for k, v in base.to_json().items() if k not in ("net", "seed")}
    mine = {
        "recipe": recipe,
        "data": data,
        "versions": versions(),
        "processor": processor(),
    }
    files.make_folder(out)
    if not files.create(out / NAME, (json.dumps(mine, indent=2) + "\n").encode()):
        _compare(out, _read(out / NAME), mine)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = files.escaped(files.parse_json(path.read_text(encoding="utf-8")))
        return {key: dict(found[key]) for key in ("recipe", "versions")} | {
            key: str(found[key]) for key in ("data", "processor")
        }
    except (OSError, KeyError, TypeError, ValueError) as e:
        raise InputError(
            f"{shown(path)} is damaged or cannot be read ({type(e).__name__}: {shown(e)}); "
            "restore it, or choose another --out"
        ) from e


def _compare(out: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    begins = f"{shown(out)} holds a sweep with"
    differing = [
        f"{name} {there['recipe'].get(name)}, not {value}"
        for name, value in here["recipe"].items()
        if there["recipe"].get(name) != value
    ]
    if differing:
        raise InputError(f"{begins} another recipe: {'; '.join(differing)}; choose another --out")
    if there["data"] != here["data"]:
        raise InputError(
            f"{begins} other data, SHA-256 {there['data'][:12]}, not {here['data'][:12]}; give the "
            "same data, or choose another --out"
        )
    others = differing_versions(there["versions"], here["versions"])
    if others:
        raise InputError(
            f"{begins} other versions (its own, and those here): {'; '.join(others)}; install the "
            "same, or choose another --out"
        )
    if there["processor"] != here["processor"]:
        warnings.warn(
            f"this sweep began on {there['processor']}, and here is {here['processor']}: runs that "
            "go on here may differ in the last bits",
            stacklevel=3,
        )
