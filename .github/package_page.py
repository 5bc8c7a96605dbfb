"""The page of the package index is README.md without what only works inside the repository."""

from __future__ import annotations

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


def standalone(text: str) -> str:
    """Drop pictures with a relative path, and keep of a relative link only its words."""
    relative = r"\((?!https?://|mailto:)[^)]*\)"
    text = re.sub(rf"!\[[^\]]*\]{relative}\n*", "", text)
    text = re.sub(r"<img [^>]*src=\"(?!https?://)[^>]*>\n*", "", text)
    return re.sub(rf"\[([^\]]+)\]{relative}", r"\1", text)


class ReadmeHook(MetadataHookInterface):
    """Give the package the text of README.md that stands alone."""

    def update(self, metadata: dict) -> None:
        """Set the field `readme`."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": standalone(text)}
