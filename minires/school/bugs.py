"""A bug is one wrong line: a piece of the reference's source, and its wrong replacement.

Planting a bug fails unless the reference contains the piece exactly once. So a change to the
reference cannot disable a bug unnoticed.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from operator import attrgetter
from types import ModuleType
from typing import Any

from minires.errors import InputError


@dataclass(frozen=True)
class Bug:
    """One wrong line.

    Attributes
    ----------
    name : str
    where : str
        "module:function" or "module:Class.method" below minires.
    old, new : str
        Piece of the source, and its wrong replacement.
    says : str
        Completes "your result equals the true one, but ...".
    hint : str
        A question that leads to the bug, without the answer.
    """

    name: str
    where: str
    old: str
    new: str
    says: str
    hint: str

    @property
    def function(self) -> str:
        """Name of the function or method, such as "conv2d_backward" or "SGD.step"."""
        return self.where.partition(":")[2]

    def source(self) -> str:
        """Source of the function with the bug in it."""
        source = inspect.getsource(attrgetter(self.function)(reference_module(self.where)))
        times = source.count(self.old)
        if times != 1:
            raise InputError(
                f"bug {self.name}: expected {self.old!r} once in {self.where}, "
                f"found it {times} times; the reference has changed, so change the bug with it"
            )
        return source.replace(self.old, self.new)

    def plant(self) -> ModuleType:
        """Copy of the module with the bug in it; the module itself does not change."""
        return copy_of(self.where, self.source())


def reference_module(where: str) -> ModuleType:
    """Return the module of minires that "module:function" names."""
    return importlib.import_module(f"minires.{where.partition(':')[0]}")


def copy_of(where: str, source: str | None = None) -> ModuleType:
    """Execute a copy of a module. `source` replaces the function that `where` names.

    Raises
    ------
    InputError
        If the module only imports the function.
    """
    module = reference_module(where)
    function = where.partition(":")[2]
    text = inspect.getsource(module)
    if source is not None:
        original = inspect.getsource(attrgetter(function)(module))
        if original not in text:
            raise InputError(
                f"expected the source of {function} in {module.__name__}, which only imports it; "
                "name the module that defines it"
            )
        text = text.replace(original, source)
    copy = ModuleType(module.__name__)
    exec(compile(text, f"<copy of {module.__name__}>", "exec"), vars(copy))
    return copy


def replace_function(module: ModuleType, function: str, replacement: Any) -> None:
    """Replace a function or method of a module that `copy_of` made."""
    owner, _, name = function.rpartition(".")
    setattr(attrgetter(owner)(module) if owner else module, name, replacement)
