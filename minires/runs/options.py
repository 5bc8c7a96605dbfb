"""The table of options: each hyper-parameter is declared once, as a field of `Config`.

The declaration defines the field and its default, the option of the training commands, the recipe
line, the names of groups of runs, and the command that repeats a run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minires.errors import InputError

Values = Mapping[str, Any]
UNSET = object()


@dataclass(frozen=True)
class Option:
    """How one field of `Config` is typed and put into words.

    Attributes
    ----------
    help : str
        Text for --help. Without it, the training commands have no such option.
    flag : str
        As typed, such as "--batch-size"; "--augment/--no-augment" for a choice of two.
    switch : object
        For a flag without a value: the value of the field if the flag is given.
    parse : callable or None
        Makes the value from the typed text, for a field whose type alone does not tell how.
    typed : callable
        `typed(value)` is the value as it is typed in a command.
    words : callable or None
        `words(value)` names the setting if runs differ by it. By default, it is "name value".
    line : callable or None
        `line(value, config)` is its part of the recipe line, "" for none. By default, it is the
        words if the value is not the default.
    derived : callable or None
        `derived(config)` is the value that the training commands choose if none is typed.
    choices : tuple of str
        All allowed values, if there are few.
    added : bool
        Not recorded by earlier versions.
    rare : bool
        Listed by --help-all, not by --help.
    earlier : object
        The value in effect in versions that did not record the field, if it is not the default.
    """

    help: str = ""
    flag: str = ""
    switch: Any = UNSET
    parse: Callable[[str], Any] | None = None
    typed: Callable[[Any], str] = str
    words: Callable[[Any], str] | None = None
    line: Callable[[Any, Values], str] | None = None
    derived: Callable[[Values], Any] | None = None
    choices: tuple[str, ...] = ()
    added: bool = False
    rare: bool = False
    earlier: Any = UNSET


def declare(default: Any = dataclasses.MISSING, **option: Any) -> Any:
    """Declare a field of `Config` together with its `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(**option)})


@dataclass(frozen=True)
class Entry:
    """A row of the table: a field's name and default, with its option."""

    name: str
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """The flag, by default made of the name."""
        return self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def is_changed(self) -> bool:
        """Whether earlier versions behaved differently from today's default."""
        return self.option.earlier is not UNSET

    def expected(self, config: Values) -> Any:
        """The value of this field if none is typed."""
        return self.option.derived(config) if self.option.derived else self.default

    def is_usual(self, config: Values) -> bool:
        """Whether the field has the value that it would get if the user typed none."""
        values = (config[self.name], self.expected(config))
        value, expected = (list(v) if isinstance(v, tuple) else v for v in values)  # as in JSON
        return bool(value == expected)

    def words(self, value: Any) -> str:
        """The setting in words, for runs that differ by it."""
        if self.option.words:
            return self.option.words(value)
        return f"{self.name.replace('_', ' ')} {value}"

    def line(self, config: Values) -> str:
        """Part of the recipe line, "" for nothing."""
        value = config[self.name]
        if self.option.line:
            return self.option.line(value, config)
        return "" if self.is_usual(config) else self.words(value)

    def command(self, value: Any) -> list[str]:
        """Command-line arguments that set this value."""
        if self.option.switch is not UNSET:
            return [self.flag] if value == self.option.switch else []
        if isinstance(value, bool):
            on, _, off = self.flag.partition("/")
            return [on if value else off]
        return [] if value is None else [self.flag, self.option.typed(value)]


def table(config_class: type) -> dict[str, Entry]:
    """Rows of the table by the names of the fields, in their order."""
    rows = {}
    for f in dataclasses.fields(config_class):
        default = None if f.default is dataclasses.MISSING else f.default
        rows[f.name] = Entry(f.name, default, f.metadata["option"])
    return rows


def settings_in_words(rows: Mapping[str, Entry], config: Values) -> dict[str, str]:
    """Every setting that runs may differ by, in words; those with words of their own come first."""
    names = [name for name in rows if name not in ("net", "dataset", "seed")]
    names.sort(key=lambda name: rows[name].option.words is None)
    return {name: rows[name].words(config[name]) for name in names}


def recipe_line(rows: Mapping[str, Entry], config: Values) -> str:
    """The recipe of a run in one line."""
    parts = (row.line(config) for name, row in rows.items() if name not in ("net", "dataset"))
    return ", ".join(filter(None, parts))


def command_options(
    rows: Mapping[str, Entry], config: Values, names: Iterable[str], changed: Iterable[str] = ()
) -> str:
    """Options that repeat a recipe, as they are typed.

    Parameters
    ----------
    rows, config
    names : list of str
        Fields that are always given.
    changed : list of str
        Fields that are given only if their value is not the one that the commands choose.
    """
    given = list(names)
    given += [name for name in changed if not rows[name].is_usual(config)]
    return " ".join(word for name in given for word in rows[name].command(config[name]))


def integers(text: str) -> tuple[int, ...]:
    """Read "1000,1500", or "none".

    Raises
    ------
    InputError
        If these are not numbers.
    """
    parts = [] if text.strip() == "none" else [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"expected numbers such as 1000,1500, or none, got {text!r}")
    return tuple(map(int, parts))


def names(text: str) -> tuple[str, ...]:
    """Read "conv,bn,stage1", or "none".

    Raises
    ------
    InputError
        If a name is empty.
    """
    parts = [] if text.strip() == "none" else [part.strip() for part in text.split(",")]
    if not all(parts):
        raise InputError(f"expected names such as conv,bn,stage1, or none, got {text!r}")
    return tuple(parts)
