"""Put the lessons into the wheel: `minires lessons copy` hands them out.

An editable install reads them from the repository instead.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PackageLessons(BuildHookInterface):
    """Add the folder `lessons` as `minires/_lessons`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before a build; `version` is "standard" or "editable"."""
        if version == "standard":
            build_data["force_include"]["lessons"] = "minires/_lessons"
