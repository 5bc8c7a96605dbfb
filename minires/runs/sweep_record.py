"""sweep.json: the recipe, the data and the versions that all workers of a sweep must have."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minires.errors import InputError
from minires.runs import files
from minires.runs.config import OPTIONS, Config
from minires.runs.provenance import differing_versions, processor, versions
from minires.runs.record import NAME as RUN_NAME
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
        values are named. Or if it is the folder of a single run.
    """
    if (out / RUN_NAME).exists():
        raise InputError(
            f"{shown(out)} is the folder of a single run; choose another --out for a sweep"
        )
    mine = {
        "recipe": _recipe(base),
        "data": data,
        "versions": versions(),
        "processor": processor(),
    }
    files.make_folder(out)
    if not files.create(out / NAME, (json.dumps(mine, indent=2) + "\n").encode()):
        _compare(out, _read(out / NAME), mine)


def read(out: Path) -> tuple[Config, str]:
    """Read the recipe of the sweep in a folder, and the SHA-256 of its data; nothing is written.

    Returns
    -------
    base : Config
        Its `net` is "any", its `seed` 0.
    data : str

    Raises
    ------
    InputError
        If the folder holds no sweep, or its record is damaged.
    """
    path = out / NAME
    if not path.is_file():
        why = "it has no sweep.json" if out.is_dir() else "there is no such folder"
        why = "it is the folder of a single run" if (out / RUN_NAME).is_file() else why
        why = "it is a file" if out.is_file() else why
        raise InputError(f"{shown(out)} holds no sweep: {why}; give the --out of a sweep")
    found = _read(path)
    try:
        return Config.from_json({**found["recipe"], "net": "any", "seed": 0}), found["data"]
    except (InputError, TypeError, ValueError) as e:
        raise InputError(f"{shown(path)} is damaged ({shown(e)}); restore it") from e


def check_recipe(out: Path, base: Config, typed: Mapping[str, Any]) -> None:
    """Refuse settings that differ from the recipe of the sweep in a folder.

    Parameters
    ----------
    out : Path
    base : Config
        The recorded recipe.
    typed : dict
        Some fields of `Config`. The net and the seed are not compared.

    Raises
    ------
    InputError
        If they differ; both values are named.
    """
    recipe = _recipe(base)
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in typed.items() if k in recipe}
    advice = "leave these options out, or give another --out"
    _compare_recipes(out, recipe, lists, advice)


def check_data(out: Path, there: str, here: str) -> None:
    """Refuse other data than those of the sweep in a folder, by their SHA-256.

    Raises
    ------
    InputError
        If they differ.
    """
    if there != here:
        raise InputError(
            f"{shown(out)} holds a sweep with other data, SHA-256 {there[:12]}, not {here[:12]}; "
            "give the same data, or choose another --out"
        )


def _recipe(base: Config) -> dict[str, Any]:
    return {k: v for k, v in base.to_json().items() if k not in ("net", "seed")}


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
    _compare_recipes(out, there["recipe"], here["recipe"])
    check_data(out, there["data"], here["data"])
    others = differing_versions(there["versions"], here["versions"])
    if others:
        raise InputError(
            f"{shown(out)} holds a sweep with other versions (its own, and those here): "
            f"{'; '.join(others)}; install the same, or choose another --out"
        )
    if there["processor"] != here["processor"]:
        warnings.warn(
            f"this sweep began on {there['processor']}, and here is {here['processor']}: runs that "
            "go on here may differ in the last bits",
            stacklevel=3,
        )


def _compare_recipes(
    out: Path,
    there: Mapping[str, Any],
    here: Mapping[str, Any],
    advice: str = "choose another --out",
) -> None:
    differing = [
        f"{_typed(name, there.get(name))}, not {_typed(name, value)}"
        for name, value in here.items()
        if there.get(name) != value
    ]
    if differing:
        raise InputError(
            f"{shown(out)} holds a sweep with another recipe: {'; '.join(differing)}; {advice}"
        )


def _typed(name: str, value: Any) -> str:
    """A setting as it is typed; by its name if no option sets it."""
    row = OPTIONS.get(name)
    words = row.command(tuple(value) if isinstance(value, list) else value) if row else []
    return " ".join(words) if row and row.option.help and words else f"{name} {value}"
