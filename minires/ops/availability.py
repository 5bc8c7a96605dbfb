"""Find out whether the compiled backend can run here, and if not, why.

Numba is optional: if it is missing or broken, the NumPy backend is used. Importing this module does
not import Numba.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
import warnings
from contextlib import suppress
from functools import cache

from minires.text import shown

# if the system refuses to start a thread, OpenMP ends the process
MOST_THREADS = 1024

# variables of Numba that change neither results nor machine code
HARMLESS = {"NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES", "NUMBA_NUM_THREADS"}
THREADING = {"NUMBA_THREADING_LAYER", "NUMBA_THREADING_LAYER_PRIORITY"}

# Numba's warning about a variable that it cannot read; it then uses the default
UNREADABLE = re.compile(r"Environment variable '(\w+)' .* value '(.*)' could not be parsed", re.S)

# LLVM writes the names that it does not know to standard error, and then ignores them
ASK_LLVM = """
import sys
from llvmlite import binding
binding.initialize_native_target()
target = binding.Target.from_triple(binding.get_process_triple())
target.create_target_machine(cpu=sys.argv[1], features=sys.argv[2])
"""


def settings() -> dict[str, str]:
    """Variables of Numba that are set and may change the last bits of results."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith("NUMBA_") and name not in HARMLESS
    }


def numba_installed() -> bool:
    """Whether Numba is installed; it may still be unusable, see `why_not_numba`."""
    return importlib.util.find_spec("numba") is not None


def why_not_numba() -> str:
    """Why the compiled backend cannot run in this process, in one line; empty if it can."""
    if not numba_installed():
        return "Numba is not installed: pip install numba"
    return _problem()


@cache
def _problem() -> str:
    """Return the first thing that goes wrong on the way to compiled ops."""
    for step in (_import_numba, _check_settings, _start_threads, _import_kernels):
        try:
            found = step()
        except Exception as e:
            found = f"Numba cannot be used: {in_one_line(e)}{_advice()}"
        if found:
            return found
    return ""


def _import_numba() -> str:
    asked = os.environ.get("NUMBA_NUM_THREADS", "")
    if re.fullmatch("-?[0-9]+", asked) and not 1 <= int(asked[:20]) <= MOST_THREADS:
        return f"NUMBA_NUM_THREADS must be 1 to {MOST_THREADS}, got {asked}; change or unset it"
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            importlib.import_module("numba.core.config")
        except Exception as e:
            return (
                f"importing Numba raises {in_one_line(e)}; install a Numba that fits the other "
                f"packages: pip install --upgrade numba{_advice()}"
            )
    for warning in seen:
        unreadable = UNREADABLE.match(str(warning.message))
        if unreadable:
            return f"{unreadable[1]}={unreadable[2]} cannot be read; change or unset it"
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return ""


def _check_settings() -> str:
    config = importlib.import_module("numba.core.config")
    if config.DISABLE_JIT:
        return "NUMBA_DISABLE_JIT forbids Numba to compile; unset it"
    return _check_processor(config.CPU_NAME or "", config.CPU_FEATURES or "")


def _check_processor(name: str, features: str) -> str:
    """Ask LLVM, in a process of its own, whether it knows a processor and its features."""
    if not (name or features) or not sys.executable:
        return ""
    command = [sys.executable, "-c", ASK_LLVM, name, features]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""  # LLVM could not be asked, but may know the names
    said = done.stderr.decode(errors="replace")
    unknown = re.search(r"'([^']*)' is not a recognized (processor|feature)", said)
    if unknown is None:
        return ""
    variable = "NUMBA_CPU_NAME" if unknown[2] == "processor" else "NUMBA_CPU_FEATURES"
    return f"{variable}: LLVM knows no {unknown[2]} {unknown[1]!r} here; change or unset it"


def _start_threads() -> str:
    """Start Numba's threads, and choose beforehand how they wait and how memory is kept."""
    threads = importlib.import_module("minires.ops.compiled.threads")
    threads.start_threads()
    threads.forbid_kernels_after_fork()
    threads.keep_freed_memory()
    return ""


def _import_kernels() -> str:
    importlib.import_module("minires.ops.compiled.warm_up")
    return ""


def compile_error(error: Exception) -> str:
    """Say that a kernel could not be compiled, and name the variables that may be the cause."""
    return f"the kernels cannot be compiled: {in_one_line(error)}{_advice()}"


def _advice() -> str:
    """Name the variables of Numba that are set and may be the cause of a fault."""
    found = ", ".join(f"{name}={value}" for name, value in settings().items())
    return f"; change or unset {found}" if found else ""


@cache
def warn_once(text: str) -> None:
    """Warn, once in a process, even if standard error is closed or full."""
    with suppress(OSError, ValueError):
        warnings.warn(text, stacklevel=2)


def in_one_line(error: BaseException) -> str:
    """Type and message of an exception, without line breaks and control characters."""
    words = " ".join(str(error).split()).rstrip(".")
    return shown(f"{type(error).__name__}: {words}" if words else type(error).__name__)
