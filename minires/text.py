"""Plain text for the terminal: tables and word forms."""

from __future__ import annotations

from collections.abc import Sequence


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
