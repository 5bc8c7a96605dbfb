"""Experiments and their records: presets, runs, figures, tables, claims, reports.

Start reading at `degradation.run`.
"""

from typing import Any

__all__ = ["live"]


def __getattr__(name: str) -> Any:
    """Import `live`, and what it needs, when it is first used."""
    if name == "live":
        from minires.lab.notebook import live

        return live
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
