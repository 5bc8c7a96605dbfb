"""The command line: a file for each group of commands."""

from minires.cli.main import main

__all__ = ["main"]
