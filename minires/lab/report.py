"""Report on recorded runs: one HTML page with figures, tables, claims and provenance."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import Any

from minires.lab import plots, tables
from minires.lab.commands import commands
from minires.lab.recorded import by_net, metric_of
from minires.runs.run import Run
from minires.text import plural, sentence_case

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light dark; --line: #8886; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: auto; padding: 1rem; \
overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; background: white; border-radius: 6px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; \
border-bottom: 1px solid var(--line); }
pre { overflow-x: auto; padding: .7rem; border: 1px solid var(--line); border-radius: 6px; }
.held { color: light-dark(#0a6b2d, #6fd68f); }
.not { color: light-dark(#b00020, #ff8a8a); font-weight: bold; }
small { opacity: .8; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$summary</p>
$figures
<h2>$metric at the end</h2>
$table
<h2>Claims</h2>
<p>The claims were stated in the program before these runs, and the program checks them. \
For the runs in its repository, lessons/runs/README.md lists what was known before.</p>
$claims
<h2>Repeat it</h2>
<pre><code>$commands</code></pre>
<h2>Configuration</h2>
$config
<h2>Where it was run</h2>
$provenance
</body>
</html>
""")


def page(runs: Sequence[Run], verdicts: Mapping[str, Sequence[tuple[Any, Any]]]) -> str:
    """HTML of the report.

    Parameters
    ----------
    runs : list of Run
    verdicts : dict of str to list of (Claim, Verdict)
        As `claims.judge` returns them.

    Raises
    ------
    InputError
        If the runs measure different metrics.
    """
    data = ", ".join(dict.fromkeys(run.data["name"] for run in runs))
    few, many = (bound(len(group) for group in by_net(runs).values()) for bound in (min, max))
    seeds = f"{few} to {many}" if few < many else f"{many}"
    nets = ", ".join(by_net(runs))
    return PAGE.substitute(
        title=escape(tables.message(runs)),
        summary=escape(f"{nets} on {data}, {seeds} seed{'s' if many > 1 else ''} each."),
        figures="\n".join(_figures(runs)),
        metric=escape(sentence_case(plural(metric_of(runs).name))),
        table=_rows(tables.table_lines(runs), head=True),
        claims="\n".join(_claims(title, rows) for title, rows in verdicts.items()),
        commands=escape("\n".join(commands(runs))),
        config=_rows(_settings([run.config for run in runs])),
        provenance=_rows(_origins(runs), head=True),
    )


def _figures(runs: Sequence[Run]) -> list[str]:
    """Each kind of figure that the runs have data for."""
    wanted = {"errors": tables.message(runs)}
    if len({run.depth for run in plots.drawable("depth", runs)}) > 1:
        wanted["depth"] = f"By depth. {tables.message(runs)}"
    if plots.drawable("layers", runs):
        wanted["layers"] = "Gradient norms and responses by layer"
    return [_figure(plots.FIGURES[kind](runs), text) for kind, text in wanted.items()]


def _figure(figure: Any, text: str) -> str:
    source = base64.b64encode(plots.render(figure, ".svg")).decode()
    return f'<figure><img alt="{escape(text)}" src="data:image/svg+xml;base64,{source}"></figure>'


def _rows(lines: Sequence[Sequence[str]], head: bool = False) -> str:
    """Table in a box that scrolls; the first column holds heads, with `head` the first line too."""
    made = []
    for i, (first, *rest) in enumerate(lines):
        tag = "th" if head and i == 0 else "td"
        cells = "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in rest)
        made.append(f"<tr><th>{escape(first)}</th>{cells}</tr>")
    return f'<div class="wide"><table>{"".join(made)}</table></div>'


def _claims(title: str, rows: Sequence[tuple[Any, Any]]) -> str:
    kinds = {True: "held", False: "not", None: ""}
    made = "".join(
        f"<tr><th>{escape(claim.key)}</th>"
        f'<td class="{kinds[verdict.held]}">{escape(str(verdict))}</td>'
        f"<td>{escape(claim.sentence)}<br><small>{escape(_numbers(verdict))}</small></td></tr>"
        for claim, verdict in rows
    )
    return f'<h3>{escape(title)}</h3><div class="wide"><table>{made}</table></div>'


def _numbers(verdict: Any) -> str:
    """The numbers of a verdict, and why it was not measured."""
    return "; ".join(filter(None, [verdict.numbers, verdict.reason]))


def _settings(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Name and value of each entry; where records differ, all values are listed."""
    names = dict.fromkeys(name for record in records for name in record)
    return [[name, " / ".join(dict.fromkeys(str(r.get(name)) for r in records))] for name in names]


def _origins(runs: Sequence[Run]) -> list[list[str]]:
    """Head and rows: a column for each origin (machine, commit, data), headed by its runs."""
    columns: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for run in runs:
        origin = _flat(_origin(run))
        columns.setdefault(repr(origin), (origin, []))[1].append(
            f"{run.net} seed {run.config['seed']}"
        )
    names = dict.fromkeys(name for origin, _ in columns.values() for name in origin)
    head = ["", *(", ".join(dict.fromkeys(titles)) for _, titles in columns.values())]
    return [
        head,
        *([name, *(str(origin.get(name, "")) for origin, _ in columns.values())] for name in names),
    ]


def _origin(run: Run) -> dict[str, Any]:
    """Provenance and data of a run, and the provenance of later parts."""
    later = {f"from iteration {part['iteration']} on": part["provenance"] for part in run.continued}
    return run.provenance | {"data": run.data} | later


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of nested dicts by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": v for key, v in _flat(value).items()}
        else:
            flat[name] = value
    return flat
