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
        Matplotlib's name; deeper networks are darker.
    title : str
        Of its panel. Families with the same style share a panel.
    marked : bool
        Drawn with markers that also tell it apart in grey.
    """

    colormap: str
    title: str
    marked: bool = False


FAMILIES = {
    "plain": FamilyStyle("Reds", "plain nets", marked=True),
    "resnet": FamilyStyle("Blues", "residual nets"),
    "imagenet-resnet": FamilyStyle("Blues", "residual nets"),
}
COLORMAPS = ("Greens", "Purples", "Oranges", "Greys")  # for families that are not in the table


def family_styles(runs: Sequence[Run]) -> dict[str, FamilyStyle]:
    """Styles of the families of these runs, by family: known ones first, others as they appear."""
    present = dict.fromkeys(run.family for run in runs)
    styles = {family: style for family, style in FAMILIES.items() if family in present}
    others = [family for family in present if family not in FAMILIES]
    for i, family in enumerate(others):
        styles[family] = FamilyStyle(COLORMAPS[i % len(COLORMAPS)], family)
    return styles


def panels(runs: Sequence[Run]) -> dict[FamilyStyle, list[Run]]:
    """Runs by the panel that shows them."""
    styles = family_styles(runs)
    found: dict[FamilyStyle, list[Run]] = {style: [] for style in styles.values()}
    for run in runs:
        found[styles[run.family]].append(run)
    return found
