"""Shared parts of all figures: style, colours, title and caption, and how they are written.

Figures look the same everywhere: the user's matplotlibrc and MPLBACKEND have no effect on them.
"""

from __future__ import annotations

import io
import os
import secrets
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.lab.families import FamilyStyle
from minires.runs.files import write_whole


def _import_matplotlib() -> Any:
    """Import matplotlib even if MPLBACKEND names a backend that does not exist.

    Raises
    ------
    InputError
        If it cannot be imported.
    """
    backend = os.environ.pop("MPLBACKEND", None)  # a wrong one stops the import
    try:
        import matplotlib
    except Exception as e:
        reason = " ".join(str(e).split())
        raise InputError(
            f"matplotlib cannot be imported ({reason}); check the file matplotlibrc, "
            "or install it again: pip install --force-reinstall matplotlib"
        ) from e
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        # as the import would have done: notebooks choose their backend this way
        with suppress(ValueError):  # figures of minires need none
            matplotlib.rcParams["backend"] = backend
    return matplotlib


mpl = _import_matplotlib()

# after the guarded import, and only through this module
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

__all__ = [
    "FORMATS",
    "LEGEND_BELOW",
    "SMALL",
    "Axes",
    "Figure",
    "MaxNLocator",
    "check_format",
    "drawing",
    "finish",
    "plain",
    "render",
    "save",
    "shades",
]
FORMATS: dict[str, Any] = {".png": None, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
SMALL = 10  # points: the smallest text in a figure
STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": SMALL,
    "svg.hashsalt": "minires",
}
DPI = 200
# below the axes: no corner is free in every experiment
LEGEND_BELOW: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "frameon": False}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with matplotlib's defaults and our style, then restore the user's settings."""
    with mpl.rc_context():
        mpl.rcParams.update(
            {k: v for k, v in mpl.rcParamsDefault.items() if not k.startswith("backend")}
        )
        mpl.rcParams.update(STYLE)
        yield


def check_format(path: Path) -> None:
    """Refuse a file extension that is not a figure format, before any work."""
    if path.suffix not in FORMATS:
        raise InputError(f"a figure's file must end in {', '.join(FORMATS)}, got {path}")


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format given by the extension of `path`: .png, .svg or .pdf.

    The same figure gives the same bytes. Several processes may write it at the same time, as the
    workers of a sweep do when the last run ends.

    Raises
    ------
    InputError
        If the extension is none of these, or the file cannot be written.
    """
    check_format(path)
    write_whole(path, render(figure, path.suffix), part=f"{secrets.token_hex(8)}.part")


def render(figure: Figure, ending: str) -> bytes:
    """Bytes of a figure in the format of ".png", ".svg" or ".pdf"."""
    with drawing(), io.BytesIO() as content:
        figure.savefig(content, format=ending[1:], dpi=DPI, metadata=FORMATS[ending])
        return content.getvalue()


def shades(style: FamilyStyle, count: int) -> Any:
    """Colours for `count` networks of a family, darker with depth: an array (count, 4)."""
    return mpl.colormaps[style.colormap](np.linspace(0.5, 0.95, count) if count > 1 else [0.8])


def plain(text: str) -> str:
    """Escape the dollar signs of a text, so that matplotlib does not read them as formulas."""
    return text.replace("$", r"\$")


def finish(figure: Figure, title: str, caption: str) -> None:
    """Add a title above and a caption below, in lines as wide as the figure."""
    width, height = figure.get_size_inches()
    heading = textwrap.wrap(title, int(10 * width))
    lines = textwrap.wrap(caption, int(12.5 * width))
    figure.suptitle(plain("\n".join(heading)), fontsize=13)
    words: Any = {"ha": "right", "va": "bottom", "fontsize": SMALL, "color": "0.35"}
    figure.text(0.995, 0.005, plain("\n".join(lines)), **words)
    below = (0.05 + 0.17 * len(lines)) / height
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, below, 1, 1 - below))
