"""Runs out: what is trained, how it is recorded, resumed, drawn. Start reading at `train`."""

from minires.lab.notebook import live

__all__ = ["live"]
