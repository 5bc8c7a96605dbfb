"""Replace the code of functions in memory, for `mutant_judge.py`."""

import gc
import sys
from types import CodeType, FunctionType


class Unpatchable(Exception):  # noqa: N818 (nothing went wrong)
    """The file has to be imported again."""


def _codes(code):
    """Yield a code object and those inside it, from the outside in."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def changed_code(source, mutated, path="mutant"):
    """Return the code of each function that differs, before -> after; {} if they do not match."""
    before, after = (
        [*_codes(compile(text, str(path), "exec", dont_inherit=True))][1:]
        for text in (source, mutated)
    )
    if [code.co_qualname for code in before] != [code.co_qualname for code in after]:
        return {}
    return {old: new for old, new in zip(before, after, strict=True) if old != new}


def patch(path, source, mutated):
    """Give every function of the file at `path` its code in the mutated source.

    Code of a function inside a function is a constant of the outer one, so both change. A module
    that has not been imported is left alone.
    """
    if not any(getattr(m, "__file__", None) == str(path) for m in [*sys.modules.values()]):
        return
    codes = changed_code(source, mutated, path)
    functions = [f for f in gc.get_objects() if type(f) is FunctionType and f.__code__ in codes]
    if not functions:
        raise Unpatchable
    try:
        for function in functions:
            function.__code__ = codes[function.__code__]
    except ValueError as e:  # another number of variables from outside
        raise Unpatchable from e
