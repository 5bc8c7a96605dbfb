"""Plain text for the terminal: tables, word forms, and suggestions for mistyped names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def columns(lines: Sequence[Sequence[str]], left: int) -> str:
    """Text table: the first `left` columns are aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            c.ljust(w) if i < left else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def plural(noun: str) -> str:
    """Regular English plural: errors, losses, accuracies."""
    if noun.endswith(("s", "x")):
        return noun + "es"
    if noun.endswith("y"):
        return noun[:-1] + "ies"
    return noun + "s"


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 step, 2 steps."""
    return f"{number} {noun if number == 1 else plural(noun)}"


def sentence_case(words: str) -> str:
    """The same words with the first letter in upper case."""
    return words[:1].upper() + words[1:]


def shown(text: object, most: int = 300) -> str:
    """Text from a file or from foreign code, safe to print: one line, no control characters.

    Line breaks, control characters, direction marks and lone surrogates appear as escapes such as
    `\\n`. Text longer than `most` characters is cut.
    """
    words = str(text)
    cut = words if len(words) <= most else f"{words[: most - 3]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that a mistyped one may stand for, the likeliest first.

    Case and hyphens do not matter; a prefix matches every name that starts with it.
    """
    by_plain = {_plain(k): k for k in known}
    typed = _plain(name)
    started = [k for k in by_plain if typed and k.startswith(typed)]
    close = get_close_matches(typed, by_plain, n=3, cutoff=0.6)
    return [by_plain[k] for k in dict.fromkeys([*started, *close])][:3]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: "; did you mean a or b?", or ""."""
    found = nearest(name, known)
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "").replace("_", "")
