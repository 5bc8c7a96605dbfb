"""The title of a figure of recorded runs: what they show about depth, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from minires.lab import wording
from minires.lab.families import family_styles
from minires.lab.recorded import by_net
from minires.lab.tables import difference, message, one_recipe
from minires.runs.run import Run
from minires.text import sentence_case

ORDER = ("worse", "better", "alike")  # of the verdicts in a title


def headline(runs: Sequence[Run]) -> str:
    """Whether deeper networks end worse, better or alike on the training images, by family.

    Each family's deepest network is compared with its shallowest; a difference within the noise
    counts as alike. If every step drew new images, the sentence says so. Runs that cannot be
    compared, and families with one depth only, get the sentence of `minires.lab.tables.message`.
    """
    done = bool(runs) and all(run.done for run in runs)
    found = _by_family(runs) if done and one_recipe(runs) else {}
    if not found:
        return message(runs)
    verdicts: dict[str, list[str]] = {}
    for family, verdict in found.items():
        verdicts.setdefault(verdict, []).append(family)
    first, *others = (_part(verdict, verdicts) for verdict in ORDER if verdict in verdicts)
    deeper = first if "alike" in first else f"deeper {first}"
    fresh = all(run.data["name"].endswith("-fresh") for run in runs)
    images = "new images" if fresh else "the training images"
    return "; ".join([f"{sentence_case(deeper)} on {images}", *others])


def _part(verdict: str, verdicts: dict[str, list[str]]) -> str:
    """Words such as "plain nets (+20.6 points) are worse"."""
    families = " and ".join(verdicts[verdict])
    alike = verdict == "alike"
    return f"{families} of all depths end alike" if alike else f"{families} are {verdict}"


def _by_family(runs: Sequence[Run]) -> dict[str, str]:
    """Verdict on depth by the family with its difference, such as "plain nets (+20.6 points)"."""
    groups = list(by_net(runs).values())
    found = {}
    for family, style in family_styles(runs).items():
        depths = sorted((g for g in groups if g[0].family == family), key=lambda g: g[0].depth)
        if depths[0][0].depth == depths[-1][0].depth:
            continue
        gap, unsure = difference(depths[-1], depths[0])
        worse = (gap > 0) == depths[0][0].metric.lower_is_better
        if abs(gap) <= unsure:
            found[style.title] = "alike"
            continue
        amount = wording.difference(depths[0][0].metric, abs(gap))
        found[f"{style.title} ({'+' if gap > 0 else '-'}{amount})"] = "worse" if worse else "better"
    return found
