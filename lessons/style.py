"""Shared by all lessons: colours with a fixed meaning, figures with alt text, code read from the library."""

import ast
import base64
import html
import inspect
import io
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib as mpl
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image as Picture

from minires.data import key
from minires.lab.presets import PRESETS, preset_name
from minires.lab.recorded import by_net, find_runs
from minires.runs.run_folder import Run

# the paper's families and the two backends; their greys differ too
PLAIN, RESIDUAL, LOOPS, NUMPY, NUMBA, MUTED = (
    "#b2182b",
    "#2166ac",
    "#7f7f7f",
    "#e08214",
    "#1b7837",
    "#9a9a9a",
)
HUES = (
    "#2166ac",
    "#e08214",
    "#1b7837",
    "#b2182b",
    "#7b3294",
    "#8c6d31",
)  # things to tell apart within one figure
FOUR = ("plain20", "plain56", "resnet20", "resnet56")  # the nets of the experiment
RECORDS = Path(__file__).parent / "runs"
DPI = 200  # sharp on a projector and on a dense screen
SMALLEST = 10  # points of a figure's text, to be read from the last row

mpl.rcParams.update(
    {
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "font.size": 11,
        "axes.titlesize": 12,
        "figure.titlesize": 12,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
)


def show(figure: Figure, alt: str) -> None:
    """Display a figure as a picture, with an alt text for readers who cannot see it.

    JupyterLab and nbconvert show the HTML, which has the alt text and `DPI` dots per inch; others
    show the picture, which has half of them to keep the notebook small.

    Raises
    ------
    ValueError
        If some text is smaller than `SMALLEST` points.
    """
    small = sorted(set(small_texts(figure)))
    if small:
        raise ValueError(f"expected text of at least {SMALLEST} points, got {', '.join(small)}")
    width = round(100 * figure.get_figwidth())  # in CSS pixels
    # on a narrow page it shrinks as far as its text can be read, then scrolls
    size = f'width="{width}" style="min-width: 660px; max-width: 100%; height: auto"'
    source = f"data:image/png;base64,{_png(figure, DPI)}"
    image = f'<img alt="{html.escape(alt)}" {size} src="{source}">'
    shown = f'<div style="overflow-x: auto">{image}</div>'
    display({"image/png": _png(figure, DPI // 2), "text/html": shown}, raw=True)


def small_texts(figure: Figure) -> Iterator[str]:
    """Visible texts of a figure that are smaller than `SMALLEST` points, with their sizes."""
    figure.draw_without_rendering()  # it makes the labels of ticks
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text() and text.get_fontsize() < SMALLEST:
            yield f"{text.get_text()!r} ({text.get_fontsize():g})"


def _png(figure: Figure, dpi: int) -> str:
    """The figure in base64: pictures in full colour, lines and text with 64 colours."""
    drawn, stored = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    picture = Picture.open(drawn).convert("RGB")
    if not figure.findobj(AxesImage):  # a palette would change the colours of a picture
        picture = picture.quantize(64, dither=Picture.Dither.NONE)
    picture.save(stored, "png", optimize=True)
    return base64.b64encode(stored.getvalue()).decode()


def say(text: str) -> None:
    """Display Markdown: prose whose numbers were computed in the cell."""
    display(Markdown(textwrap.dedent(text)))


def table(head: list[str], rows: list[list[object]], others: str = "--:") -> None:
    """Display a table; the first column is text, the others are numbers, aligned to the right."""
    lines = [head, [":--", *[others] * (len(head) - 1)], *rows]
    say(
        "\n".join(
            "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |"
            for line in lines
        )
    )


def claims(rows: list[list[str]]) -> None:
    """Display claims, what was measured, and the verdicts."""
    table(["claim", "measured here", "verdict"], rows, others=":--")


def source(*functions: object) -> None:
    """Display code of the library, read from its source, without docstrings (`help(...)` shows those)."""
    for function in functions:
        lines = textwrap.dedent(
            inspect.getsource(getattr(function, "py_func", function))
        ).splitlines()
        (node,) = ast.parse("\n".join(lines)).body
        if ast.get_docstring(node):
            del lines[node.body[0].lineno - 1 : node.body[0].end_lineno]
        page = "\n".join(lines)  # nbconvert would show it in the font of prose
        say(f'<div style="font-family: monospace">\n\n```python\n{page}\n```\n\n</div>')


def seconds(
    call: object, repeats: int = 3, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Shortest time of a few calls, after a first call that is not timed.

    For code on one thread, the clock `time.thread_time` counts what that thread computes, so that other work on the machine does not count.
    """
    call()
    times = []
    for _ in range(repeats):
        start = clock()
        call()
        times.append(clock() - start)
    return min(times)


def recorded(data: str) -> list[Run]:
    """Finished runs of plain and residual nets with 20 and 56 layers, from the largest preset recorded on `data`."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in find_runs(sorted(RECORDS.iterdir())):
        if run.done and key(run.data["name"]) == data and run.net in FOUR:
            found[preset_name(run) or ""].append(run)
    return found[[tier for tier in PRESETS if len(by_net(found[tier])) == len(FOUR)][-1]]


def counting(total: int, what: str) -> Iterator[int]:
    """Count from 0 to `total` - 1, and display the progress twice a second."""
    place, said = display(Markdown(""), display_id=True), time.monotonic()
    for i in range(total):
        yield i
        if time.monotonic() - said > 0.5 or i + 1 == total:
            place.update(Markdown(f"*{what}: {i + 1} of {total}*"))
            said = time.monotonic()
