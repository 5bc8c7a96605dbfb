"""Results of commands as plain values, for --json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minires.lab.claims import Claim
    from minires.lab.verdicts import Verdict
    from minires.nets.network import Network
    from minires.runs.run import Run

Values = dict[str, Any]


def runs(found: Sequence[Run]) -> list[Values]:
    """Each run with its last evaluation; metrics are as recorded, an error as a fraction."""
    return [_run(run) for run in found]


def _run(run: Run) -> Values:
    last = run.evals[-1] if run.evals else {}
    measured = {key: value for key, value in last.items() if key != "kind"}
    identity = {"folder": run.folder, "net": run.net, "seed": run.config["seed"]}
    return {**identity, "data": run.data["name"], "done": run.done, "last_evaluation": measured}


def claims(verdicts: Mapping[str, Sequence[tuple[Claim, Verdict]]]) -> Values:
    """Verdicts by the title of their runs and the key of the claim; held is None if unmeasured."""
    return {
        title: {
            claim.key: {
                "claim": claim.sentence,
                "held": verdict.held,
                "numbers": verdict.numbers,
                "reason": verdict.reason,
            }
            for claim, verdict in rows
        }
        for title, rows in verdicts.items()
    }


def audit(net: Network) -> Values:
    """The audit of a network: facts, totals, and a row for each layer."""
    from minires.nets import audit as audits

    rows = audits.audit(net)
    layers = [
        {
            "layer": row.name,
            "kind": row.kind,
            "output": row.shape,
            "parameters": row.parameters,
            "multiply_adds": row.macs,
            "beside_the_main_path": row.side,
        }
        for row in rows
    ]
    totals = {"parameters": sum(row.parameters for row in rows), "multiply_adds": audits.macs(net)}
    shape = {"input_shape": net.facts.input_shape, "classes": net.facts.classes}
    return {"net": net.facts.name, **shape, **totals, "layers": layers}
