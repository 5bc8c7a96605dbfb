"""The model answers of the lessons' exercises pass, and the usual wrong answers fail."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase

from minires import resnet, school
from minires.cli import lessons
from minires.data import pictures
from minires.gradcheck import GradientError, check_layer
from minires.lab.studies import features
from minires.layers import Conv2d
from minires.school import search
from minires.school.draw import MEDIUM, SMALL
from minires.school.exercises import EXERCISES

FOLDER = Path(__file__).parents[1] / "lessons" / "answers"
FILES = sorted(FOLDER.glob("lesson_*.py"))


def load(stem):
    spec = importlib.util.spec_from_file_location(stem, FOLDER / f"{stem}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = {file.stem: load(file.stem) for file in FILES}
GRADED = {stem: module for stem, module in MODULES.items() if hasattr(module, "EXERCISE")}
WRONG = [
    (stem, name)
    for stem, module in GRADED.items()
    for name in vars(module)
    if name.startswith("wrong_")
]


@pytest.fixture
def few_cases(monkeypatch):
    monkeypatch.setattr(search, "SEARCHES", ((SMALL, 15), (MEDIUM, 10)))
    monkeypatch.setattr(search, "PHASES", [Phase.generate])  # the first case that fails will do


@pytest.mark.usefixtures("few_cases")
@pytest.mark.parametrize("stem", GRADED)
def test_the_model_answer_passes(stem):
    module = GRADED[stem]
    report = school.check(getattr(module, module.EXERCISE), module.EXERCISE)
    assert report.passed, report


@pytest.mark.usefixtures("few_cases")
@pytest.mark.parametrize(("stem", "name"), WRONG)
def test_a_usual_wrong_answer_fails(stem, name):
    module = GRADED[stem]
    report = school.check(getattr(module, name), module.EXERCISE)
    assert (report.passed, report.verdict) == (False, "failed")


@pytest.mark.usefixtures("few_cases")
def test_the_nine_steps_pass_too():
    module = GRADED["lesson_04"]
    assert school.check(module.nine_steps, module.EXERCISE).passed


@pytest.mark.parametrize("stem", GRADED)
def test_every_lesson_has_at_least_two_wrong_answers(stem):
    assert len([name for lesson, name in WRONG if lesson == stem]) >= 2


def test_training_notices_the_missing_flip_in_other_losses_than_those_of_the_right_one(shapes):
    module = MODULES["lesson_03"]
    right, wrong = (
        module.losses(backward, shapes, steps=3, batch_size=4)
        for backward in (module.conv2d_backward, module.wrong_filter_not_flipped)
    )
    assert right[0] == wrong[0]  # the first forward knows no backward
    assert right[1:] != wrong[1:]


def test_half_a_shortcut_is_differentiated_and_the_wrong_one_is_found(rng):
    module = MODULES["lesson_06"]
    x = rng.standard_normal((2, 4, 4, 3))
    check_layer(module.Half(Conv2d(3, 4, rng=0)), x)
    with pytest.raises(GradientError):
        check_layer(module.WrongHalf(Conv2d(3, 4, rng=0)), x)


def test_half_a_shortcut_halves_what_passes_all_of_them(rng):
    module = MODULES["lesson_06"]
    net = module.halved(resnet(8, rng=0))
    halves = [layer for _, layer in net.named_layers() if isinstance(layer, module.Half)]
    assert len(halves) == 3
    x = rng.standard_normal((2, 32, 32, 3)).astype(np.float32)
    assert net.forward(x).shape == (2, 10)


def test_answers_do_not_reach_the_students_copy(tmp_path, run_cli):
    assert run_cli("lessons", "copy", tmp_path / "mine")[0] == 0
    copied = {path.name for path in (tmp_path / "mine").iterdir()}
    assert "answers" not in copied
    assert not copied & {"teachers", "quiz"}
    assert (lessons.CHECKOUT / "answers").is_dir()


def parts(text, heading):
    """Sections of a page below headings of a level, by their first word."""
    return {
        section.split(".")[0]: section
        for section in re.split(rf"^{heading} ", text, flags=re.M)[1:]
    }


def test_every_exercise_of_the_lessons_has_an_answer():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    sections = parts(page, "##")
    notebooks = sorted(FOLDER.parent.glob("[0-9][0-9]*_*.ipynb"))
    assert list(sections) == [file.name.split("_")[0].lstrip("0") for file in notebooks]
    for number, section in sections.items():
        kinds = re.findall(r"^\*\*(.+?)\.\*\*", section, re.M)
        assert kinds == ["Now", "To think about", "For the weekend"], number


@pytest.mark.parametrize("folder", ["answers", "teachers"])
def test_links_of_the_pages_for_teachers_lead_somewhere(folder):
    pages = sorted((FOLDER.parent / folder).glob("*.md"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        for anchor in re.findall(r"\]\(#([^)]+)\)", text):
            slugs = {h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)}
            assert anchor in slugs, f"{page.name}: {anchor}"


def test_commands_of_the_plan_name_exercises_that_exist():
    text = (FOLDER.parent / "teachers" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"exercise start (\w+)", text))
    assert named
    assert named <= set(EXERCISES)


@pytest.mark.parametrize("shape", [(9, 14, 3), (14, 9, 3)])
def test_ten_crops_are_the_librarys_and_the_usual_wrong_ones_are_not(shape, rng):
    module, picture = MODULES["lesson_10"], rng.integers(0, 256, shape)
    right = pictures.ten_crop(picture, 5)
    assert np.array_equal(module.ten_crops(picture, 5), right)
    wrong = [call for name, call in vars(module).items() if name.startswith("wrong_")]
    assert len(wrong) == 3
    assert not any(np.array_equal(call(picture, 5), right) for call in wrong)


def test_ridge_and_its_left_out_residuals_are_right_and_the_usual_wrong_ones_are_not(rng):
    module, penalty = MODULES["lesson_12"], 0.1
    z, labels = rng.standard_normal((12, 4)), np.arange(12) % 3
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    t = np.eye(3)[labels] - 1 / 3
    slow = np.empty_like(t)
    for i in range(12):  # a fit without image i, with an offset of its own
        others = np.delete(np.hstack([np.ones((12, 1)), z]), i, axis=0)
        squares = others.T @ others + penalty * 12 * np.diag([0.0, 1, 1, 1, 1])
        w = np.linalg.solve(squares, others.T @ np.delete(t, i, axis=0))
        slow[i] = t[i] - np.hstack([1, z[i]]) @ w
    expected = {"ridge": features.fit(z, labels, 3, penalty).w, "left_out": slow}
    for task, right in expected.items():
        assert np.allclose(getattr(module, task)(z, t, penalty), right, rtol=1e-9, atol=1e-12)
        wrong = [call for n, call in vars(module).items() if n.startswith(f"wrong_{task}")]
        assert len(wrong) == 2
        assert not any(np.allclose(call(z, t, penalty), right, rtol=1e-3) for call in wrong)
