"""A mistake in one line: what was expected, what was given, and what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from typing import Any


def usage(error: Any) -> str:
    """One line for a usage error: a mistake in how a command was typed."""
    message = re.sub(r"( Did you mean [^?]*\?)\1", r"\1", error.format_message()).rstrip(".")
    message = _number_expected(error) or _share_a_sweep(error) or message
    context = error.ctx
    return f"{message}; see {context.command_path} {_help(error)}" if context else message


# how click, and typer since it has no click, say that a value is no number or too small
REFUSED = re.compile(
    r"'?(?P<given>.*?)'? is not "
    r"(?:a valid (?P<kind>integer|float)|in the range x>=(?P<least>\S+?)\.?$)"
)


def _number_expected(error: Any) -> str:
    """Say what a numeric option expected and got; "" for other errors."""
    option = "/".join(getattr(getattr(error, "param", None), "opts", ()))
    found: dict[str, Any] = {"given": None, "kind": None, "least": None}
    if hasattr(error.__cause__, "errors"):  # pydantic's, in new versions of typer
        first = error.__cause__.errors()[0]
        least = first.get("ctx", {}).get("ge")
        heading, _, _ = str(error.__cause__).partition("\n")
        kind = re.search("int|float", f"{first['type']} {heading}")
        if least is not None or first["type"].endswith("_parsing"):
            found = {"given": first["input"], "kind": kind and kind[0], "least": least}
    elif match := REFUSED.match(getattr(error, "message", None) or ""):
        found = match.groupdict()
    if not option or found["given"] is None:
        return ""
    whole = found["kind"] in ("int", "integer") or str(found["least"]).isdecimal()
    bound = "" if found["least"] is None else f" of at least {found['least']}"
    return f"{option} must be {'an integer' if whole else 'a number'}{bound}, got {found['given']}"


def _share_a_sweep(error: Any) -> str:
    """Say what to do instead of `minires sweep --ranks`; "" for other errors."""
    command = error.ctx.command.name if error.ctx else ""
    if command != "sweep" or getattr(error, "option_name", "") != "--ranks":
        return ""
    return "a sweep has no --ranks: start the same command in more terminals, or use --dask local:2"


def _help(error: Any) -> str:
    """The option that lists what the error is about: rare options stand under --help-all."""
    about = {*(getattr(error, "possibilities", None) or ()), getattr(error, "option_name", "")}
    parameters = error.ctx.command.params
    rare = [p for p in parameters if getattr(p, "hidden", False)]
    named = any(p is getattr(error, "param", None) or about & {*p.opts} for p in rare)
    return "--help-all" if named else "--help"


def one_line(error: BaseException) -> str:
    """One line for an error that the user can mend; the real cause comes first."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
            return (
                f"{cause.strerror}: this process may not open more; "
                "raise the limit, such as with: ulimit -n 256"
            )
        if isinstance(cause, FileNotFoundError) and _folder_is_gone():
            return "the current folder does not exist any more; change to another one with cd"
    if isinstance(error, MemoryError):
        detail = f": {error}" if str(error) else ""
        return f"out of memory{detail}; ask for less, such as a smaller --batch-size"
    if isinstance(error, EOFError):
        return f"a file or stream ended too early: {error or 'no more input'}"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it followed from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _folder_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False
