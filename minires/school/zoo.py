"""The bugs of `zoo.toml`. Hunts hide them, diagnoses name them, tests must catch them."""

from __future__ import annotations

from dataclasses import fields

from minires.school.bugs import Bug
from minires.school.tables import read_tables

FIELDS = {field.name: str for field in fields(Bug)}
ZOO = tuple(Bug(**row) for row in read_tables("zoo.toml", "bug", FIELDS, unique="name"))
