"""A bug is one wrong line: a piece of the reference's source, and what stands there instead; so nothing is copied.

If the reference changes and the piece is no longer there exactly once, planting fails: no bug is disarmed in silence.
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
        Piece of the source, and what the bug has in its place.
    says : str
        Completes "your result equals the true one, but ...".
    hint : str
        What to think about, without the answer.
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
        source = inspect.getsource(attrgetter(self.function)(home(self.where)))
        times = source.count(self.old)
        if times != 1:
            raise InputError(
                f"bug {self.name}: expected {self.old!r} once in {self.where}, found it {times} times; "
                "the reference has changed, so change the bug with it"
            )
        return source.replace(self.old, self.new)

    def plant(self) -> ModuleType:
        """Copy of the module with the bug in it; the module itself is left alone."""
        return copy_of(self.where, self.source())


def home(where: str) -> ModuleType:
    """Return the module of minires that "module:function" names."""
    return importlib.import_module(f"minires.{where.partition(':')[0]}")


def copy_of(where: str, source: str | None = None) -> ModuleType:
    """Execute a module's source anew, with `source` in place of the function that `where` names."""
    module, function = home(where), where.partition(":")[2]
    text = inspect.getsource(module)
    if source is not None:
        text = text.replace(inspect.getsource(attrgetter(function)(module)), source)
    copy = ModuleType(module.__name__)
    exec(compile(text, f"<copy of {module.__name__}>", "exec"), vars(copy))
    return copy


def swap(module: ModuleType, function: str, replacement: Any) -> None:
    """Put `replacement` in the place of a function or method of a module that `copy_of` made."""
    owner, _, name = function.rpartition(".")
    setattr(attrgetter(owner)(module) if owner else module, name, replacement)
