"""Experiments and their records: presets, runs, figures, tables, claims, reports.

Start reading at `degradation.run`.
"""

from minires.lab.notebook import live

__all__ = ["live"]
