"""
Draw the README's picture of a terminal: what `minires degradation` prints.

`python lessons/build.py figures` calls it. The runs are the recorded ones, so nothing is trained.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from matplotlib.figure import Figure
from style import RECORDS

COMMAND = "minires degradation --dataset shapes10"
FOLDER = "runs/degradation-shapes10-280"  # where this command looks for runs
COLUMNS, SIZE = 84, 10  # characters of a line, and their size in points
WIDTH, HEIGHT = 0.612 * SIZE / 72, 1.25 * SIZE / 72  # of a character and of a line, in inches
START = re.compile(r" *(?:\([ivx]+\) +\w+ +|\w+: +)?")  # what later lines of a paragraph leave free


def printed() -> list[str]:
    """Lines that the command prints in a folder with the recorded runs."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(RECORDS / "quick-shapes10", Path(folder) / FOLDER)
        done = subprocess.run(
            [sys.executable, "-m", *COMMAND.split()],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(RECORDS.parents[1]), "COLUMNS": "1000"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return done.stdout.rstrip().splitlines()


def wrapped(lines: list[str]) -> list[str]:
    """These lines, none longer than `COLUMNS`."""
    short = []
    for line in lines:
        indent = " " * len(START.match(line)[0])
        short += textwrap.wrap(line, COLUMNS, subsequent_indent=indent) or [""]
    return short


def picture(lines: list[str]) -> Figure:
    """A dark terminal that shows the command and these lines."""
    shown = [f"$ {COMMAND}", *wrapped(lines)]
    figure = Figure(figsize=((COLUMNS + 3) * WIDTH, (len(shown) + 1.5) * HEIGHT))
    figure.set_facecolor("#0d1117")
    for number, line in enumerate(shown):
        figure.text(
            1.5 * WIDTH / figure.get_figwidth(),
            1 - (number + 1.4) * HEIGHT / figure.get_figheight(),
            line,
            color="#7ee787" if number == 0 else "#f0f6fc",
            family="monospace",
            fontsize=SIZE,
            parse_math=False,
        )
    return figure
