"""What all figures share: style, colours, title and caption, and how they are written."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from minires.errors import InputError
from minires.lab.families import FamilyStyle
from minires.runs.files import write_whole

FORMATS: dict[str, Any] = {".png": None, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "minires",
}
# below the axes: no corner is free in every experiment
LEGEND_BELOW: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "frameon": False}


def check_format(path: Path) -> None:
    """Refuse an ending that is not a format of figures, before any work."""
    if path.suffix not in FORMATS:
        raise InputError(f"a figure's file must end in {', '.join(FORMATS)}, got {path}")


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the ending of `path`: .png, .svg, .pdf.

    The same figure gives the same bytes.

    Raises
    ------
    InputError
        If the ending is another one, or the file cannot be written.
    """
    check_format(path)
    write_whole(path, render(figure, path.suffix))


def render(figure: Figure, ending: str) -> bytes:
    """Bytes of a figure in the format of ".png", ".svg" or ".pdf"."""
    with mpl.rc_context(STYLE), io.BytesIO() as content:
        figure.savefig(content, format=ending[1:], dpi=150, metadata=FORMATS[ending])
        return content.getvalue()


def shades(style: FamilyStyle, count: int) -> Any:
    """Colours for `count` networks of a family, darker with depth: an array (count, 4)."""
    return mpl.colormaps[style.colormap](np.linspace(0.5, 0.95, count) if count > 1 else [0.8])


def finish(figure: Figure, title: str, caption: str) -> None:
    """Add a title above and a caption below, in lines as wide as the figure."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(caption, int(18 * width))
    figure.suptitle("\n".join(textwrap.wrap(title, int(9 * width))), fontsize=12)
    figure.text(0.995, 0.005, "\n".join(lines), ha="right", va="bottom", fontsize=7, color="0.4")
    below = (0.05 + 0.13 * len(lines)) / height
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, below, 1, 1 - below))
