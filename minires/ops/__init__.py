"""A backend is a module of ops, in plain NumPy or compiled by Numba, chosen by name.

Only this module imports the compiled ops, so that NumPy works where Numba is not installed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType

from minires.errors import InputError

BACKENDS = ("numpy", "numba")
# The ops of a page stand in minires/ops/numpy_<page>.py, compiled ones in numba_<page>.py.
PAGES = ("ops", "fused")

Functions = Mapping[str, Callable]
_registered: dict[str, tuple[Functions, Functions]] = {}  # page: (NumPy ops, compiled ops)


def default_backend() -> str:
    """Name of the fastest backend installed here, which the command line uses by default."""
    return "numba" if importlib.util.find_spec("numba") else "numpy"


def prepare(backend: str, report: Callable[[str], None]) -> None:
    """Compile everything that a network needs, before it is timed or watched.

    Parameters
    ----------
    backend : str
    report : callable
        Called with the name of each kernel that is about to be compiled; kernels found on the disk
        are not reported.
    """
    if backend == "numba":
        _start(backend)
        importlib.import_module("minires.ops.compiled.warm_up").prepare(report)


@cache
def get_ops(backend: str) -> ModuleType:
    """Return a module of every op of `backend`: all pages, and what users registered.

    An op without a compiled version is the NumPy op in both backends.

    Raises
    ------
    InputError
        If there is no such backend, or Numba is asked for and not installed.
    """
    _need(backend)
    _start(backend)
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
        A module stands for the public functions that are defined in it.
    numba : module or mapping, optional
        Compiled ops; the NumPy op stands in for each name that is missing.

    Raises
    ------
    InputError
        If another page has an op of that name, or a compiled op has no NumPy op.
    """
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
    """Take registered ops out again."""
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
    """Public functions that are defined in a module; a mapping as it is."""
    if not isinstance(source, ModuleType):
        return dict(source)
    return {
        name: value
        for name, value in vars(source).items()
        if callable(value)
        and not isinstance(value, type)
        and not name.startswith("_")
        and getattr(value, "__module__", None) == source.__name__
    }


def _need(backend: str) -> None:
    if backend not in BACKENDS:
        raise InputError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "numba" and importlib.util.find_spec("numba") is None:
        raise InputError(
            "the numba backend needs Numba: pip install numba, or choose the numpy backend"
        )


@cache
def _start(backend: str) -> None:
    """Choose once how threads wait and how memory is kept, before Numba starts its threads."""
    if backend == "numba":
        threads = importlib.import_module("minires.ops.compiled.threads")
        threads.start_threads()
        threads.keep_freed_memory()


def threads_to_share(backend: str) -> int:
    """Kernel threads that concurrent training runs may share.

    0 if the threading layer is not safe for that, or the backend has no kernels.
    """
    if backend != "numba":
        return 0
    _start(backend)
    return int(importlib.import_module("minires.ops.compiled.threads").threads_to_share())


def use_threads(backend: str, threads: int) -> None:
    """Set the number of kernel threads for calls from this Python thread (0: leave unchanged).

    The bits are the same.
    """
    if backend == "numba" and threads:
        _start(backend)
        importlib.import_module("numba").set_num_threads(threads)
