"""Pages for teachers and the lessons' page say what is in the lessons and the library."""

import json
import re
import sys
import types
from pathlib import Path

import pytest

from minires import data
from minires.ops import numpy_ops
from minires.school.exercises import EXERCISES

HOME = Path(__file__).parents[1] / "lessons"
LESSONS = sorted(HOME.glob("[0-9][0-9]*_*.ipynb"))
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)


def page(name):
    return (HOME / name).read_text(encoding="utf-8")


def number(path):
    """ "04b_whole_network.ipynb" is lesson 4b."""
    return path.name.split("_")[0].lstrip("0")


def cells(path, kind):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


@each_lesson
def test_the_table_of_the_lessons_has_the_minutes_and_the_needs_that_the_lesson_gives(path):
    row = re.search(rf"\({path.name}\) \| (\d+) \| (.+) \|", page("README.md"))
    first = cells(path, "markdown")[0]
    time = re.search(r"\*\*Time:\*\* (\d+) minutes", first)[1]
    need = re.search(r"\*\*You need:\*\* (.+)", first)[1]
    lessons = [
        set(re.findall(r"\b\d+[a-z]?\b", re.sub(r"\([^)]*\.ipynb\)", "", text)))
        for text in (need, row[2])
    ]
    assert row[1] == time
    assert lessons[0] == lessons[1]


def test_the_program_that_trains_with_an_op_of_a_student_runs(shapes, monkeypatch, capsys):
    program = re.search(r"```python\n(.*?)```", page("README.md"), re.S)[1]
    own = types.ModuleType("conv2d_backward")
    calls = []

    def conv2d_backward(dy, cache):
        calls.append(dy.shape)
        return numpy_ops.conv2d_backward(dy, cache)

    own.conv2d_backward = conv2d_backward
    monkeypatch.setitem(sys.modules, "conv2d_backward", own)
    monkeypatch.setattr(data, "load", lambda name: shapes)
    text = program.replace("range(200)", "range(1)").replace("batch_size=64", "batch_size=4")
    exec(compile(text, "shown", "exec"), {})
    assert calls
    assert re.fullmatch(r"0 \d+\.\d+\n", capsys.readouterr().out)


def test_every_lesson_has_a_session_that_names_its_sections():
    sessions = re.split(r"^## Lesson ", page("teachers/sessions.md"), flags=re.M)[1:]
    assert [text.split()[0] for text in sessions] == [number(path) for path in LESSONS]
    for path, text in zip(LESSONS, sessions, strict=True):
        assert re.findall(r"^- \*\*(.+?):\*\*", text, re.M) == ["Run", "Draw", "Leave out"]
        headings = re.findall(r"^## (.+)$", "\n".join(cells(path, "markdown")), re.M)
        known = {name for heading in headings for name in (heading, *heading.split(": ", 1))}
        named = re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", text)
        assert named
        assert [name for name in named if name not in known] == [], path.name


def test_functions_are_printed_in_the_lessons_that_the_page_names_and_in_no_other():
    part = page("teachers/README.md").split("## Functions that the lessons print")[1]
    part = part.split("\n## ")[0]
    shown = {number(path): path.read_text(encoding="utf-8") for path in LESSONS}
    line = re.search(r"\*\*A function that no lesson prints:\*\* (.+)", part)[1]
    unprinted = re.findall(r"`(\w+)`", line)
    assert unprinted
    assert set(unprinted) <= set(EXERCISES)
    assert not [n for n in unprinted for text in shown.values() if f"def {n}(" in text]
    rows = re.findall(r"^\| ([\d, a-z]+) \| (`.+?) \|", part, re.M)
    assert len(rows) >= 5
    for lessons, functions in rows:
        texts = "".join(shown[lesson] for lesson in lessons.split(", "))
        names = re.findall(r"`(\w+)`", functions)
        if " as " in functions:  # an exercise made from a method or a class
            assert names[0] in EXERCISES
            names = [name.split(".")[-1] for name in re.findall(r"as `([\w.]+)`", functions)]
        assert all(re.search(rf"(?:def|class) {name}\(", texts) for name in names), lessons


def test_the_points_of_a_prediction_add_up_to_ten():
    part = page("teachers/README.md").split("## Predictions")[1].split("\n## ")[0]
    assert "Ten points:" in part
    assert sum(map(int, re.findall(r"\| (\d) \|$", part, re.M))) == 10
    graded = re.findall(r"^\| (\d+[a-z]?) \|", part, re.M)
    named = re.search(r"Lessons (.+) ask for no function", part)[1]
    assert graded == re.findall(r"\d+[a-z]?", named)
    for name in graded:  # these lessons have no exercise that `minires exercise check` grades
        path = next(path for path in LESSONS if number(path) == name)
        assert "exercise start" not in "\n".join(cells(path, "markdown"))
