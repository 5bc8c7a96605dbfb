"""Mutation testing: change one detail of a file, and see whether its tests notice.

Run this by hand, on Linux:

    pip install -e ".[mutants]"
    python tests/mutants.py                                   # every file of the table
    python tests/mutants.py minires/optim.py --mutants 20     # one file, 20 mutants

Cosmic Ray makes the mutants: another operator, a number off by one, a condition negated, a loop
that never runs, a missing decorator. Three operators of our own, below, delete a statement, turn
`a += b` into `a = b`, and delete a `return`. The table `[tool.mutants]` of pyproject.toml names the
tests that judge each file, and the share of mutants that they have to find. A seed selects the
mutants; an edit of the file changes the selection only where it changes the code.

The tests run on a copy of the project. `mutant_judge.py` says how. Results are kept in
.mutants/session.jsonl, so run the same command again to resume. A mutant that was killed is not
tried again; one that survived is tried again when the tests have changed. The file
equivalent_mutants.toml lists mutants that no test can find, with reasons. The exit code is 1 if a
file misses its target.
"""

import argparse
import ast
import difflib
import hashlib
import json
import pickle
import signal
import sys
import tomllib
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
EQUIVALENT = ROOT / "tests/equivalent_mutants.toml"
MOST_EQUIVALENT = 0.05  # of the mutants of a file
FOUND = ("killed", "timeout")


# ----------------------------------------------------------------------------------------- mutants


@dataclass(frozen=True)
class Mutant:
    """A change of one file."""

    file: str
    before: str  # the changed lines, without indentation
    after: str
    place: int  # 0 for the first change of this kind in the file, 1 for the second, ...
    line: int
    source: str  # of the whole changed file

    @property
    def key(self):
        """A digest of the change, the same wherever in the file the line is."""
        text = "\0".join((self.file, self.before, self.after, str(self.place)))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def own_operators():
    """Operators that Cosmic Ray lacks."""
    from cosmic_ray.operators.operator import Operator
    from parso.python.tree import Keyword

    class ReplaceStatement(Operator):
        """Replace each statement that `chosen` selects by another."""

        def mutation_positions(self, node):
            if node.parent is not None and node.parent.type == "simple_stmt" and self.chosen(node):
                yield node.start_pos, node.end_pos

        def mutate(self, node, index):
            return Keyword("pass", node.start_pos, prefix=node.get_first_leaf().prefix)

        @classmethod
        def examples(cls):
            return ()

    class DeleteStatement(ReplaceStatement):
        """Delete a call, a `raise`, and an assignment to a part or an attribute of something."""

        def chosen(self, node):
            if node.type in ("raise_stmt", "atom_expr", "power", "assert_stmt", "del_stmt"):
                return True
            return node.type == "expr_stmt" and node.children[0].type in ("atom_expr", "power")

    class DeleteReturn(ReplaceStatement):
        """Delete a `return`."""

        def chosen(self, node):
            return node.type == "return_stmt"

    class PlainAssignment(ReplaceStatement):
        """Write `a = b` for `a += b`."""

        def chosen(self, node):
            return (
                node.type == "expr_stmt"
                and node.children[1].type == "operator"
                and (node.children[1].value in ("+=", "-=", "*=", "/=", "//=", "|=", "&="))
            )

        def mutate(self, node, index):
            node.children[1].value = "="
            return node

    return DeleteStatement, DeleteReturn, PlainAssignment


def operators():
    """Yield family and operator: those of Cosmic Ray that need no argument, and our own.

    Operators of one family change the same places, such as one comparison to another.
    """
    from cosmic_ray import plugins

    for name in sorted(plugins.operator_names()):
        operator = plugins.get_operator(name)
        if not operator.arguments():
            yield name.split("/")[-1].split("_")[0], operator()
    for operator in own_operators():
        yield operator.__name__, operator()


def spans_left_alone(source):
    """Annotations, and the list of public names: ((line, column), (line, column)) of each."""
    for node in ast.walk(ast.parse(source)):
        found = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        names = [getattr(target, "id", "") for target in getattr(node, "targets", ())]
        if "__all__" in names:
            found.append(node)
        for part in filter(None, found):
            yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


def changed_lines(source, mutated):
    """Return the lines that differ, before and after, and the number of the first."""
    before, after = source.splitlines(), mutated.splitlines()
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    changed = [m for m in matcher.get_opcodes() if m[0] != "equal"]
    if not changed:
        return "", "", 0
    (_, i, _, j, _), (_, _, k, _, m) = changed[0], changed[-1]
    texts = ("\n".join(map(str.strip, lines)) for lines in (before[i:k], after[j:m]))
    return *texts, i + 1


def compiles(source):
    """Whether a source compiles without a warning; `is` with a literal gives one."""
    with warnings.catch_warnings(action="error"):
        try:
            compile(source, "mutant", "exec")
        except (SyntaxError, SyntaxWarning):
            return False
    return True


def sites(source):
    """Return (family, place) -> [(name of the operator, operator, number of its mutant), ...]."""
    from cosmic_ray.ast import ast_nodes, get_ast

    nodes = [*ast_nodes(get_ast(source))]
    alone = [*spans_left_alone(source)]
    found = defaultdict(list)
    for family, operator in operators():
        places = [place for node in nodes for place in operator.mutation_positions(node)]
        for i, (start, end) in enumerate(places):
            if not any(a <= start and end <= b for a, b in alone):
                found[family, start].append((type(operator).__name__, operator, i))
    return found


def ordered_sites(source, seed):
    """Return operators and numbers of mutants: every place once before any place twice.

    Places are in the order of a digest of their line, so that an edit of one line moves no other.
    """
    lines, times, ranked = source.splitlines(), Counter(), []
    for (family, (row, column)), variants in sites(source).items():
        text = lines[row - 1].strip(), column, family
        times[text] += 1

        def order(name, text=text, time=times[text]):
            return hashlib.sha256(f"{seed} {text} {time} {name}".encode()).hexdigest()

        shuffled = sorted(variants, key=lambda v: order(f"{v[0]} {v[2] - variants[0][2]}"))
        ranked += [(rank, order(family), variant[1:]) for rank, variant in enumerate(shuffled)]
    return [variant for _, _, variant in sorted(ranked, key=lambda r: r[:2])]


def mutants_of(file, seed, number, root=ROOT):
    """Select mutants of a file that differ from each other and compile."""
    from cosmic_ray.ast import get_ast
    from cosmic_ray.mutating import MutationVisitor

    source = (root / file).read_text(encoding="utf-8")
    selected, seen, times = [], {source}, Counter()
    tree = pickle.dumps(
        get_ast(source)
    )  # a mutation changes it, and loading is quicker than parsing
    for operator, i in ordered_sites(source, seed):
        if len(selected) == number:
            break
        mutated = MutationVisitor(i, operator).walk(pickle.loads(tree)).get_code()
        if mutated not in seen and compiles(mutated):
            seen.add(mutated)
            before, after, line = changed_lines(source, mutated)
            selected.append(Mutant(file, before, after, times[before, after], line, mutated))
            times[before, after] += 1
    return selected


# ------------------------------------------------------------------------------- tables and records


def settings():
    """Return the table of pyproject.toml, and each file's group in it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    table = project["tool"]["mutants"]
    return table, {file: group for group in table["groups"] for file in group["judges"]}


def equivalents():
    """Return the reason by file, line and changed line."""
    rows = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("mutant", [])
    return {(row["file"], row["line"], row["becomes"]): row["reason"] for row in rows}


def digest_of(paths):
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Session:
    """Results so far, one JSON object a line."""

    def __init__(self, path):
        self.path, self.results = path, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                result = json.loads(line)
                self.results[result["key"]] = result

    def outcome(self, mutant, judges):
        """Return "killed", "timeout", "survived", or None if the mutant has to be tried."""
        result = self.results.get(mutant.key, {})
        known = result.get("outcome") in FOUND or result.get("judges") == judges
        return result.get("outcome") if known else None

    def record(self, mutant, judges, outcome, by, seconds):
        result = {"key": mutant.key, "file": mutant.file, "judges": judges, "outcome": outcome}
        result |= {"by": by, "seconds": round(seconds, 1)}
        self.results[mutant.key] = result
        with self.path.open("a", encoding="utf-8") as f:
            f.write(json.dumps(result) + "\n")


def as_diff(mutant):
    removed = "".join(f"\n- {line}" for line in mutant.before.split("\n"))
    added = "".join(f"\n+ {line}" for line in mutant.after.split("\n"))
    return f"survived: {mutant.file}:{mutant.line}{removed}{added}"


# --------------------------------------------------------------------------------------------- runs


def judge_file(file, group, session, options, copies):
    """Try the mutants of a file; return its row of the table."""
    from mutant_judge import Judge
    from tqdm import tqdm

    root = copies[0]  # unlike the project, it does not change meanwhile
    number = options.mutants or group.get("mutants", 100)
    mutants = mutants_of(file, options.seed, number, root)
    tests = [root / "tests" / name for name in group["judges"][file]]
    judges = digest_of([*tests, root / "tests/conftest.py"])
    reasons = equivalents()
    same = [m for m in mutants if (m.file, m.before, m.after) in reasons]
    outcomes = {m: session.outcome(m, judges) for m in mutants if m not in same}
    untried = [m for m, outcome in outcomes.items() if outcome is None]
    if untried:
        deselect = group.get("deselect", "")
        alike = [f for f, names in group["judges"].items() if names == group["judges"][file]]
        code = digest_of([root / f for f in alike])
        digest = hashlib.sha256(f"{judges} {deselect} {code}".encode()).hexdigest()
        kept = session.path.parent / f"unmutated-{digest[:16]}.json"
        judge = Judge(file, alike, tests, deselect, copies, kept)
        killers = Counter(r["by"] for r in session.results.values() if r["file"] == file)
        progress = tqdm(judge.tried(untried, killers), total=len(untried), desc=file, mininterval=1)
        for mutant, outcome, by, seconds in progress:
            session.record(mutant, judges, outcome, by, seconds)
            outcomes[mutant] = outcome
            if outcome == "survived":
                progress.write(as_diff(mutant))
    return mutants, same, [m for m, outcome in outcomes.items() if outcome not in FOUND]


def report(rows, targets):
    """Print survivors and the table; return whether every file reaches its target."""
    for _, _, survived in rows.values():
        for mutant in sorted(survived, key=lambda m: m.line):
            print(f"{as_diff(mutant)}\n")
    print(f"{'file':34} mutants  killed  survived  equivalent    rate  target")
    good = True
    for file, (mutants, same, survived) in rows.items():
        judged = len(mutants) - len(same)
        rate = 100 * (judged - len(survived)) / max(judged, 1)
        good = good and rate >= targets[file] and len(same) <= MOST_EQUIVALENT * len(mutants)
        numbers = f"{len(mutants):7} {judged - len(survived):7} {len(survived):9} {len(same):11}"
        print(f"{file:34} {numbers} {rate:6.1f}% {targets[file]:6}%")
    return good


def stop(*_):
    raise SystemExit(130)


def main():
    from mutant_judge import copies_of

    table, groups = settings()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="such as minires/optim.py")
    parser.add_argument("--seed", type=int, default=table["seed"])
    parser.add_argument("--mutants", type=int, help="how many of each file; default: the table's")
    parser.add_argument("--jobs", type=int, default=1, help="mutants tried at the same time")
    parser.add_argument("--session", type=Path, default=ROOT / ".mutants/session.jsonl")
    parser.add_argument("--list", action="store_true", help="print the mutants and try none")
    options = parser.parse_args()
    given = [file.removeprefix(f"{ROOT}/") for file in options.files]
    unknown = [file for file in given if file not in groups]
    if unknown:
        parser.error(f"{unknown[0]} is not in [tool.mutants] of pyproject.toml; add it there")
    files = given or list(groups)
    if options.list:
        for file in files:
            number = options.mutants or groups[file].get("mutants", 100)
            for m in mutants_of(file, options.seed, number):
                print(f"{file}:{m.line}\n- {m.before}\n+ {m.after}")
        return 0
    signal.signal(signal.SIGTERM, stop)
    session = Session(options.session)
    rows = {}
    with copies_of(ROOT, options.jobs, options.session.parent / "copies") as copies:
        for file in files:
            rows[file] = judge_file(file, groups[file], session, options, copies)
    good = report(rows, {file: groups[file]["target"] for file in files})
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
