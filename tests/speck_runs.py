"""Runs of specks in several processes: their environment, and the state in which a run has ended.

The fixtures `speck` and `bars` are in conftest.py.
"""

import hashlib
import os
from pathlib import Path

from minires.runs import checkpoint, metrics_file

ROOT = Path(__file__).parents[1]
SPECKS = Path(__file__).with_name("specks.py")


def environment(**variables):
    """Variables of a process that finds this checkout and the modules of its tests."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    return os.environ | {"PYTHONPATH": paths} | variables


def ended(folder):
    """SHA-256 of weights, velocities and running statistics; the rest of the checkpoint; metrics.

    Seconds are left out: they differ from run to run.
    """
    arrays, meta = checkpoint.load(folder)
    digest = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        digest.update(name.encode() + value.tobytes())
    lines = metrics_file.read(folder)
    return digest.hexdigest(), _untimed(meta), [_untimed(line) for line in lines]


def _untimed(values):
    return {key: value for key, value in values.items() if key != "seconds"}
