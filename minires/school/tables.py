"""Read bugs, hints and quizzes, which are data: tables in TOML files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from minires.errors import InputError

Row = dict[str, Any]
Fields = Mapping[str, type]


def read_tables(file: str, key: str, fields: Fields, unique: str) -> list[Row]:
    """Read `[[key]]` tables from a file of this folder, see `parse_tables`."""
    text = resources.files("minires.school").joinpath(file).read_text(encoding="utf-8")
    return parse_tables(text, file, key, fields, unique)


def parse_tables(text: str, file: str, key: str, fields: Fields, unique: str) -> list[Row]:
    """Parse `[[key]]` tables, each with exactly these fields.

    Parameters
    ----------
    text : str
        TOML that holds nothing but `[[key]]` tables.
    file : str
        Its name, for error messages.
    fields : mapping of str to type
        Every field of a table, `str` or `list` (of strings). "where" must be "module:function".
    unique : str
        Field that has a different value in every table.

    Raises
    ------
    InputError
        Naming the file, the table, what was expected and what was given.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise InputError(f"{file}: expected TOML, got: {e}; correct the file") from None
    rows: Any = tables.get(key)
    is_list = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    if set(tables) != {key} or not is_list:
        raise InputError(
            f"{file}: expected [[{key}]] tables only, got {', '.join(tables) or 'none'}"
        )
    seen = set()
    for number, row in enumerate(rows, start=1):
        where = f"{file}, [[{key}]] number {number}"
        _check_row(row, where, fields)
        if row[unique] in seen:
            raise InputError(f"{where}: {unique} {row[unique]!r} is taken; choose another")
        seen.add(row[unique])
    return rows


def _check_row(row: Row, where: str, fields: Fields) -> None:
    """Check the fields of one table and their types."""
    if set(row) != set(fields):
        expected = ", ".join(fields)
        raise InputError(f"{where}: expected the fields {expected}, got {', '.join(row)}")
    for name, kind in fields.items():
        value = row[name]
        texts = value if kind is list else [value]
        if not isinstance(value, kind) or not all(isinstance(text, str) for text in texts):
            words = "a list of strings" if kind is list else "a string"
            raise InputError(f"{where}: {name} must be {words}, got {value!r}")
    module, _, function = row.get("where", "any:function").partition(":")
    if not (module and function):
        raise InputError(f"{where}: where must be 'module:function', got {row['where']!r}")
