"""Users' own code: a Python file that registers networks, data sets, tasks or ops.

`minires --plugin FILE COMMAND` imports the file before the command runs, so that a process which
resumes a run, or times a network, knows what the first process knew.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from minires.errors import InputError, quoted

LOADED: list[Path] = []  # in the order in which they were given


def load(path: Path) -> None:
    """Import a user's file, once per process.

    Raises
    ------
    InputError
        If there is no such file, or it cannot be imported.
    """
    file = path.expanduser().resolve()
    if file in LOADED:
        return
    name = f"minires_plugin_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise InputError(f"--plugin: expected a Python file, found none at {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        del sys.modules[name]
        raise InputError(f"--plugin {path} cannot be imported: {type(e).__name__}: {e}") from e
    LOADED.append(file)


def command() -> str:
    """How the command line is called here: "minires", with the plugins that were loaded."""
    return " ".join(["minires", *(f"--plugin {quoted(file)}" for file in LOADED)])
