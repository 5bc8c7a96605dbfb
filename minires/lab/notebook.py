"""Curves that grow while a notebook trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minires.data import Dataset
from minires.errors import InputError
from minires.lab import degradation, plots
from minires.lab.recorded import begun
from minires.runs.config import Config
from minires.train.progress import Progress


def live(
    nets: Sequence[str],
    base: Config,
    out: Path | str,
    data: Dataset,
    seeds: int = 1,
    seconds: float = 3.0,
) -> list[Path]:
    """Train as `degradation.run` does, and show the growing curves in the calling cell.

    Stop it with the notebook's interrupt button; call it again to resume.

    Parameters
    ----------
    nets, base, out, data, seeds
        As in `degradation.run`; `presets.base_config` makes a recipe.
    seconds : float
        At least this long between two drawings.

    Returns
    -------
    folders : list of Path

    Raises
    ------
    InputError
        If IPython is not installed, or as `degradation.run` does.
    """
    redraw = _canvas(Path(out))
    drawn = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal drawn
        if time.monotonic() - drawn >= seconds:
            redraw()
            drawn = time.monotonic()

    folders = degradation.run(nets, seeds, base, Path(out), data, say=print, report=report)
    redraw()
    return folders


def _canvas(out: Path) -> Callable[[], None]:
    """Reserve a place in the cell's output; return the function that redraws the runs of `out`."""
    try:
        from IPython.display import Image, display
    except ImportError:
        raise InputError(
            "live curves are shown by IPython, which is not installed: pip install ipython, "
            "or train with degradation.run and watch with: minires plot FOLDER --watch"
        ) from None
    handle: Any = None

    def redraw() -> None:
        nonlocal handle
        runs = begun([out])
        if not runs:
            return
        picture = Image(plots.render(plots.errors(runs), ".png"), width=900)
        if handle is None:
            handle = display(picture, display_id=True)
        else:
            handle.update(picture)

    return redraw
