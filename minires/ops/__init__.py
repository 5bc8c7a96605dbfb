"""A backend is a module of ops, in plain NumPy or compiled by Numba, chosen by name.

Only this package imports the compiled ops, so that the NumPy backend works without Numba.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType

from minires.errors import InputError
from minires.ops.availability import compile_error, numba_installed, warn_once, why_not_numba

__all__ = [
    "BACKENDS",
    "PAGES",
    "default_backend",
    "describe_threads",
    "get_ops",
    "numba_installed",
    "prepare",
    "register",
    "threads_to_share",
    "unregister",
    "usable_backends",
    "use_threads",
    "why_not_numba",
]

BACKENDS = ("numpy", "numba")
# The ops of a page are in minires/ops/numpy_<page>.py, compiled versions in numba_<page>.py.
PAGES = ("ops", "fused", "alexnet")

Functions = Mapping[str, Callable]
_registered: dict[str, tuple[Functions, Functions]] = {}  # page: (NumPy ops, compiled ops)


def usable_backends() -> tuple[str, ...]:
    """Names of the backends that can run here."""
    return tuple(name for name in BACKENDS if name != "numba" or not why_not_numba())


def default_backend() -> str:
    """Name of the fastest backend that can run here, which the command line uses by default.

    Warns once in a process if Numba is installed but cannot be used.
    """
    reason = why_not_numba()
    if reason and numba_installed():
        warn_once(f"the numpy backend is used, which is several times slower, because {reason}")
    return "numpy" if reason else "numba"


def prepare(
    backend: str, report: Callable[[str, int, int], object] = lambda name, ready, needed: None
) -> None:
    """Compile everything that a network needs, before it is timed or watched.

    Parameters
    ----------
    backend : str
    report : callable, optional
        Called before a kernel is compiled, with its name, how many kernels are ready, and how many
        are needed. Kernels that are found on disk are not reported.

    Raises
    ------
    InputError
        If the backend cannot run here.
    """
    _check(backend)
    if backend == "numba":
        try:
            importlib.import_module("minires.ops.compiled.warm_up").prepare(report)
        except (InputError, MemoryError, OSError):
            raise
        except Exception as e:
            raise InputError(_no_numba(compile_error(e))) from e


@cache
def get_ops(backend: str) -> ModuleType:
    """Return a module of every op of `backend`: all pages, and what users registered.

    An op without a compiled version is the NumPy op in both backends.

    Raises
    ------
    InputError
        If there is no such backend, or Numba is asked for and cannot be used.
    """
    _check(backend)
    ops = ModuleType(f"minires.ops.{backend}", f"Every op of the {backend} backend.")
    for page in PAGES:
        vars(ops).update(_page(page, backend))
    for plain, compiled in _registered.values():
        vars(ops).update(plain, **(compiled if backend == "numba" else {}))
    return ops


def register(
    page: str, numpy: ModuleType | Functions, numba: ModuleType | Functions | None = None
) -> None:
    """Add ops of your own to both backends.

    Parameters
    ----------
    page : str
        A name for these ops; registering it again replaces them.
    numpy : module or mapping of str to function
        From a module, its public functions are taken.
    numba : module or mapping, optional
        Compiled ops; where one is missing, both backends use the NumPy op.

    Raises
    ------
    InputError
        If an argument has another type, another page has an op of that name, or a compiled op has
        no NumPy op.
    """
    if not (isinstance(page, str) and page):
        raise InputError(f"page: expected a name, got {page!r}; name your ops with a text")
    plain = _functions(numpy)
    compiled = {} if numba is None else _functions(numba)
    _refuse_taken(page, plain)
    alone = sorted(set(compiled) - set(plain))
    if alone:
        raise InputError(
            f"page {page!r}: no NumPy op for the compiled {', '.join(alone)}; got "
            f"{', '.join(plain) or 'none'}; give a NumPy op of the same name"
        )
    _registered[page] = plain, compiled
    get_ops.cache_clear()


def unregister(page: str) -> None:
    """Remove the ops of a page that `register` added."""
    _registered.pop(page, None)
    get_ops.cache_clear()


def _refuse_taken(page: str, names: Functions) -> None:
    """Refuse a page of this package, and the name of an op of another page."""
    if page in PAGES:
        raise InputError(f"page {page!r} belongs to minires; choose another name for yours")
    pages = {known: _page(known, "numpy") for known in PAGES}
    pages |= {known: plain for known, (plain, _) in _registered.items() if known != page}
    for known, ops in pages.items():
        taken = sorted(set(names) & set(ops))
        if taken:
            raise InputError(
                f"page {page!r}: expected new names, but page {known!r} has {', '.join(taken)}; "
                "choose other names"
            )


def _page(page: str, backend: str) -> Functions:
    """Ops of a page of this package."""
    ops = _functions(importlib.import_module(f"minires.ops.numpy_{page}"))
    name = f"minires.ops.numba_{page}"
    if backend == "numba" and importlib.util.find_spec(name):
        compiled = importlib.import_module(name)
        ops = {op: getattr(compiled, op, function) for op, function in ops.items()}
    return ops


def _functions(source: ModuleType | Functions) -> Functions:
    """Public functions that are defined in a module, or a copy of a mapping."""
    if not isinstance(source, ModuleType):
        _check_mapping(source)
        return dict(source)
    return {
        name: value
        for name, value in vars(source).items()
        if callable(value)
        and not isinstance(value, type)
        and not name.startswith("_")
        and getattr(value, "__module__", None) == source.__name__
    }


def _check_mapping(ops: Functions) -> None:
    if not isinstance(ops, Mapping):
        raise InputError(f"ops: expected a module or a dict of functions by name, got {ops!r}")
    for name, function in ops.items():
        if not (isinstance(name, str) and name.isidentifier() and callable(function)):
            raise InputError(
                f"ops: expected functions by name, got {name!r}: {function!r}; give a dict such as "
                '{"square_forward": square_forward}'
            )


def _check(backend: str) -> None:
    if backend not in BACKENDS:
        raise InputError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "numba" and (reason := why_not_numba()):
        raise InputError(_no_numba(reason))


def _no_numba(reason: str) -> str:
    return f"the numba backend needs Numba, and {reason}; or choose the numpy backend"


def threads_to_share(backend: str) -> int:
    """Kernel threads that concurrent training runs may share.

    0 if the threading layer is not safe for that, or the backend has no kernels.
    """
    if backend != "numba":
        return 0
    _check(backend)
    return int(importlib.import_module("minires.ops.compiled.threads").threads_to_share())


def describe_threads() -> str:
    """How many threads run the kernels, in which library, and why that many; "" without kernels."""
    if why_not_numba():
        return ""
    return str(importlib.import_module("minires.ops.compiled.threads").describe())


def use_threads(backend: str, threads: int) -> None:
    """Set the number of kernel threads for calls from this Python thread (0: leave unchanged).

    The bits are the same.
    """
    if backend == "numba" and threads:
        _check(backend)
        importlib.import_module("numba").set_num_threads(threads)
