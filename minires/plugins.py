"""Load users' own code: a Python file that registers networks, data sets, tasks or ops.

`minires --plugin FILE COMMAND` imports the file before the command runs. A process that resumes a
run, or times a network, loads the same files as the first process.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path

from minires.errors import InputError, quoted

LOADED: list[Path] = []  # in the order in which they were given


def load(path: Path) -> None:
    """Import a user's file, once per process.

    Raises
    ------
    InputError
        If there is no such file, or it cannot be imported: the message names file and line.
    """
    file = path.expanduser().resolve()
    if file in LOADED:
        return
    name = f"minires_plugin_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise InputError(f"--plugin: expected a Python file, found none at {path}")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # SystemExit, too: a plugin must not end the program
        del sys.modules[name]
        if before:
            sys.modules[name] = before
        raise InputError(f"--plugin {_failure(e, file)}") from e
    LOADED.append(file)


def _failure(error: BaseException, file: Path) -> str:
    """Name the file and the line of a plugin that failed, and the error."""
    where, line = file, 0
    if isinstance(error, SyntaxError) and error.filename:
        where, line = Path(error.filename), error.lineno or 0
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename) == file:
            line = frame.lineno or 0
    place = f"{where}, line {line}" if line else str(where)
    if isinstance(error, SystemExit):
        return f"{place} calls sys.exit; a plugin only registers, so remove this call"
    words = " ".join(str(error).split())
    return f"{place} raises {type(error).__name__}{': ' if words else ''}{words}; mend the file"


def require(recorded: list[str], command: str) -> None:
    """Check that the plugins of a recorded run are loaded.

    Parameters
    ----------
    recorded : list of str
        File names, as the record of the run has them.
    command : str
        The command that needs them, such as "resume runs/mine"; for the advice.

    Raises
    ------
    InputError
        If one of them is not loaded.
    """
    loaded = {file.name for file in LOADED}
    names = recorded if isinstance(recorded, list) else []  # a record may be damaged
    missing = [name for name in map(str, names) if name not in loaded]
    if missing:
        options = " ".join(f"--plugin {quoted(Path(name))}" for name in missing)
        raise InputError(
            f"this run was recorded with the plugin {', '.join(missing)}, which is not loaded; "
            f"load it: minires {options} {command}"
        )


def command() -> str:
    """Return the start of a command to print: "minires", with an option for each loaded plugin."""
    return " ".join(["minires", *(f"--plugin {quoted(file)}" for file in LOADED)])
