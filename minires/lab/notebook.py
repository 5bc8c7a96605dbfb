"""Curves that grow while a notebook trains."""

from __future__ import annotations

import base64
import time
import warnings
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from minires.data import Dataset
from minires.errors import InputError
from minires.lab import degradation, tables
from minires.lab.recorded import measured_runs
from minires.runs.config import Config
from minires.train.progress import Progress
from minires.train.stopping import Interrupted


class Stopped(Interrupted):
    """The cell was interrupted. Notebooks show the message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """Lines that IPython shows for this exception."""
        return [str(self)]


def live(
    nets: Sequence[str],
    base: Config,
    out: Path | str,
    data: Dataset,
    seeds: int = 1,
    seconds: float = 3.0,
) -> list[Path]:
    """Train as `degradation.run` does, and show the growing curves below the calling cell.

    Stop it with the notebook's interrupt button. Run the cell again to resume.

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
    Stopped
        After an interrupt.
    """
    redraw = _canvas(Path(out))
    drawn = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal drawn
        if time.monotonic() - drawn >= seconds:
            redraw()
            drawn = time.monotonic()

    try:
        folders = degradation.run(nets, seeds, base, Path(out), data, report=report)
    except Interrupted:
        stopped = Stopped(f"Stopped. Everything is saved in {out}; run this cell again to resume.")
    except KeyboardInterrupt:  # the second interrupt
        stopped = Stopped(
            "Stopped before the last steps were saved; run this cell again to resume."
        )
    else:
        redraw()
        return folders
    redraw()
    raise stopped


def _canvas(out: Path) -> Callable[[], None]:
    """Reserve a place in the cell's output; return the function that redraws the runs of `out`."""
    try:
        from IPython.display import HTML, display
    except ImportError:
        raise InputError(
            "live curves are shown by IPython, which is not installed: pip install ipython, "
            "or train with degradation.run and watch with: minires plot FOLDER --watch"
        ) from None
    handle: Any = None

    def redraw() -> None:
        nonlocal handle
        try:
            picture = _picture(out)
        except Exception as e:  # such as runs of another metric in the folder: keep training
            warnings.warn(f"the curves cannot be drawn: {e}", stacklevel=2)
            return
        if picture and handle is None:
            handle = display(HTML(picture), display_id=True)
        elif picture:
            handle.update(HTML(picture))

    return redraw


def _picture(out: Path) -> str:
    """The curves of the runs in `out` as an HTML image with an alt text, "" if there are none."""
    from minires.lab import plots  # imports matplotlib, which takes a while

    runs = measured_runs([out])
    if not runs:
        return ""
    source = base64.b64encode(plots.render(plots.errors(runs), ".png")).decode()
    alt = escape(f"Curves by iteration. {tables.message(runs)}.")
    return f'<img alt="{alt}" width="900" src="data:image/png;base64,{source}">'
