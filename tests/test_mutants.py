"""Mutation testing (mutants.py): its tables name what exists, and a session is resumed."""

import importlib
import sys
import tomllib
from dataclasses import replace

import pytest
from mutant_patches import Unpatchable, changed_code, patch
from mutants import EQUIVALENT, ROOT, Mutant, Session, changed_lines, settings, spans_left_alone

STEPS = """
def twice(f):
    def g(x):
        return f(f(x))
    return g

@twice
def step(x):
    return x + 1
"""
MUTANT = Mutant("minires/optim.py", "a = b + c", "a = b - c", 0, 3, "a = b - c\n")


def test_every_judge_and_every_judged_file_exists():
    table, groups = settings()
    assert len(groups) == sum(len(group["judges"]) for group in table["groups"])
    for file, group in groups.items():
        assert (ROOT / file).is_file(), file
        assert [t for t in group["judges"][file] if not (ROOT / "tests" / t).is_file()] == []


def test_equivalent_mutants_name_lines_that_exist_and_a_reason():
    rows = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("mutant", [])
    for row in rows:
        assert row.keys() == {"file", "line", "becomes", "reason"}
        text = (ROOT / row["file"]).read_text(encoding="utf-8")
        lines = [line.strip() for line in text.splitlines()]
        before = row["line"].split("\n")
        places = range(len(lines) - len(before) + 1)
        assert any(lines[i : i + len(before)] == before for i in places), row
        assert row["line"] != row["becomes"]
        assert len(row["reason"].split()) > 3, row


def test_a_change_is_known_by_its_lines_wherever_they_are():
    before = "x = 1\nif x:\n    y = 2\n"
    assert changed_lines(before, before.replace("2", "3")) == ("y = 2", "y = 3", 3)
    assert changed_lines(before, "x = 1\nif x:\n") == ("y = 2", "", 3)
    assert replace(MUTANT, line=9, source="").key == MUTANT.key
    others = [replace(MUTANT, file="f"), replace(MUTANT, after="a"), replace(MUTANT, place=1)]
    assert MUTANT.key not in [other.key for other in others]


def test_annotations_and_the_list_of_public_names_are_left_alone():
    source = "__all__ = ['f']\ndef f(x: int | None = 1) -> int | None:\n    y: int | str = x\n"
    assert sorted(spans_left_alone(source)) == [
        ((1, 0), (1, 15)),
        ((2, 9), (2, 19)),
        ((2, 28), (2, 38)),
        ((3, 7), (3, 16)),
    ]


@pytest.mark.parametrize(
    ("outcome", "same", "changed"),
    [("killed", "killed", "killed"), ("timeout", "timeout", "timeout"),
     ("survived", "survived", None)],
)  # fmt: skip
def test_only_survivors_are_tried_again_and_only_when_the_tests_changed(
    tmp_path, outcome, same, changed
):
    path = tmp_path / "kept" / "session.jsonl"
    Session(path).record(MUTANT, "judges", outcome, "test", 1.0)
    assert Session(path).outcome(MUTANT, "judges") == same
    assert Session(path).outcome(MUTANT, "other judges") == changed
    assert Session(path).outcome(replace(MUTANT, after="a = b"), "judges") is None


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """A file with the functions of STEPS, and its `step` as another module would hold it."""
    path = tmp_path / "steps_of_a_test.py"
    path.write_text(STEPS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield path, importlib.import_module(path.stem).step
    del sys.modules[path.stem]


@pytest.mark.parametrize(("before", "after", "result"), [("+ 1", "+ 2", 4), ("f(f(x))", "f(x)", 1)])
def test_a_mutant_changes_a_function_wherever_it_is_held(steps, before, after, result):
    path, step = steps
    assert step(0) == 2
    patch(path, STEPS, STEPS.replace(before, after))
    assert step(0) == result


def test_a_mutant_with_other_functions_or_other_variables_from_outside_is_imported(steps):
    assert changed_code(STEPS, STEPS.replace("x + 1", "(lambda: x + 1)()")) == {}
    with pytest.raises(Unpatchable):
        patch(steps[0], STEPS, STEPS.replace("f(f(x))", "x"))


def test_a_file_that_is_not_imported_needs_no_patch(tmp_path):
    patch(tmp_path / "other.py", STEPS, STEPS.replace("+ 1", "+ 2"))
