"""How each family of networks is drawn, and the order in which figures and texts show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minires.runs.run import Run


@dataclass(frozen=True)
class FamilyStyle:
    """The look of one family.

    Attributes
    ----------
    colormap : str
        Matplotlib's name. Deeper networks are darker.
    title : str
        Title of the family's panel. Families with the same style share a panel.
    marker : str
        Marker on lines over many layers, so that families differ in greyscale too; "" for none.
    fill : str
        Matplotlib's fill style of the markers over depth, for the same purpose.
    """

    colormap: str
    title: str
    marker: str = ""
    fill: str = "full"


FAMILIES = {
    "plain": FamilyStyle("Reds", "plain nets", marker="o", fill="none"),
    "imagenet-plain": FamilyStyle("Reds", "plain nets", marker="o", fill="none"),
    "resnet": FamilyStyle("Blues", "residual nets"),
    "imagenet-resnet": FamilyStyle("Blues", "residual nets"),
}
# for families that are not in the table
COLORMAPS = ("Greens", "Purples", "Oranges", "Greys")
MARKERS = ("s", "^", "v", "D")
FILLS = ("left", "top", "bottom", "right")


def family_styles(runs: Sequence[Run]) -> dict[str, FamilyStyle]:
    """Styles of the families of these runs, by family: known ones first, others as they appear."""
    present = dict.fromkeys(run.family for run in runs)
    styles = {family: style for family, style in FAMILIES.items() if family in present}
    others = [family for family in present if family not in FAMILIES]
    for i, family in enumerate(others):
        look = (choices[i % len(choices)] for choices in (MARKERS, FILLS))
        styles[family] = FamilyStyle(COLORMAPS[i % len(COLORMAPS)], family, *look)
    return styles


def panels(runs: Sequence[Run]) -> dict[FamilyStyle, list[Run]]:
    """Runs by the panel that shows them."""
    styles = family_styles(runs)
    found: dict[FamilyStyle, list[Run]] = {style: [] for style in styles.values()}
    for run in runs:
        found[styles[run.family]].append(run)
    return found
